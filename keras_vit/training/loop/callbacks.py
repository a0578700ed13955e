"""What happens between the epochs of a run: averages, the best weights, early stopping, the log."""

import contextlib
import csv
import math
import pathlib
import warnings

import keras
import numpy as np

from keras_vit.atomic import replaced
from keras_vit.training.loop.workers import SINGLE_WORKER
from keras_vit.training.tasks.distillation import trained_model

BEST_FILE = "best.weights.h5"
AVERAGE_FILE = "average.weights.h5"
LOG_FILE = "log.csv"
_JUDGE = "val_accuracy"


@contextlib.contextmanager
def averaged_weights(model, always=False):
    """Inside it a model has the moving averages of its weights, and behind it the same weights as before, bit by bit.

    `keras.callbacks.SwapEMAWeights` adds and subtracts on TensorFlow, which rounds.

    Args:
        model: compiled, with an optimizer of `keras_vit.training`. Without averages nothing happens, nor where the
            run is not to end with them, unless `always`.
        always: bool. Default False.
    """
    pairs = model.optimizer.averages() if always or model.optimizer.ends_with_average else []
    before = [keras.ops.convert_to_numpy(variable).copy() for variable, _ in pairs]
    for variable, average in pairs:
        variable.assign(average)
    try:
        yield
    finally:
        for (variable, _), value in zip(pairs, before, strict=True):
            variable.assign(value)


def save_averages(model, path, workers=SINGLE_WORKER):
    """Saves the averages of a run that does not end with them, once for all of its `Workers`."""
    if model.optimizer.averages() and not model.optimizer.ends_with_average:
        with averaged_weights(model, always=True), workers.replaced(path) as partial:
            trained_model(model).save_weights(partial)


def best_epoch(history):
    """The index of the first epoch with the largest validation accuracy, or `None` where none was measured."""
    scores = [epoch.get(_JUDGE, -math.inf) for epoch in history]
    return scores.index(max(scores)) if any(_JUDGE in epoch for epoch in history) else None


def is_stalled(history, patience):
    """Whether so many epochs have passed since the best one; never with a `patience` of `None`."""
    best = best_epoch(history)
    return patience is not None and best is not None and len(history) - 1 - best >= patience


class EvaluateAverages(keras.callbacks.Callback):
    """Validates the moving averages of the weights, as the run ends with them."""

    def __init__(self):
        super().__init__()
        self._swapped = contextlib.ExitStack()

    def on_test_begin(self, logs=None):
        self._swapped.enter_context(averaged_weights(self.model))

    def on_test_end(self, logs=None):
        self.close()

    def close(self):
        """Puts the weights back; also after a validation that was left."""
        self._swapped.close()


class SaveBestWeights(keras.callbacks.Callback):
    """Saves the weights, or their averages, after every epoch that is better on the validation part than all before.

    Goes before the callback that saves the run: of an interrupt between the two, the next attempt makes up.

    Args:
        path: of the `.weights.h5` file, replaced atomically.
        history: list of dicts, one an epoch before this one.
        workers: `Workers`; the chief saves.
    """

    def __init__(self, path, history, workers=SINGLE_WORKER):
        super().__init__()
        self.path, self.history, self.workers = path, history, workers

    def on_epoch_end(self, epoch, logs=None):
        now = [*self.history, dict(logs or {})]
        if best_epoch(now) != len(now) - 1:
            return
        model = trained_model(self.model)
        with averaged_weights(self.model):
            # An accuracy is a number also where the loss is none.
            if all(np.isfinite(keras.ops.convert_to_numpy(weight)).all() for weight in model.weights):
                with self.workers.replaced(self.path) as partial:
                    model.save_weights(partial)


class EarlyStopping(keras.callbacks.Callback):
    """Ends the run where `is_stalled` says so. The history is the run's, so a resumed run stops where it would have.

    Args:
        patience: int or `None`: never.
        history: list of dicts, to which every epoch has been added already.
    """

    def __init__(self, patience, history):
        super().__init__()
        self.patience, self.history = patience, history

    def on_epoch_end(self, epoch, logs=None):
        if is_stalled(self.history, self.patience):
            self.model.stop_training = True


class CSVLogger(keras.callbacks.Callback):
    """Writes the history as a table after every epoch, see `write_log`. A full disk is a warning.

    Args:
        path: of the `.csv` file.
        history: list of dicts, to which every epoch has been added already.
    """

    def __init__(self, path, history):
        super().__init__()
        self.path, self.history = path, history

    def on_epoch_end(self, epoch, logs=None):
        try:
            write_log(self.path, self.history)
        except OSError as error:
            warnings.warn(f"the log could not be written ({error}); training goes on", stacklevel=2)


def write_log(path, history):
    """Writes a history as a table.

    All of it every time: `keras.callbacks.CSVLogger` appends, so an epoch after an interrupt could stand there twice.

    Args:
        path: of the `.csv` file, replaced atomically.
        history: list of dicts, one an epoch.
    """
    names = list(dict.fromkeys(name for row in history for name in row))
    with replaced(path) as partial, open(partial, "w", newline="") as file:
        writer = csv.DictWriter(file, ["epoch", *names])
        writer.writeheader()
        writer.writerows({"epoch": i + 1, **row} for i, row in enumerate(history))


def tensorboard(directory):
    """`keras.callbacks.TensorBoard` with one point an epoch.

    Raises:
        ValueError: if the package `tensorboard` is missing.
    """
    try:
        import tensorboard as _  # noqa: F401
    except ImportError as error:
        raise ValueError("training.tensorboard=True needs the package: pip install tensorboard") from error
    return keras.callbacks.TensorBoard(pathlib.Path(directory) / "tensorboard", write_graph=False)
