"""Callbacks for the ends of epochs: averaged weights, the best weights, early stopping and the log."""

import contextlib
import csv
import math
import pathlib
import warnings

import keras

from keras_vit.atomic import replaced
from keras_vit.training.loop.checkpoint_callback import all_finite
from keras_vit.training.loop.workers import SINGLE_WORKER
from keras_vit.training.tasks.distillation import trained_model

BEST_FILE = "best.weights.h5"
AVERAGE_FILE = "average.weights.h5"
LOG_FILE = "log.csv"
# What epochs are compared by: the first that there is.
_MONITORS = ("val_mean_iou", "val_accuracy")


@contextlib.contextmanager
def averaged_weights(model, always=False):
    """A context in which a model has the moving averages of its weights; afterwards its weights are restored exactly.

    On TensorFlow, `keras.callbacks.SwapEMAWeights` adds and subtracts instead, which rounds.

    Args:
        model: compiled, with an optimizer of `keras_vit.training`. Nothing happens if the optimizer has no averages.
        always: bool. Whether to use the averages even if the run does not end with them. Default False.
    """
    pairs = model.optimizer.moving_averages() if always or model.optimizer.ends_with_average else []
    weights = [keras.ops.convert_to_numpy(variable).copy() for variable, _ in pairs]
    for variable, average in pairs:
        variable.assign(average)
    try:
        yield
    finally:
        for (variable, _), value in zip(pairs, weights, strict=True):
            variable.assign(value)


def save_averages(model, path, workers=SINGLE_WORKER):
    """Saves the averages of a run that does not end with them; the chief writes the file."""
    if model.optimizer.moving_averages() and not model.optimizer.ends_with_average:
        with averaged_weights(model, always=True), workers.replaced(path) as partial:
            trained_model(model).save_weights(partial)


def best_epoch(history):
    """The index of the first epoch with the highest validation accuracy, or mean IoU; `None` without a validation."""
    monitor = next((name for name in _MONITORS if any(name in epoch for epoch in history)), None)
    scores = [epoch.get(monitor, -math.inf) for epoch in history]
    return None if monitor is None else scores.index(max(scores))


def is_stalled(history, patience):
    """Returns whether `patience` epochs have passed since the best one; always `False` if `patience` is `None`."""
    best = best_epoch(history)
    return patience is not None and best is not None and len(history) - 1 - best >= patience


class EvaluateAverages(keras.callbacks.Callback):
    """Uses the moving averages of the weights in validations, if the run ends with them."""

    def __init__(self):
        super().__init__()
        self._swapped = contextlib.ExitStack()

    def on_test_begin(self, logs=None):
        self._swapped.enter_context(averaged_weights(self.model))

    def on_test_end(self, logs=None):
        self.close()

    def close(self):
        """Restores the weights, also after an interrupted validation."""
        self._swapped.close()


class SaveBestWeights(keras.callbacks.Callback):
    """Saves the weights, or their averages, after every epoch with a higher validation accuracy than all before.

    It must precede the `CheckpointCallback`: if the run is killed between the two, the repeated epoch saves them again.

    Args:
        path: of the `.weights.h5` file, replaced atomically.
        history: list of dicts, one for each epoch before this one.
        workers: `Workers`; the chief saves.
    """

    def __init__(self, path, history, workers=SINGLE_WORKER):
        super().__init__()
        self.path, self.history, self.workers = path, history, workers

    def on_epoch_end(self, epoch, logs=None):
        history = [*self.history, dict(logs or {})]
        if best_epoch(history) != len(history) - 1:
            return
        model = trained_model(self.model)
        with averaged_weights(self.model):
            # The accuracy is a number even if the loss is NaN.
            if all_finite([keras.ops.convert_to_numpy(weight) for weight in model.weights]):
                with self.workers.replaced(self.path) as partial:
                    model.save_weights(partial)


class EarlyStopping(keras.callbacks.Callback):
    """Stops the training when `is_stalled`. The history covers the whole run, so a resumed run stops at the same epoch.

    Args:
        patience: int, or `None` for never.
        history: list of dicts that already holds the epoch that ends.
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
        history: list of dicts that already holds the epoch that ends.
    """

    def __init__(self, path, history):
        super().__init__()
        self.path, self.history = path, history

    def on_epoch_end(self, epoch, logs=None):
        try:
            write_log(self.path, self.history)
        except OSError as error:
            warnings.warn(f"the log could not be written ({error}); training continues", stacklevel=2)


def write_log(path, history):
    """Writes a history as a table.

    The whole file is written every time: `keras.callbacks.CSVLogger` appends, so that an epoch could appear twice after
    an interruption.

    Args:
        path: of the `.csv` file, replaced atomically.
        history: list of dicts, one for each epoch.
    """
    names = list(dict.fromkeys(name for row in history for name in row))
    with replaced(path) as partial, open(partial, "w", newline="") as file:
        writer = csv.DictWriter(file, ["epoch", *names])
        writer.writeheader()
        writer.writerows({"epoch": i + 1, **row} for i, row in enumerate(history))


def tensorboard(directory):
    """Makes a `keras.callbacks.TensorBoard` with one point for each epoch.

    Raises:
        ValueError: if the package `tensorboard` is missing.
    """
    try:
        import tensorboard as _  # noqa: F401
    except ImportError as error:
        raise ValueError("training.tensorboard=True needs the package: pip install tensorboard") from error
    return keras.callbacks.TensorBoard(pathlib.Path(directory) / "tensorboard", write_graph=False)
