"""Publishes versions to the folder of a server and rolls back.

A server serves the highest number, so numbers only increase: a rollback is old content under the next number. It needs
no change of a server configuration, and the content of a number never changes.
"""

import datetime
import os
import pathlib
import shutil

import tensorflow as tf

from keras_vit.export.checks.signatures import signature_table
from keras_vit.export.retention import check_keep, remove_old_versions
from keras_vit.export.servable.description import read_description, replace_description
from keras_vit.export.servable.fingerprint import altered_parts
from keras_vit.export.servable.signature_defs import signature_defs
from keras_vit.export.server.files import FILES
from keras_vit.export.versions import newest, version_folders, versions, write_version
from keras_vit.validation import check_positive

_CHECKPOINT = pathlib.Path("variables") / "variables"


def publish_version(source, directory, version=None, keep=None):
    """Copies a SavedModel to the folder that a server watches, as its next version.

    The copy is made under a hidden name, read back (the graph and every variable, against their checksums), forced to
    the disk and renamed: a server sees all of it or nothing. Files of `write_server_files` beside the source are
    copied too where the folder has none.

    Args:
        source: path of a version, or of a folder of versions, of which the highest is used.
        directory: path of the folder of the versions; made if it is not there.
        version: int or `None`: one more than the highest.
        keep: int of at least 2, or `None`: all. Number of highest versions to keep; versions that `models.config`
            names are kept too. The others are removed after the new version is in place, oldest first.

    Returns:
        The path of the new version.

    Raises:
        ValueError: if there is no whole SavedModel, or `version` exists or is not above all that exist.
    """
    source, directory = newest(source), pathlib.Path(directory)
    check_keep(keep)
    _check_number(version, directory)
    target = _add(source, directory, _copy, version, content_of=None)
    remove_old_versions(directory, keep)
    return target


def roll_back(directory, to=None, keep=None):
    """Publishes the content of an older version again, under the next number.

    On one file system the files are linked, not copied.

    Args:
        directory: path of the folder of the versions.
        to: int or `None`: the version before the one whose content is served, so that a second rollback goes one
            further back.
        keep: as for `publish_version`.

    Returns:
        The path of the new version, and the number of the version whose content it has.

    Raises:
        ValueError: if there is no such version, or it is the one that is served.
    """
    found, directory = version_folders(directory), pathlib.Path(directory)
    check_keep(keep)
    if not found:
        raise ValueError(f"the folder must have versions. Received: {str(directory)!r}")
    newest = max(found)
    served = _content_of(found[newest]) or newest
    older = [number for number in found if number < served]
    if to is None and not older:
        raise ValueError(f"there is no version before {served}. Received: {str(directory)!r} with {list(found)}")
    to = older[-1] if to is None else to
    if to not in found or to in (newest, served):
        raise ValueError(
            f"the version must be one of {[n for n in found if n not in (newest, served)]}, other than what is served. "
            f"Received: to={to!r}"
        )
    target = _add(found[to], directory, _link, None, content_of=_content_of(found[to]) or to)
    remove_old_versions(directory, keep)
    return target, to


def _add(source, directory, copy, version, content_of):
    """Writes a version with the content of another folder; returns its path."""
    signature_defs(source)

    def write(path, number):
        if not (path / "saved_model.pb").exists():
            shutil.copytree(source, path, copy_function=copy, dirs_exist_ok=True)
            for folder, _, _ in os.walk(path):
                os.chmod(folder, 0o755)
            _check_whole(path)
            for file in FILES:
                if (source.parent / file).is_file() and not (directory / file).exists():
                    _copy(source.parent / file, directory / file)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        published = {"at": now, "content_of": content_of}
        name = directory.resolve().name  # The model's name on a server.
        replace_description(path, {**_metadata(path), "name": name, "version": number, "published": published})

    return write_version(directory, write, version)


def changed_for_clients(path):
    """Lists what changed for clients since the version before.

    Args:
        path: of a version.

    Returns:
        A list of str, for example `signature explain was removed` or `other labels`; empty without changes, and for a
        first version.
    """
    path = pathlib.Path(path)
    before = [folder for number, folder in version_folders(path.parent).items() if number < int(path.name)]
    if not before:
        return []
    try:
        old, new = (signature_table(signature_defs(folder)) for folder in (before[-1], path))
    except ValueError:
        return []  # The old version was not loadable either.
    found = [f"signature {name} was removed" for name in old if name not in new]
    found += [f"signature {name} has changed" for name in old if name in new and old[name] != new[name]]
    found += [f"signature {name} is new" for name in new if name not in old]
    labels = [_metadata(folder).get("labels") for folder in (before[-1], path)]
    return found + (["other labels"] if labels[0] != labels[1] else [])


def _check_number(version, directory):
    if version is None:
        return
    highest = max(versions(directory), default=0)
    if check_positive(version, "version") <= highest:
        raise ValueError(
            "a version is never overwritten, and a server takes the highest: the number must be above all others. "
            f"Received: version={version}, {str(directory)!r} has {highest}"
        )


def _check_whole(path):
    """Reads the graph and every variable; raises a `ValueError` if a byte is missing or has changed."""
    signature_defs(path)
    _check_fingerprint(path)
    try:
        checkpoint = tf.train.load_checkpoint(str(path / _CHECKPOINT))
        for name in checkpoint.get_variable_to_shape_map():
            checkpoint.get_tensor(name)
    # The reader raises an IndexError for truncated data.
    except (tf.errors.OpError, ValueError, IndexError) as error:
        raise ValueError(f"the variables of a SavedModel must be whole. Received: {error}") from error


def _check_fingerprint(path):
    try:
        altered = altered_parts(path)
    except FileNotFoundError:
        return  # SavedModels of other libraries may have none.
    if altered:
        raise ValueError(
            "a SavedModel must be what its fingerprint.pb was made of. "
            f"Received: {str(path)!r} with other {', '.join(altered)}"
        )


def _metadata(path):
    """Reads the metadata of a SavedModel; returns an empty dict for those of other libraries."""
    try:
        content = read_description(path)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _content_of(path):
    """Returns the version whose content a rolled back version has, or `None`."""
    return _metadata(path).get("published", {}).get("content_of")


def _copy(source, target):
    # A server runs as another user, who must be able to read the files whatever the umask.
    shutil.copyfile(source, target)
    os.chmod(target, 0o644)


def _link(source, target):
    try:
        os.link(source, target)
    except OSError:
        _copy(source, target)
