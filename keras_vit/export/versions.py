"""Versions of a model on disk: a folder of integers, of which each appears whole or not at all."""

import errno
import os
import pathlib
import re
import shutil
import uuid

from keras_vit.atomic import keep_names
from keras_vit.validation import check_positive

# A hidden folder beside the versions: on their file system, and no integer, so that a server passes it by.
PARTIAL = ".partial-"
MODEL_FILE = "saved_model.pb"


def version_folders(directory):
    """The versions in a folder, as a server reads them.

    Args:
        directory: path.

    Returns:
        A dict of paths by number, lowest first; empty where there is no folder.
    """
    directory = pathlib.Path(directory)
    found = [path for path in directory.iterdir() if re.fullmatch("[0-9]+", path.name)] if directory.is_dir() else []
    return {int(path.name): path for path in sorted(found, key=lambda path: int(path.name))}


def versions(directory):
    """The numbers of the versions in a folder, a list of int, lowest first."""
    return list(version_folders(directory))


def newest(path):
    """The highest version in a folder of versions; the path itself where it is a SavedModel, or has no versions."""
    path = pathlib.Path(path)
    found = version_folders(path)
    return found[max(found)] if found and not (path / MODEL_FILE).exists() else path


def next_version(directory):
    """The integer after the highest version in `directory`, 1 where there is none."""
    return max(versions(directory), default=0) + 1


def write_version(directory, write, number=None):
    """Writes a version beside the others, then gives it its number: atomically, and never that of another one.

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
    wanted = next_version(directory) if number is None else number
    directory.mkdir(parents=True, exist_ok=True)
    partial = directory / f"{PARTIAL}{uuid.uuid4().hex}"
    partial.mkdir()
    try:
        write(partial, wanted)
        sync(partial)
        while not _rename(partial, directory / str(wanted)):
            check_version(directory, number)
            wanted = next_version(directory)
            write(partial, wanted)
            sync(partial)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    keep_names(directory)
    return directory / str(wanted)


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
    """Whether a folder could be given its name. A folder with files in it is never replaced by that."""
    try:
        os.rename(partial, target)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
            return False
        raise
    return True


def sync(directory):
    """Returns when every file and folder under a folder, and itself, is on the disk."""
    for path, _, files in os.walk(directory):
        for name in files:
            _sync_file(os.path.join(path, name))
        keep_names(path)


def _sync_file(path):
    if os.name == "nt":
        return  # Windows syncs nothing that is open for reading.
    with open(path, "rb") as file:
        os.fsync(file.fileno())
