"""Reads the signatures of a SavedModel without loading it."""

import pathlib

from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

SERVE_TAG = "serve"
DEFAULT = "serving_default"
PREDICT_METHOD = "tensorflow/serving/predict"
CLASSIFY_METHOD = "tensorflow/serving/classify"
_FILE = "saved_model.pb"


def signature_defs(version_directory):
    """Reads the signatures of a SavedModel.

    Args:
        version_directory: path of the folder with `saved_model.pb`.

    Returns:
        A dict of `SignatureDef` by name, sorted, without TensorFlow's own for initialization.

    Raises:
        ValueError: if there is no SavedModel, or none with one graph for serving.
    """
    content = read_saved_model(version_directory)
    graphs = graphs_for_serving(content)
    if len(graphs) != 1:
        file = pathlib.Path(version_directory) / _FILE
        tags = [list(graph.meta_info_def.tags) for graph in content.meta_graphs]
        raise ValueError(f"a SavedModel must have one graph with the tag {SERVE_TAG!r}. Received: {file}, tags {tags}")
    return named_signatures(graphs[0])


def read_saved_model(version_directory):
    """Reads the `SavedModel` message of a version; raises a `ValueError` if there is none."""
    file = pathlib.Path(version_directory) / _FILE
    content = saved_model_pb2.SavedModel()
    try:
        content.ParseFromString(file.read_bytes())
    except (OSError, DecodeError) as error:
        raise ValueError(f"a SavedModel must have a saved_model.pb. Received: {str(file)!r} ({error})") from error
    return content


def graphs_for_serving(content):
    """Returns the `MetaGraphDef`s of a `SavedModel` message that are tagged for serving."""
    return [graph for graph in content.meta_graphs if SERVE_TAG in graph.meta_info_def.tags]


def named_signatures(graph):
    """Returns the `SignatureDef`s of a `MetaGraphDef` by name, sorted, without TensorFlow's own."""
    found = graph.signature_def
    return {name: found[name] for name in sorted(found) if not name.startswith("__")}
