"""The benchmark of k-NN on cached features measures what it wrote; the committed record is of a million features."""

import importlib
import json
import pathlib

import numpy as np

BENCHMARKS = pathlib.Path(__file__).parents[2] / "benchmarks"
RECORD = BENCHMARKS / "results" / "neighbors.json"


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
    assert result["peak_bytes"] > 0


def test_the_record_is_of_a_million_features():
    record = json.loads(RECORD.read_text())
    assert (record["rows"], record["width"], record["queries"]) == (1_000_000, 384, 1000)
    for result in record["results"].values():
        assert result["peak_bytes"] < 4 * 2**30
    seconds, peak = record["results"]["float32"]["seconds"]["knn"], record["results"]["float32"]["peak_bytes"]
    page = (BENCHMARKS.parent / "docs" / "few_images.md").read_text()
    assert f"1,000 queries in {seconds:.1f} s" in page
    assert f"in {peak / 1e9:.1f} GB" in page
