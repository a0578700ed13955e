"""`fingerprint.pb`: checksums of a SavedModel, which identify it in server logs and reveal damaged files."""

import pathlib

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import fingerprint_pb2

try:
    # Only `tf.saved_model.save` writes them; TensorFlow's public functions only read them.
    from tensorflow.python.saved_model.pywrap_saved_model import fingerprinting as _hashes
except ImportError:
    _hashes = None

_FILE = "fingerprint.pb"
_CHECKPOINT = "checkpoint_hash"
# The parts by field; the last field is a checksum of the whole graph file.
_PARTS = {
    "graph_def_program_hash": "graph",
    "signature_def_hash": "signatures",
    "saved_object_graph_hash": "objects",
    _CHECKPOINT: "weights",
    "saved_model_checksum": "saved_model.pb",
}


def write_fingerprint(path):
    """Rewrites the fingerprint of a SavedModel whose graph or signatures have changed since it was saved.

    If TensorFlow does not offer the function, the file is removed, because an outdated one would be wrong.

    Args:
        path: of a version, not yet published.
    """
    file = pathlib.Path(path) / _FILE
    if _hashes is None:
        file.unlink(missing_ok=True)
    else:
        file.write_bytes(_hashes.CreateFingerprintDef(str(path)))


def read_fingerprint(path):
    """Reads the `FingerprintDef` of a SavedModel.

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
    """Lists the parts of a SavedModel that do not match its fingerprint.

    Args:
        path: of a version.

    Returns:
        A list of str, among them `graph`, `signatures`, `weights` (their index, which has a checksum of each of them)
        and `saved_model.pb`, which is all but the weights; empty if all of them match. A fingerprint of
        another version of its format is compared by the weights alone.

    Raises:
        FileNotFoundError: if there is no fingerprint.
        ValueError: if there is no SavedModel, or the fingerprint is damaged.
    """
    path = pathlib.Path(path)
    stored, computed = read_fingerprint(path), _computed(path)
    if computed is None or computed.version.producer != stored.version.producer:
        return [] if stored.checkpoint_hash == _hash_of_weights(path) else [_PARTS[_CHECKPOINT]]
    return [what for name, what in _PARTS.items() if getattr(stored, name) != getattr(computed, name)]


def _computed(path):
    """Computes the `FingerprintDef`; returns `None` if TensorFlow does not offer the function."""
    if _hashes is None:
        return None
    try:
        return fingerprint_pb2.FingerprintDef.FromString(_hashes.CreateFingerprintDef(str(path)))
    except _hashes.FingerprintException as error:
        raise ValueError(f"a SavedModel must have a saved_model.pb. Received: {str(path)!r} ({error})") from error


def _hash_of_weights(path):
    """Computes the checksum of the weights' index by public functions: an int, 0 without weights."""
    index = path / "variables" / "variables.index"
    if not index.exists():
        return 0
    hashed = tf.fingerprint(tf.constant([index.read_bytes()]))[0].numpy()
    return int.from_bytes(hashed.tobytes(), "little")
