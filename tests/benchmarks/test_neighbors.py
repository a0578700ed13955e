"""The benchmark of k-NN on cached features measures the features that it wrote."""

import importlib
import pathlib

import numpy as np

BENCHMARKS = pathlib.Path(__file__).parents[2] / "benchmarks"


def test_features_are_written_in_full_and_measured(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    neighbors = importlib.import_module("neighbors")
    path = tmp_path / "features.npy"
    rows = neighbors._BLOCK + 5
    neighbors.write_features(path, rows, 4, "float16")
    features = np.load(path, mmap_mode="r")
    assert features.shape == (rows, 4)
    assert features.dtype == "float16"
    assert np.abs(features).sum(axis=1).min() > 0
    result = neighbors.measure(path, 3)
    assert set(result["seconds"]) == set(result["slowest"]) == {"knn", "nearest"}
    assert result["peak_bytes"] >= result["peak_bytes_before"] > 0
