"""Metrics of classifiers with several classes an image, or none: average precision, F1, binary cross-entropy."""

import numpy as np

_RESAMPLES = 200
_TAILS = (2.5, 97.5)  # percentiles of an interval of 95 %


def average_precision(scores, labels):
    """Computes the average precision of one class, with equal scores as one threshold, as scikit-learn does.

    Args:
        scores: float array `(images,)`.
        labels: bool array `(images,)`.

    Returns:
        float, or `None` if no image has the class.
    """
    if not labels.any():
        return None
    return float(_weighted_precision(scores, labels, np.ones((1, len(labels))))[0])


def _weighted_precision(scores, labels, weights):
    """Average precision of one class for each row of image weights `(rows, images)`; NaN without positives."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    weights = weights[:, order]
    positives = np.cumsum(weights * labels[order], axis=1, dtype="float64")[:, ends]
    images = np.cumsum(weights, axis=1, dtype="float64")[:, ends]
    gains = np.diff(positives, axis=1, prepend=0)
    precision = np.divide(positives, images, out=np.zeros_like(positives), where=images > 0)
    totals = positives[:, -1]
    return np.divide((gains * precision).sum(axis=1), totals, out=np.full(len(totals), np.nan), where=totals > 0)


def mean_precision_interval(scores, labels):
    """Computes the 95 % bootstrap interval of the mean average precision, over resampled images.

    Args:
        scores: float array `(images, classes)`.
        labels: bool array of the same shape, with at least one positive.

    Returns:
        `(low, high)`, floats.
    """
    count = len(labels)
    generator = np.random.default_rng(0)
    drawn = np.stack([np.bincount(generator.integers(0, count, count), minlength=count) for _ in range(_RESAMPLES)])
    drawn = drawn.astype("float32")
    classes = np.flatnonzero(labels.any(axis=0))
    found = np.stack([_weighted_precision(scores[:, i], labels[:, i], drawn) for i in classes])
    known = ~np.isnan(found)
    means = np.where(known, found, 0).sum(axis=0)[known.any(axis=0)] / known.sum(axis=0)[known.any(axis=0)]
    low, high = np.percentile(means, _TAILS)
    return float(low), float(high)


def f1_scores(decided, labels):
    """Computes F1 by class and over all decisions; 0 where nothing is positive or decided to be, as scikit-learn does.

    Args:
        decided: bool array `(images, classes)`.
        labels: bool array of the same shape.

    Returns:
        dict of `micro` and `macro`, floats, and the arrays `(classes,)` `f1`, `precision` and `recall`; the last two
        are NaN where there is nothing to count.
    """
    hits, chosen, there = (rows.sum(axis=0) for rows in (decided & labels, decided, labels))
    by_class = _ratio(2 * hits, chosen + there, 0.0)
    return {
        "micro": float(_ratio(2 * hits.sum(keepdims=True), (chosen + there).sum(keepdims=True), 0.0)[0]),
        "macro": float(by_class.mean()),
        "f1": by_class,
        "precision": _ratio(hits, chosen, np.nan),
        "recall": _ratio(hits, there, np.nan),
    }


def _ratio(part, whole, otherwise):
    return np.divide(part, whole, out=np.full(part.shape, otherwise, "float64"), where=whole > 0)


def binary_cross_entropy(logits, labels):
    """Computes the mean of the binary cross-entropy over all images and classes, a float.

    Args:
        logits: float array `(images, classes)`.
        labels: bool array of the same shape.
    """
    # log(1 + exp(-|x|)) does not overflow.
    losses = np.maximum(logits, 0) - logits * labels + np.log1p(np.exp(-np.abs(logits)))
    return float(losses.mean(dtype="float64"))


def report_by_class(scores, labels, threshold, class_names):
    """Computes the metrics of every class.

    Args:
        scores: float array `(images, classes)`, probabilities.
        labels: bool array of the same shape.
        threshold: float. A class is decided to be there from this probability on.
        class_names: sequence of str.

    Returns:
        A list of dicts with `name`, `examples` (images that have the class), `average_precision`, `f1`, `precision` and
        `recall`, `None` where there is nothing to count; and the dict of `f1_scores`.
    """
    f1 = f1_scores(scores >= threshold, labels)
    rows = []
    for i, name in enumerate(class_names):
        row = {"name": str(name), "examples": int(labels[:, i].sum())}
        row["average_precision"] = average_precision(scores[:, i], labels[:, i])
        row |= {key: _given(f1[key][i]) for key in ("f1", "precision", "recall")}
        rows.append(row)
    return rows, f1


def _given(value):
    return None if np.isnan(value) else float(value)
