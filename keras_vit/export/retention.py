"""Retention: deletes versions beyond `keep`."""

import os
import pathlib
import re
import shutil
import tempfile

from keras_vit.export.server.files import MODELS_CONFIG
from keras_vit.export.versions import version_folders
from keras_vit.validation import check_positive

_DELETING = ".deleting-"
# The newest, and the one before, which is served while the newest loads and is the target of a rollback.
_MIN_KEEP = 2


def remove_old_versions(directory, keep):
    """Removes the oldest versions, and the rest of an interrupted removal.

    Args:
        directory: path of the folder of the versions.
        keep: int of at least 2, or `None`: none is removed.

    Returns:
        The numbers that were removed, lowest first.

    Raises:
        ValueError: if `keep` is 1 or less.
    """
    check_keep(keep)
    found, directory = version_folders(directory), pathlib.Path(directory)
    if keep is None:
        return []
    named = _named_versions(directory)
    removed = [number for number in list(found)[:-keep] if number not in named]
    for number in removed:
        # Rename first, so that a server never loads half a version.
        os.rename(found[number], tempfile.mkdtemp(prefix=_DELETING, dir=directory))
    for path in directory.glob(f"{_DELETING}*"):
        shutil.rmtree(path, ignore_errors=True)
    return removed


def check_keep(keep):
    """Raises a `ValueError` unless `keep` is `None` or an int of at least 2."""
    if keep is not None and check_positive(keep, "keep") < _MIN_KEEP:
        raise ValueError(
            f"keep must be at least {_MIN_KEEP}, because the version before the newest is served while that loads. "
            f"Received: keep={keep}"
        )


def _named_versions(directory):
    """Returns the versions that `models.config` names, in its policy and its labels."""
    try:
        text = (directory / MODELS_CONFIG).read_text(encoding="utf-8")
    except OSError:
        return set()
    text = re.sub(r"#.*", "", text)
    named = re.findall(r"\b(?:versions|value)\s*:\s*(\[[^\]]*\]|\d+)", text)
    return {int(number) for part in named for number in re.findall(r"\d+", part)}
