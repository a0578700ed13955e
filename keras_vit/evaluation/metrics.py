"""Metrics of classifiers with one class an image: scores by image, and what they sum up to."""

import numpy as np

BINS = 15  # of the expected calibration error, as Guo et al. (arXiv:1706.04599)
_RESAMPLES = 10_000


def log_softmax(logits):
    """Computes log-probabilities `(batch, classes)` of logits, float32, with a float64 sum."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True, dtype="float64")).astype("float32")


def score_images(log_probabilities, labels):
    """Computes what the metrics need of every image.

    Args:
        log_probabilities: float32 array `(batch, classes)`.
        labels: int array `(batch,)`; or bool rows `(batch, classes)`, the labels that count as right of each image, at
            least one.

    Returns:
        dict of arrays `(batch,)`: `predicted`, the most probable class; `confidence`, its probability; `correct`;
        `rank`, the number of classes before the first right one; `loss`, the negative log of the probability of the
        right class, or of the right ones together.
    """
    rows = np.arange(len(log_probabilities))
    predicted = log_probabilities.argmax(axis=-1)
    if labels.ndim == 1:
        own = log_probabilities[rows, labels]
        right, first, correct = own, labels, predicted == labels
    else:
        allowed = np.where(labels, log_probabilities, -np.inf)
        first = allowed.argmax(axis=-1)
        own, correct = allowed[rows, first], labels[rows, predicted]
        right = own + np.log(np.exp(allowed - own[:, None]).sum(axis=-1))
    # Of equal ones the first counts as the best, as for argmax.
    before = (log_probabilities > own[:, None]).sum(axis=-1)
    ties = (log_probabilities == own[:, None]) & (np.arange(log_probabilities.shape[-1]) < first[:, None])
    return {
        "predicted": predicted,
        "confidence": np.exp(log_probabilities[rows, predicted]),
        "correct": correct,
        "rank": before + ties.sum(axis=-1),
        "loss": -right,
    }


def reliability(confidence, correct, bins=BINS):
    """Sorts predictions by their confidence into bins of equal width.

    Args:
        confidence: float array `(predictions,)` in [0, 1].
        correct: bool array `(predictions,)`.
        bins: int. Default 15.

    Returns:
        A list of dicts, one a bin: `low` and `high`, its limits, of which the upper one belongs to it; `count`;
        `confidence` and `accuracy`, means of its predictions, `None` without any.
    """
    confidence, correct = np.asarray(confidence, "float64"), np.asarray(correct)
    edges = np.linspace(0, 1, bins + 1)
    numbers = np.clip(np.digitize(confidence, edges, right=True) - 1, 0, bins - 1)
    counts = np.bincount(numbers, minlength=bins)
    sums = (np.bincount(numbers, weights, bins) for weights in (confidence, correct.astype("float64")))
    means = [np.divide(total, counts, out=np.zeros(bins), where=counts > 0) for total in sums]
    return [
        {
            "low": float(edges[i]),
            "high": float(edges[i + 1]),
            "count": int(counts[i]),
            "confidence": float(means[0][i]) if counts[i] else None,
            "accuracy": float(means[1][i]) if counts[i] else None,
        }
        for i in range(bins)
    ]


def error_of(bins):
    """Computes the expected calibration error of the bins of `reliability`."""
    total = sum(row["count"] for row in bins)
    gaps = (row["count"] * abs(row["accuracy"] - row["confidence"]) for row in bins if row["count"])
    return sum(gaps) / total


def expected_calibration_error(confidence, correct, bins=BINS):
    """Computes the expected calibration error (ECE): the mean gap between confidence and accuracy.

    Sum over bins of `count / n * |accuracy - confidence|`, with bins of equal width (Guo et al., arXiv:1706.04599).

    Args:
        confidence: float array `(predictions,)`, the probability of the predicted class.
        correct: bool array `(predictions,)`.
        bins: int. Default 15.

    Returns:
        float in [0, 1].

    Raises:
        ValueError: if there are no predictions, or a confidence is no probability.
    """
    confidence = np.asarray(confidence, "float64")
    if confidence.ndim != 1 or confidence.shape != np.shape(correct) or not len(confidence):
        raise ValueError(
            "confidence and correct must be arrays (predictions,), not empty. "
            f"Received: shapes {confidence.shape} and {np.shape(correct)}"
        )
    # Rounding may leave a probability just above 1.
    if not (confidence.min() >= 0 and confidence.max() <= 1 + 1e-6):
        raise ValueError(f"confidence must be in [0, 1]. Received: {confidence.min():g}..{confidence.max():g}")
    return float(error_of(reliability(np.minimum(confidence, 1), correct, bins)))


def accuracy_interval(correct, count, level=0.95):
    """Computes the bootstrap percentile interval of an accuracy.

    Drawing `count` images with replacement makes the number of right ones binomial, so it is drawn as such.

    Args:
        correct: int. Images that are right.
        count: int. All images.
        level: float. Default 0.95.

    Returns:
        `(low, high)`, floats.
    """
    drawn = np.random.default_rng(0).binomial(count, correct / count, _RESAMPLES) / count
    tail = 50 * (1 - level)
    low, high = np.percentile(drawn, (tail, 100 - tail))
    return float(low), float(high)
