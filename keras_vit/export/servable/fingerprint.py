"""`fingerprint.pb`: checksums of a SavedModel, by which a server's logs name it and a damaged file is told."""

import pathlib

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import fingerprint_pb2

try:
    # TensorFlow makes them in `tf.saved_model.save` alone; its public functions only read them.
    from tensorflow.python.saved_model.pywrap_saved_model import fingerprinting as _hashes
except ImportError:
    _hashes = None

_FILE = "fingerprint.pb"
_CHECKPOINT = "checkpoint_hash"
# The fields, and what each of them is a checksum of; the last one of all that the file of the graph holds.
_PARTS = {
    "graph_def_program_hash": "graph",
    "signature_def_hash": "signatures",
    "saved_object_graph_hash": "objects",
    _CHECKPOINT: "weights",
    "saved_model_checksum": "saved_model.pb",
}


def write_fingerprint(path):
    """Writes the fingerprint anew, for a SavedModel whose graph or signatures have changed since it was saved.

    Where TensorFlow no longer offers what makes it, the file is removed: none is better than that of another graph.

    Args:
        path: of a version, not yet published.
    """
    file = pathlib.Path(path) / _FILE
    if _hashes is None:
        file.unlink(missing_ok=True)
    else:
        file.write_bytes(_hashes.CreateFingerprintDef(str(path)))


def read_fingerprint(path):
    """The `FingerprintDef` of a SavedModel.

    Args:
        path: of a version.

    Raises:
        FileNotFoundError: if it has none.
        ValueError: if the file is damaged.
    """
    file = pathlib.Path(path) / _FILE
    try:
        return fingerprint_pb2.FingerprintDef.FromString(file.read_bytes())
    except DecodeError as error:
        raise ValueError(f"a SavedModel must have a whole {_FILE}. Received: {str(file)!r} ({error})") from error


def altered_parts(path):
    """What of a SavedModel is not what its fingerprint was made of.

    Args:
        path: of a version.

    Returns:
        A list of str, among them `graph`, `signatures`, `weights` (their index, which has a checksum of each of them)
        and `saved_model.pb`, which is all but the weights; empty where nothing was altered. Where the fingerprint was
        made by other rules than those of this TensorFlow, it tells of the weights alone.

    Raises:
        FileNotFoundError: if there is no fingerprint.
        ValueError: if there is no SavedModel, or the fingerprint is damaged.
    """
    path = pathlib.Path(path)
    told, found = read_fingerprint(path), _computed(path)
    if found is None or found.version.producer != told.version.producer:
        return [] if told.checkpoint_hash == _hash_of_weights(path) else [_PARTS[_CHECKPOINT]]
    return [what for name, what in _PARTS.items() if getattr(told, name) != getattr(found, name)]


def _computed(path):
    """The `FingerprintDef` as it should be, or `None` where TensorFlow does not offer what makes it."""
    if _hashes is None:
        return None
    try:
        return fingerprint_pb2.FingerprintDef.FromString(_hashes.CreateFingerprintDef(str(path)))
    except _hashes.FingerprintException as error:
        raise ValueError(f"a SavedModel must have a saved_model.pb. Received: {str(path)!r} ({error})") from error


def _hash_of_weights(path):
    """The checksum that public functions can make too: an int, 0 where there are no weights."""
    index = path / "variables" / "variables.index"
    if not index.exists():
        return 0
    hashed = tf.fingerprint(tf.constant([index.read_bytes()]))[0].numpy()
    return int.from_bytes(hashed.tobytes(), "little")
