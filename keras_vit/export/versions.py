"""Versions of a model on disk: folders with integer names, written atomically."""

import errno
import os
import pathlib
import re
import shutil
import uuid

from keras_vit.atomic import keep_names
from keras_vit.validation import check_positive

# A hidden folder beside the versions: on their file system, and not an integer, so that a server ignores it.
PARTIAL = ".partial-"
MODEL_FILE = "saved_model.pb"


def version_folders(directory):
    """Finds the versions in a folder, as a server does.

    Args:
        directory: path.

    Returns:
        A dict of paths by number, lowest first; empty without the folder.
    """
    directory = pathlib.Path(directory)
    found = [path for path in directory.iterdir() if re.fullmatch("[0-9]+", path.name)] if directory.is_dir() else []
    return {int(path.name): path for path in sorted(found, key=lambda path: int(path.name))}


def versions(directory):
    """Returns the numbers of the versions in a folder, lowest first."""
    return list(version_folders(directory))


def newest(path):
    """Returns the highest version in a folder; the path itself if it is a SavedModel or has no versions."""
    path = pathlib.Path(path)
    found = version_folders(path)
    return found[max(found)] if found and not (path / MODEL_FILE).exists() else path


def next_version(directory):
    """Returns the number after the highest version in `directory`, 1 if there is none."""
    return max(versions(directory), default=0) + 1


def write_version(directory, write, number=None):
    """Writes a version under a hidden name, then renames it to its number, which is never overwritten.

    Everything is on the disk before the folder gets its name, and several processes may write at once.

    Args:
        directory: folder of the versions; it is made where it is missing.
        write: callable from the path of a folder and the number that it will have. Where another process has taken the
            number meanwhile, it is called again with the same folder, as it left it, and the next number.
        number: int, or `None`: the next one.

    Returns:
        The path of the version.

    Raises:
        ValueError: if `number` is no positive int, the version exists, or `directory` is itself a version.
    """
    check_version(directory, number)
    directory = pathlib.Path(directory)
    target_number = next_version(directory) if number is None else number
    directory.mkdir(parents=True, exist_ok=True)
    partial = directory / f"{PARTIAL}{uuid.uuid4().hex}"
    partial.mkdir()
    try:
        write(partial, target_number)
        sync(partial)
        while not _rename(partial, directory / str(target_number)):
            check_version(directory, number)
            target_number = next_version(directory)
            write(partial, target_number)
            sync(partial)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    keep_names(directory)
    return directory / str(target_number)


def check_version(directory, number):
    """Raises a `ValueError` unless versions may lie in the folder, and `number` is `None` or a positive int of none."""
    check_folder(directory)
    if number is None:
        return
    target = pathlib.Path(directory) / str(check_positive(number, "version"))
    if target.exists():
        raise ValueError(f"a version is never overwritten. Received: {str(target)!r}, which exists")


def check_folder(directory):
    """Raises a `ValueError` if a folder is a version: nothing is written into one, least of all another."""
    if (pathlib.Path(directory) / MODEL_FILE).exists():
        raise ValueError(f"the folder of the versions must be no version itself. Received: {str(directory)!r}")


def _rename(partial, target):
    """Renames a folder; returns False if the target exists with files in it."""
    try:
        os.rename(partial, target)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            return False
        raise
    return True


def sync(directory):
    """Flushes a folder with all of its files and subfolders to the disk."""
    for path, _, files in os.walk(directory):
        for name in files:
            _sync_file(os.path.join(path, name))
        keep_names(path)


def _sync_file(path):
    if os.name == "nt":
        return  # Windows cannot sync a file that is open for reading.
    with open(path, "rb") as file:
        os.fsync(file.fileno())
