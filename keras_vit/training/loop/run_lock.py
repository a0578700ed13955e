"""A lock that lets one run at a time use a directory."""

import contextlib
import contextvars
import datetime
import json
import os
import pathlib
import platform
import shutil

import filelock

from keras_vit.atomic import remove_partial
from keras_vit.training.loop.workers import SINGLE_WORKER

# Neither file is ever removed: a process could otherwise remove a lock file that another one has just locked.
LOCK_FILE, OWNER_FILE = ".lock", ".owner.json"

# The directories that this thread has locked, so that `fine_tune`, `run` and `fit` can each lock the same one.
_locked = contextvars.ContextVar("locked", default=frozenset())


@contextlib.contextmanager
def locked(directory, workers=SINGLE_WORKER):
    """A context that holds the lock of a run's directory; the directory is created if it is missing.

    The operating system releases the lock when the process ends, however it ends. Partially written files of a killed
    run are removed. A thread may enter the context again for a directory that it has locked.

    Args:
        directory: path.
        workers: `Workers`; the chief takes the lock.

    Raises:
        ValueError: if another run uses the directory.
        RuntimeError: on other workers, if the chief could not take the lock.
    """
    with contextlib.ExitStack() as stack:
        with workers.fail_together():
            if workers.is_chief:
                stack.enter_context(_locked_here(directory))
        yield


@contextlib.contextmanager
def _locked_here(directory):
    directory = pathlib.Path(directory).resolve()
    if directory in _locked.get():
        yield
        return
    directory.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(directory / LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise ValueError(
            "a directory holds one run at a time; wait for that run to end, or choose another directory (--out). "
            f"Received: {str(directory)!r}, in use by {_describe_owner(directory)}"
        ) from None
    token = _locked.set(_locked.get() | {directory})
    try:
        remove_partial(directory)
        _write_owner(directory)
        yield
    finally:
        _locked.reset(token)
        lock.release()


def clear_directory(directory):
    """Removes everything from a locked directory except the lock."""
    for path in pathlib.Path(directory).iterdir():
        if path.name in (LOCK_FILE, OWNER_FILE):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _write_owner(directory):
    """Records the process that holds the lock; not in the lock file, which a process may truncate to try the lock."""
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    owner = {"pid": os.getpid(), "host": platform.node(), "since": now}
    (directory / OWNER_FILE).write_text(json.dumps(owner) + "\n")


def _describe_owner(directory):
    """The process that holds the lock, in words."""
    try:
        owner = json.loads((directory / OWNER_FILE).read_text())
        return f"process {owner['pid']} on {owner['host']} since {owner['since']}"
    except (OSError, ValueError, KeyError):  # The owner has taken the lock but not yet recorded itself.
        return "a process that has just started"
