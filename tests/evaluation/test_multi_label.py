"""Metrics of several classes an image are those of scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from keras_vit.evaluation import multi_label

RNG = np.random.default_rng(5)
LABELS = RNG.random((150, 6)) < 0.3
LABELS[:, 5] = False  # a class that no image has
# Rounded, so that scores are equal here and there.
SCORES = np.round(np.clip(LABELS * 0.3 + RNG.random((150, 6)) * 0.7, 0, 1), 2)
NAMES = [*"abcdef"]


def test_average_precision_is_that_of_scikit_learn():
    for i in range(5):
        expected = sklearn_metrics.average_precision_score(LABELS[:, i], SCORES[:, i])
        assert multi_label.average_precision(SCORES[:, i], LABELS[:, i]) == pytest.approx(expected, abs=1e-12)
    assert multi_label.average_precision(SCORES[:, 5], LABELS[:, 5]) is None


def test_f1_is_that_of_scikit_learn():
    found = multi_label.f1_scores(SCORES >= 0.5, LABELS)
    for average in ("micro", "macro"):
        expected = sklearn_metrics.f1_score(LABELS, SCORES >= 0.5, average=average, zero_division=0)
        assert found[average] == pytest.approx(expected, abs=1e-12)
    by_class = sklearn_metrics.f1_score(LABELS, SCORES >= 0.5, average=None, zero_division=0)
    np.testing.assert_allclose(found["f1"], by_class)


def test_cross_entropy_is_that_of_scikit_learn_and_does_not_overflow():
    logits = RNG.normal(size=LABELS.shape) * 3
    expected = np.mean([sklearn_metrics.log_loss(LABELS[:, i], 1 / (1 + np.exp(-logits[:, i]))) for i in range(5)])
    assert multi_label.binary_cross_entropy(logits[:, :5], LABELS[:, :5]) == pytest.approx(expected, rel=1e-6)
    assert multi_label.binary_cross_entropy(np.array([[500.0]]), np.array([[False]])) == 500


def test_the_interval_is_that_of_resampled_images():
    low, high = multi_label.mean_precision_interval(SCORES, LABELS)
    drawn = []
    for _ in range(300):
        rows = RNG.integers(0, 150, 150)
        drawn.append(sklearn_metrics.average_precision_score(LABELS[rows][:, :5], SCORES[rows][:, :5], average="macro"))
    assert (low, high) == pytest.approx(tuple(np.percentile(drawn, (2.5, 97.5))), abs=0.02)


def test_a_class_without_an_image_has_no_number():
    rows, _ = multi_label.report_by_class(SCORES, LABELS, 0.5, NAMES)
    assert rows[5]["name"] == "f"
    assert rows[5]["examples"] == 0
    assert rows[5]["average_precision"] is rows[5]["recall"] is None
