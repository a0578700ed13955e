"""Reports by class."""

import pytest

from keras_vit.evaluation.per_class import classification_report, markdown_report


def test_a_report_counts_by_class():
    report = classification_report([0, 0, 1, 1, 1], [0, 1, 1, 1, 0], ["a", "b", "c"])
    assert report["accuracy"] == pytest.approx(0.6)
    assert report["confusion_matrix"] == [[1, 1, 0], [1, 2, 0], [0, 0, 0]]
    a, b, c = report["classes"]
    assert (a["recall"], a["precision"], a["taken_for"]) == (0.5, 0.5, ["b", 1])
    assert (b["examples"], b["recall"]) == (3, pytest.approx(2 / 3))
    assert (c["recall"], c["precision"], c["taken_for"]) == (None, None, None)
    assert "| b | 3 | 66.7% | 66.7% | a (1) |" in markdown_report(report)
