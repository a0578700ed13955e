"""The folder of a model's versions: which there are, how one appears and how the oldest go."""

import contextlib
import os
import pathlib
import re
import shutil
import tempfile

from keras_vit.export.server_files import MODELS_CONFIG
from keras_vit.validation import check_positive

_DELETING = ".deleting-"
# The newest and the one before, which is served while the newest is loading and is what a rollback goes to.
_FEWEST = 2


def versions(directory):
    """The versions in a folder, as a server reads them.

    Args:
        directory: path.

    Returns:
        A dict of paths by number, lowest first; empty where there is no folder.
    """
    directory = pathlib.Path(directory)
    found = [path for path in directory.iterdir() if re.fullmatch("[0-9]+", path.name)] if directory.is_dir() else []
    return {int(path.name): path for path in sorted(found, key=lambda path: int(path.name))}


def remove_old_versions(directory, keep):
    """Removes the oldest versions, and what an interrupted removal left.

    Args:
        directory: path of the folder of the versions.
        keep: int of at least 2, or `None`: none is removed.

    Returns:
        The numbers that were removed, lowest first.

    Raises:
        ValueError: if `keep` is 1 or less.
    """
    check_keep(keep)
    found, directory = versions(directory), pathlib.Path(directory)
    if keep is None:
        return []
    named = _named_versions(directory)
    doomed = [number for number in list(found)[:-keep] if number not in named]
    for number in doomed:
        # Out of the server's sight at once: half a version must not be loaded.
        os.rename(found[number], tempfile.mkdtemp(prefix=_DELETING, dir=directory))
    for path in directory.glob(f"{_DELETING}*"):
        shutil.rmtree(path, ignore_errors=True)
    return doomed


def check_keep(keep):
    """Raises a `ValueError` unless `keep` is `None` or an int of at least 2."""
    if keep is not None and check_positive(keep, "keep") < _FEWEST:
        raise ValueError(
            f"keep must be at least {_FEWEST}: the version that is served while the newest is loading stays. "
            f"Received: keep={keep}"
        )


def sync(path):
    """Forces a folder and all in it to the disk."""
    for folder, _, files in os.walk(path, topdown=False):
        for file in files:
            with open(os.path.join(folder, file), "rb") as stream:
                os.fsync(stream.fileno())
        sync_folder(folder)


def sync_folder(path):
    """Forces the names in a folder to the disk."""
    # Some network file systems refuse; there a rename is as lasting as they make it.
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _named_versions(directory):
    """The versions that `models.config` names, in its policy and its labels."""
    try:
        text = (directory / MODELS_CONFIG).read_text(encoding="utf-8")
    except OSError:
        return set()
    text = re.sub(r"#.*", "", text)
    named = re.findall(r"\b(?:versions|value)\s*:\s*(\[[^\]]*\]|\d+)", text)
    return {int(number) for part in named for number in re.findall(r"\d+", part)}
