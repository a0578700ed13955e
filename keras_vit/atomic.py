"""Atomic file replacement: after a crash the old or the new file is complete."""

import contextlib
import os
import pathlib

_PREFIX = "partial."


@contextlib.contextmanager
def replaced(path, keep=None):
    """Replaces a file atomically by what is written inside the context.

    It is on the disk before it has the name, and the name is before this ends. A directory has one writer at a time.

    Args:
        path: of the file.
        keep: path that the old file gets, or `None`: it goes. Between the two steps there is no file of that name, but
            there is the kept one.

    Yields:
        The `pathlib.Path` beside it that is to be written. It ends as `path` does, for those who go by suffixes, and is
        removed if an error comes.
    """
    path = pathlib.Path(path)
    partial = path.with_name(_PREFIX + path.name)
    try:
        yield partial
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        if keep is not None and path.exists():
            os.replace(path, keep)
        os.replace(partial, path)
        keep_names(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def remove_partial(directory):
    """Removes the incomplete files of a killed process."""
    for path in pathlib.Path(directory).glob(f"{_PREFIX}*"):
        path.unlink()


def keep_names(directory):
    """Syncs the names in a directory to disk, if the file system can."""
    with contextlib.suppress(OSError):  # Windows cannot open directories, and some file systems cannot sync them.
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
