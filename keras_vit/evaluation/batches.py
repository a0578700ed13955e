"""Batches of an evaluation: images as a model takes them, labels as class numbers or rows."""

import numpy as np

from keras_vit.backend.runtime import to_numpy


def image_batches(dataset, input_spec, batch_size):
    """Yields the batches of a data set.

    Args:
        dataset: as for `keras_vit.evaluation.evaluate`.
        input_spec: `InputSpec`, which normalizes uint8 images.
        batch_size: int. For a pair of arrays.

    Yields:
        `(images, labels, weights)`: images as the model takes them, arrays of labels, and weights or `None`.

    Raises:
        ValueError: if there are no labels, or not one for each image.
    """
    for batch in _slices(dataset, batch_size) if _is_pair(dataset) else dataset:
        if not isinstance(batch, tuple | list) or len(batch) not in (2, 3):
            raise ValueError(
                "a data set must give batches (images, labels) or (images, labels, weights). "
                f"Received: a {type(batch).__name__}" + (f" of {len(batch)}" if isinstance(batch, tuple | list) else "")
            )
        images, labels, weights = *batch[:2], batch[2] if len(batch) == 3 else None
        labels = to_numpy(labels)
        if labels.ndim == 0 or len(labels) != images.shape[0]:
            raise ValueError(
                "a batch must have a label for each image. "
                f"Received: labels {labels.shape} for images {tuple(images.shape)}"
            )
        if "uint8" in str(images.dtype):
            images = input_spec.normalize(to_numpy(images))
        yield images, labels, None if weights is None else to_numpy(weights)


def _is_pair(dataset):
    """Returns whether a data set is one pair of arrays."""
    return isinstance(dataset, tuple | list) and len(dataset) in (2, 3) and hasattr(dataset[0], "shape")


def _slices(arrays, batch_size):
    """Yields the batches of arrays."""
    lengths = {len(array) for array in arrays}
    if len(lengths) != 1:
        raise ValueError(
            f"arrays must have a label for each image. Received: shapes {[tuple(np.shape(array)) for array in arrays]}"
        )
    for start in range(0, lengths.pop(), batch_size):
        yield tuple(array[start : start + batch_size] for array in arrays)


def read_labels(targets, classifier, kind):
    """Reads the labels of a batch.

    Args:
        targets: array of class numbers `(batch,)` or `(batch, 1)`, or of rows `(batch, classes)`.
        classifier: `keras_vit.evaluation.classifier.Classifier`.
        kind: `single`, one class an image; `multi`, several; `sets`, several that count as right.

    Returns:
        int64 array `(batch,)` of `single`, else bool rows `(batch, classes)`; class numbers become rows of one class.

    Raises:
        ValueError: if they do not fit the classes of the model.
    """
    count = classifier.num_classes
    if targets.ndim == 2 and targets.shape[1] == 1 and count > 1:
        targets = targets[:, 0]
    if targets.ndim == 1:
        numbers = targets.astype("int64")
        if (numbers != targets).any() or (len(numbers) and (numbers.min() < 0 or numbers.max() >= count)):
            raise ValueError(
                f"labels must be classes of the model, in 0..{count - 1}. "
                f"Received: {targets.min()}..{targets.max()} for model={classifier.name!r}"
            )
        return numbers if kind == "single" else np.eye(count, dtype=bool)[numbers]
    if targets.ndim != 2 or targets.shape[1] != count:
        raise ValueError(
            f"rows of labels must have a column for each of the {count} classes of the model. "
            f"Received: labels {targets.shape} for model={classifier.name!r}"
        )
    if kind == "single":
        if not (np.isclose(targets.sum(axis=1), 1).all() and (targets >= 0).all()):
            raise ValueError(
                "rows of labels of one class must sum to 1; pass multi_label=True for several classes an image. "
                f"Received: sums {targets.sum(axis=1).min():g}..{targets.sum(axis=1).max():g}"
            )
        return targets.argmax(axis=1)
    if not np.isin(targets, (0, 1)).all():
        raise ValueError(f"rows of labels must be 0 and 1. Received: {targets.min():g}..{targets.max():g}")
    return targets.astype(bool)
