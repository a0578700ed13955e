"""One run at a time in a directory."""

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

# Both stay: who removes a lock file could remove the one that another process has just locked.
LOCK_FILE, OWNER_FILE = ".lock", ".owner.json"

# The directories that this thread has locked, so that what it calls need not ask.
_locked = contextvars.ContextVar("locked", default=frozenset())


@contextlib.contextmanager
def locked(directory, workers=SINGLE_WORKER):
    """Inside it no other run is at work in a directory; the directory is made where it is missing.

    The operating system holds the lock, so that it goes with the process, however that ends. What a killed run had only
    begun to write is removed.

    Args:
        directory: path.
        workers: `Workers`, of whom the chief has the lock.

    Raises:
        ValueError: if another one is running there.
        RuntimeError: if the chief could not get it.
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
            "a directory holds one run at a time; wait for it, or choose another directory (--out). "
            f"Received: {str(directory)!r}, in use by {_owner(directory)}"
        ) from None
    token = _locked.set(_locked.get() | {directory})
    try:
        remove_partial(directory)
        _sign(directory)
        yield
    finally:
        _locked.reset(token)
        lock.release()


def empty(directory):
    """Removes everything from a locked directory but its lock."""
    for path in pathlib.Path(directory).iterdir():
        if path.name in (LOCK_FILE, OWNER_FILE):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _sign(directory):
    """Leaves a note of who has the lock; not in the lock file, which who asks for it may empty."""
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    owner = {"pid": os.getpid(), "host": platform.node(), "since": now}
    (directory / OWNER_FILE).write_text(json.dumps(owner) + "\n")


def _owner(directory):
    """Who has the lock, in words."""
    try:
        owner = json.loads((directory / OWNER_FILE).read_text())
        return f"process {owner['pid']} on {owner['host']} since {owner['since']}"
    except (OSError, ValueError, KeyError):  # It has the lock, and has not signed yet.
        return "a process that has just begun"
