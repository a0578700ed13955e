"""The change that a calibration makes: a model of the recipe `vit_digits`, calibrated on half of its test images.

The recipe trains on 898 handwritten digits of scikit-learn. Of the 899 test images, which it does not see, a random
half fits the temperature and the other half measures the expected calibration error and the negative log-likelihood
before and after. Further: images per second of `evaluate` beside `predict` on the same batches, in turns.

    keras_vit train vit_digits --no-export --out runs/digits
    python benchmarks/calibration.py runs/digits --json recipes/results/calibration_digits.json
"""

import argparse
import json
import pathlib
import statistics
import time

import numpy as np

import keras_vit
from keras_vit.data import Split, evaluation_dataset
from keras_vit.data.sources.arrays import digit_splits
from keras_vit.evaluation import calibrate, evaluate
from keras_vit.training.reports.run_record import code, hardware, write_json

_ROUNDS, _REPEATS = 7, 4


def measure(model):
    """Calibrates a model and returns the figures, a dict of JSON types."""
    spec = keras_vit.metadata(model).input_spec
    pixels, labels = digit_splits()["test"]
    images = np.stack([spec.resize(image[..., None]) for image in pixels])
    order = np.random.default_rng(0).permutation(len(labels))
    halves = [Split(images[part], labels[part].astype("int64")) for part in np.array_split(order, 2)]
    fit, test = (evaluation_dataset(half, 10, spec, 128) for half in halves)
    before = evaluate(model, test)
    fitted = calibrate(model, fit)
    after = evaluate(model, test)
    many = Split(np.tile(images, (_REPEATS, 1, 1, 1)), np.tile(labels, _REPEATS))
    return {
        "images": {"calibration": fitted.images, "test": after.images},
        "temperature": fitted.calibration.temperature,
        "calibration": {"before": _figures(fitted.before), "after": _figures(fitted.after)},
        "test": {
            "accuracy": after.accuracy,
            "accuracy_interval": list(after.interval),
            "before": {"ece": before.ece, "nll": before.loss},
            "after": {"ece": after.ece, "nll": after.loss},
        },
        "images_per_second": _speeds(model, many, spec),
    }


def _figures(part):
    return {key: part[key] for key in ("ece", "nll")}


def _speeds(model, split, spec):
    """Returns the medians of the images per second of `predict` and `evaluate`, measured in turns."""
    batches = evaluation_dataset(split, 10, spec, 128)
    runs = {
        "predict": lambda: model.predict(batches, verbose=0),
        "evaluate": lambda: evaluate(model, batches),
    }
    seconds = {name: [] for name in runs}
    for _ in range(_ROUNDS + 1):  # the first one compiles
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    speeds = {name: round(len(split) / statistics.median(times[1:]), 1) for name, times in seconds.items()}
    return {**speeds, "ratio": round(speeds["evaluate"] / speeds["predict"], 3)}


def main():
    """Measures a run's model and prints or writes the record."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", help="the folder of a run of vit_digits")
    parser.add_argument("--json", help="file of the record")
    options = parser.parse_args()
    model = keras_vit.load_model(options.run)
    run = json.loads((pathlib.Path(options.run) / "record.json").read_text(encoding="utf-8"))
    trained = {"epochs": len(run["epochs"]), "seed": run["seed"], "test_accuracy": run["test_accuracy"]}
    trained |= {"parameters": run["model"]["parameters"], "commit": run["commit"]}
    record = {"recipe": run["recipe"], "model": trained, **measure(model), "hardware": hardware(), **code()}
    print({key: record[key] for key in ("temperature", "test", "images_per_second")})
    if options.json:
        write_json(options.json, record)


if __name__ == "__main__":
    main()
