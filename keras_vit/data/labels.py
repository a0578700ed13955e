"""Checks of labels, one-hot targets and sample weights."""

import numpy as np
import tensorflow as tf


def check_labels(labels, num_classes):
    """Raises a `ValueError` if a label is no class: `tf.one_hot` would silently make a row of zeros.

    Args:
        labels: int array `(examples,)`, or multi-hot rows `(examples, num_classes)`.
        num_classes: int.
    """
    labels = np.asarray(labels)
    if labels.ndim > 1:
        if labels.shape[1:] != (num_classes,):
            raise ValueError(f"multi-hot labels must have {num_classes} columns. Received: shape {labels.shape}")
        low, high = labels.min(), labels.max()
        if low < 0 or high > 1:
            raise ValueError(f"multi-hot labels must be in 0..1. Received: {low}..{high}")
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise ValueError(f"labels must be in 0..{num_classes - 1}. Received: {low}..{high}")


def check_kind(labels, multi_label):
    """Raises a `ValueError` unless labels are of the kind that `DataConfig.multi_label` declares.

    Args:
        labels: int array `(examples,)`, or rows `(examples, classes)`.
        multi_label: bool. Whether rows may have several classes or none; otherwise they must sum to 1.
    """
    if multi_label and labels.ndim == 1:
        raise ValueError(f"multi_label needs rows, one column a class. Received: labels of shape {labels.shape}")
    if multi_label or labels.ndim == 1:
        return
    sums = np.asarray(labels, "float64").sum(axis=1)
    if not np.allclose(sums, 1, atol=1e-3):
        raise ValueError(
            "rows of one class must sum to 1; set data.multi_label=true for several classes or none. "
            f"Received: labels of shape {labels.shape} with rows that sum to {sums.min():g}..{sums.max():g}"
        )


def check_not_empty(count, name, split):
    """Raises a `ValueError` unless a split of the data set `name` has an image."""
    if not count:
        raise ValueError(f"a data set must hold at least one image. Received: {name!r}, split {split!r}: empty")


def one_hot(labels, num_classes):
    """Converts class numbers to one-hot float32 rows; returns multi-hot rows as they are."""
    if labels.dtype.is_floating:
        return tf.cast(labels, tf.float32)
    return tf.one_hot(labels, num_classes)


def check_weights(weighted, class_weights, multi_label, num_classes, augment):
    """Raises a `ValueError` if sample or class weights do not fit the labels and the augmentation."""
    if class_weights is not None and len(class_weights) != num_classes:
        raise ValueError(
            f"class_weights must hold a number for each of the {num_classes} classes. Received: {len(class_weights)}"
        )
    if class_weights is not None and multi_label:
        raise ValueError("class_weights need examples of one class each. Received: multi-label targets")
    if weighted and (augment.mixup or augment.cutmix):
        raise ValueError("examples with sample weights cannot be mixed. Received: mixup or cutmix with weights")


def padding_weights(count, rows):
    """Computes the sample weights of a padded split: 0 for padding, `rows / count` for every real example.

    Keras' losses divide by the rows of a batch, padding included, and `evaluate` averages the batches by their rows.
    With this weight, the same for every real example, that becomes the mean over the real ones; `weighted_metrics`
    divide by the sum of the weights, so that they are exact as well.

    Args:
        count: int. Examples of the split.
        rows: int. Examples and padding.

    Returns:
        float32 array `(rows,)`.
    """
    return np.where(np.arange(rows) < count, rows / count, 0).astype("float32")
