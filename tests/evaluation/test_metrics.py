"""Metrics of one class an image: those of scikit-learn, and written-out formulas."""

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from keras_vit.evaluation import expected_calibration_error
from keras_vit.evaluation.metrics import accuracy_interval, log_softmax, reliability, score_images

RNG = np.random.default_rng(3)
LOGITS = RNG.normal(size=(200, 9)).astype("float32") * 3
LABELS = RNG.integers(0, 9, 200)


def _ece(confidence, correct, bins=15):
    """Guo et al., equation 3: bin m holds the confidences in ((m - 1) / M, m / M]."""
    total = 0.0
    for m in range(1, bins + 1):
        inside = [i for i, c in enumerate(confidence) if (m - 1) / bins < c <= m / bins]
        if inside:
            gap = np.mean([correct[i] for i in inside]) - np.mean([confidence[i] for i in inside])
            total += len(inside) / len(confidence) * abs(gap)
    return total


def test_scores_are_those_of_scikit_learn():
    log_probabilities = log_softmax(LOGITS)
    scores = score_images(log_probabilities, LABELS)
    probabilities = np.exp(log_probabilities.astype("float64"))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    classes = range(9)
    assert scores["correct"].mean() == sklearn_metrics.accuracy_score(LABELS, LOGITS.argmax(1))
    top5 = sklearn_metrics.top_k_accuracy_score(LABELS, LOGITS, k=5, labels=classes)
    assert (scores["rank"] < 5).mean() == top5
    assert scores["loss"].mean() == pytest.approx(sklearn_metrics.log_loss(LABELS, probabilities, labels=classes), 1e-6)
    np.testing.assert_allclose(scores["confidence"], probabilities.max(axis=1), rtol=1e-5)


def test_the_calibration_error_is_the_formula():
    scores = score_images(log_softmax(LOGITS), LABELS)
    found = expected_calibration_error(scores["confidence"], scores["correct"])
    assert found == pytest.approx(_ece(scores["confidence"].astype("float64"), scores["correct"]), abs=1e-12)


@pytest.mark.parametrize("edge", [0.2, 0.6, 1.0])
def test_the_upper_limit_belongs_to_a_bin(edge):
    (filled,) = [row for row in reliability([edge], [True], 5) if row["count"]]
    assert filled["high"] == pytest.approx(edge)


@pytest.mark.parametrize("confidence", [[], [1.2], [-0.1], [float("nan")]])
def test_a_confidence_is_a_probability(confidence):
    with pytest.raises(ValueError, match=r"confidence.*Received"):
        expected_calibration_error(np.array(confidence), np.ones(len(confidence), bool))


def test_any_label_of_a_set_is_right():
    log_probabilities = np.log(np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]], "float32"))
    allowed = np.array([[False, True, True], [True, False, True]])
    scores = score_images(log_probabilities, allowed)
    assert scores["correct"].tolist() == [False, True]
    assert scores["rank"].tolist() == [1, 0]
    np.testing.assert_allclose(scores["loss"], -np.log([0.5, 0.8]), rtol=1e-6)


def test_of_equal_scores_the_first_is_the_best():
    scores = score_images(log_softmax(np.zeros((3, 7), "float32")), np.array([0, 1, 6]))
    assert scores["correct"].tolist() == [True, False, False]
    assert scores["rank"].tolist() == [0, 1, 6]


def test_the_interval_is_that_of_resampled_images():
    correct = RNG.random(300) < 0.8
    drawn = [RNG.choice(correct, 300).mean() for _ in range(4000)]
    low, high = accuracy_interval(int(correct.sum()), 300)
    assert (low, high) == pytest.approx(tuple(np.percentile(drawn, (2.5, 97.5))), abs=0.01)
    assert low < correct.mean() < high
