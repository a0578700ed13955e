"""Names of a model's classes or values."""

from keras_vit.metadata import composed_metadata
from keras_vit.outputs import class_names, fits

# Labels are stored as a constant in the graph.
_MAX_LABEL_BYTES = 2**20


def model_labels(parts, output, labels=None):
    """Returns the names of a model's outputs.

    Args:
        parts: `keras_vit.composition.Composition` of the model.
        output: what `keras_vit.outputs.describe_output` returns for it.
        labels: names, or `None` for the model's own.

    Returns:
        A tuple of str, for a single output perhaps the names of both classes; `None` without names or without a head.

    Raises:
        ValueError: if their number does not fit.
    """
    if not output.has_head:
        return None
    labels = composed_metadata(parts).labels if labels is None else labels
    if labels is None:
        return None
    labels = tuple(str(label) for label in labels)
    if not fits(labels, output.units):
        _raise_count(labels, output)
    return labels


def served_labels(labels, output, activation):
    """Returns the names that a SavedModel answers with, from those of `model_labels`.

    Raises:
        ValueError: if a value of a regression has no name, or the names are too long.
    """
    if labels is None:
        return None
    if activation == "linear" and len(labels) != output.units:
        _raise_count(labels, output)
    size = sum(len(label.encode()) for label in labels)
    if size > _MAX_LABEL_BYTES:
        raise ValueError(f"labels must have at most {_MAX_LABEL_BYTES} bytes in total. Received: {size} bytes")
    return labels if activation == "linear" else tuple(class_names(labels, output.units))


def _raise_count(labels, output):
    raise ValueError(f"labels must name every class. Received: {len(labels)} labels for {output.units} classes")
