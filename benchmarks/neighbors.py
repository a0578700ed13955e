"""The time of k-NN on a million cached features: `knn` and `nearest` on files that are mapped from disk.

The features are random, of `--rows` images and `--width` numbers, in float16 and in float32. The peak memory is the
resident set of a process of its own, with the pages of the mapped file that it has read.

    python benchmarks/neighbors.py --json benchmarks/results/neighbors.json
"""

import argparse
import json
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

from keras_vit.evaluation import knn, nearest
from keras_vit.training.reports.run_record import code, hardware, write_json

_CLASSES, _BLOCK, _REPEATS = 1000, 16384, 3


def write_features(path, rows, width, dtype):
    """Writes random features to a `.npy` file, block by block."""
    generator = np.random.default_rng(0)
    features = np.lib.format.open_memmap(path, "w+", dtype, (rows, width))
    for start in range(0, rows, _BLOCK):
        block = features[start : start + _BLOCK]
        block[:] = generator.standard_normal(block.shape, "float32")
    features.flush()


def measure(path, queries):
    """Times k-NN on a file of features and returns seconds and the peak memory of this process."""
    generator = np.random.default_rng(1)
    features = np.load(path, mmap_mode="r")
    labels = np.arange(len(features)) % _CLASSES
    asked = generator.standard_normal((queries, features.shape[1]), "float32")
    asked_labels = generator.integers(0, _CLASSES, queries)
    runs = {
        "knn": lambda: knn(features, labels, asked, asked_labels),
        "nearest": lambda: nearest(features, asked),
    }
    seconds = {name: [] for name in runs}
    for _ in range(_REPEATS):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    medians = {name: round(statistics.median(times), 3) for name, times in seconds.items()}
    slowest = {name: round(max(times), 3) for name, times in seconds.items()}
    return {"seconds": medians, "slowest": slowest, "peak_bytes": _peak_bytes()}


def _peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # kilobytes on Linux


def main():
    """Measures both types of number and prints or writes the record."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="number of cached features")
    parser.add_argument("--width", type=int, default=384, help="numbers of one feature")
    parser.add_argument("--queries", type=int, default=1000, help="number of images to classify")
    parser.add_argument("--json", help="file of the record")
    parser.add_argument("--file", help=argparse.SUPPRESS)  # of the process that measures
    options = parser.parse_args()
    if options.file:
        print(json.dumps(measure(options.file, options.queries)))
        return
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for dtype in ("float16", "float32"):
            path = pathlib.Path(folder) / f"{dtype}.npy"
            write_features(path, options.rows, options.width, dtype)
            command = [sys.executable, __file__, "--file", str(path), "--queries", str(options.queries)]
            out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            results[dtype] = json.loads(out.splitlines()[-1])
            path.unlink()
            print(dtype, results[dtype])
    setting = {name: getattr(options, name) for name in ("rows", "width", "queries")}
    if options.json:
        record = {
            "benchmark": "neighbors",
            **setting,
            "repeats": _REPEATS,
            "results": results,
            "hardware": hardware(),
            **code(),
        }
        write_json(options.json, record)


if __name__ == "__main__":
    main()
