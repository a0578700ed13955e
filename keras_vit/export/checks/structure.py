"""Checks of the files of a SavedModel, without running it."""

import hashlib
import re

import tensorflow as tf

from keras_vit.export.checks.base import CheckFailed, require
from keras_vit.export.servable.fingerprint import altered_parts, read_fingerprint
from keras_vit.export.servable.signature_defs import SERVE_TAG

MAX_CONSTANT_BYTES = 2**20
MAX_WEIGHTS_RATIO = 1.02  # times the model's
# Names and places of the weights, and the objects that hold them: more than the 2 % of a tiny model.
OTHER_BYTES = 2**16
# Of two names at least, of a drive or a share, of a home, or as a URL.
_PATH = re.compile(r"(/[^/\s]+){2,}|[A-Za-z]:[\\/]|\\\\\w|~\w*/|file:/")
_CHILDREN = ("saved_model.pb", "fingerprint.pb", "variables", "assets", "assets.extra")
# Smaller weights may be equal by chance, as may those of one value alone: zeros of biases, ones of norms.
_MIN_COMPARED_BYTES = 4096


def version_is_an_integer(exported):
    """Checks that the version folder has an integer name, as TF Serving requires, and holds only a SavedModel."""
    name = exported.path.name
    require(name.isascii() and name.isdigit() and int(name) > 0, f"the folder is called {name!r}")
    others = sorted(path.name for path in exported.path.iterdir() if path.name not in _CHILDREN)
    require(not others, f"there are {', '.join(others[:5])} in the folder, which are no part of a SavedModel")
    return f"version {name}"


def one_graph_for_serving(exported):
    """Checks for one MetaGraph tagged `serve`, without default attributes, so that older servers can read it."""
    tags = [sorted(graph.meta_info_def.tags) for graph in exported.proto.meta_graphs]
    require(tags == [[SERVE_TAG]], f"the MetaGraphs have the tags {tags}")
    info = exported.graph.meta_info_def
    require(info.stripped_default_attrs, "default attributes are not stripped")
    return f"written by TensorFlow {info.tensorflow_version}"


def has_a_fingerprint(exported):
    """Checks that `fingerprint.pb`, which identifies the model in server logs, matches the graph and the weights."""
    try:
        altered = altered_parts(exported.path)
    except FileNotFoundError:
        raise CheckFailed("there is no fingerprint.pb") from None
    require(not altered, f"fingerprint.pb is that of other {', '.join(altered)}")
    return f"checksum {read_fingerprint(exported.path).saved_model_checksum:x}"


def constants_are_small(exported):
    """Checks for large constants, which are often weights stored by mistake."""
    largest, where = 0, None
    for node in exported.nodes():
        if node.op == "Const" and node.attr["value"].tensor.ByteSize() > largest:
            largest, where = node.attr["value"].tensor.ByteSize(), node.name
    require(largest <= MAX_CONSTANT_BYTES, f"the constant {where!r} has {largest:,} bytes")
    return f"the largest has {largest:,} bytes"


def weights_are_stored_once(exported):
    """Checks that the checkpoint holds the weights once, and little else."""
    folder = exported.path / "variables"
    reader = tf.train.load_checkpoint(str(folder / "variables"))
    hashes, total = {}, 0
    for key in reader.get_variable_to_shape_map():
        value = reader.get_tensor(key)
        if isinstance(value, bytes):  # the description of the objects that hold them
            continue
        total += value.nbytes
        if value.nbytes >= _MIN_COMPARED_BYTES and (value != value.flat[0]).any():
            hashes.setdefault(hashlib.sha256(value.tobytes()).digest(), []).append(key)
    twins = [keys for keys in hashes.values() if len(keys) > 1]
    require(not twins, f"the same weights are stored as {' and '.join(twins[0])}" if twins else "")
    stored = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    require(stored <= _most_stored(total), f"{stored:,} bytes hold weights of {total:,}")
    if exported.model is not None:
        weights = sum(weight.numpy().nbytes for weight in exported.model.weights)
        require(stored <= _most_stored(weights), f"{stored:,} bytes are stored; the model's weights have {weights:,}")
    return f"{stored:,} bytes, of which {total:,} are weights"


def _most_stored(weights):
    """Returns the maximum size of a checkpoint with this many bytes of weights."""
    return max(MAX_WEIGHTS_RATIO * weights, weights + OTHER_BYTES)


def no_path_of_a_machine(exported):
    """Checks that the graph contains no path of the machine that wrote it."""
    labels = set(exported.description["labels"] or ())
    for node in exported.nodes():
        if node.op == "Const" and node.attr["value"].tensor.dtype == tf.string.as_datatype_enum:
            for value in node.attr["value"].tensor.string_val:
                text = value.decode(errors="replace")
                # Names of classes may be like paths: those of Open Images are `/m/01yrx`.
                require(not _PATH.match(text) or text in labels, f"the constant {node.name!r} is the path {text!r}")
    return "no constant is a path"
