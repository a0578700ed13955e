"""The whole state of a run, saved while it trains, so that it goes on at the very step where it was.

More than Keras' `BackupAndRestore`: the place in the data, the state of dropout's random numbers, the metrics of the
begun epoch and the history are in it, and a run directory refuses to go on with another recipe.
"""

import signal
import time

import keras
from keras import ops

from keras_vit.training.distillation import trained_model
from keras_vit.training.saved_state import load
from keras_vit.training.stopping import end
from keras_vit.training.workers import ALONE
from keras_vit.training.writer import all_finite

FILE_NAME = "checkpoint.npz"
# What a worker wants behind a step, as numbers whose sums over all workers tell who wants what.
_SAVE, _END = 1, 2**20


def _variables(model):
    """Every variable that training changes, in a fixed order: weights, random seeds, optimizer; of no teacher."""
    return [*trained_model(model).variables, *model.optimizer.variables]


def values_of(model):
    """Copies of the values of every variable that training changes, as a list of NumPy arrays."""
    _sync(model)
    return [ops.convert_to_numpy(variable) for variable in _variables(model)]


def metrics_of(model):
    """Copies of the values of every variable of the model's metrics, as a list of NumPy arrays."""
    _sync(model)
    return [ops.convert_to_numpy(variable) for variable in model.metrics_variables]


def _sync(model):
    """On JAX the variables are elsewhere while `fit` runs."""
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()


def restore(path, model):
    """Fills a compiled model from a checkpoint.

    Args:
        path: of the `.npz` file.
        model: the same architecture and optimizer; under the same strategy's scope.

    Returns:
        The `state` that was saved with it, a dict.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if the file cannot be read or is of another model or optimizer.
    """
    saved = load(path)
    if saved is None:
        raise FileNotFoundError(f"there must be a checkpoint. Received: {str(path)!r}, which does not exist")
    fill(model, saved)
    return saved.state


def fill(model, saved):
    """Fills a compiled model from a `Saved`; see `restore`."""
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    _assign(_variables(model), saved.values, saved.path, "model and optimizer")


def fill_metrics(model, saved):
    """Fills the metrics of a compiled model from a `Saved`."""
    if len(model.metrics_variables) != len(saved.metrics):
        _build_metrics(model)
    _assign(model.metrics_variables, saved.metrics, saved.path, "metrics")


def _assign(variables, values, path, what):
    if [value.shape for value in values] != [tuple(variable.shape) for variable in variables]:
        raise ValueError(
            f"a checkpoint must be of the same {what}. "
            f"Received: {str(path)!r} with {len(values)} arrays for {len(variables)} variables, or other shapes"
        )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _build_metrics(model):
    """Makes the variables of compiled metrics, which Keras on TensorFlow only does in the first step."""
    images = keras.KerasTensor((1, *trained_model(model).input_shape[1:]))
    outputs = keras.tree.map_structure(lambda output: ops.zeros(output.shape), model.compute_output_spec(images))
    # Targets are rows of one number a class, as logits are.
    model.compute_metrics(None, keras.tree.flatten(outputs)[0], outputs)
    model.reset_metrics()


class CheckpointCallback(keras.callbacks.Callback):
    """Saves the run after every epoch and in between, lets it go on within an epoch, and ends it when it is asked to.

    Only what is made of numbers is saved. A `fit` that goes on within an epoch gets the data set from there on; this
    callback gives it the metrics of the steps before, and ends that epoch where the next begins.

    Args:
        writer: `Writer`.
        saved: `Saved`, what the run begins with. The `history` of its state is appended to.
        steps_per_epoch: int.
        stop: `StopRequest`.
        workers: `Workers`. What one wants all do.
        every: `(steps, minutes)`: save within an epoch when so many have passed since the last save, whichever comes
            first; each may be `None`.
        validates: bool. Whether a validation follows the last step of an epoch: then that step is saved too, so that a
            validation can be left at once.

    Attributes:
        history: list of dicts, one an epoch that has ended, with the `wall_seconds` of the run up to there.
        place: `(epoch, step)`: the epochs that have ended, and the steps of the next one that were done.
        code: list of dicts, what ran in the parts of the run, this one last.
    """

    def __init__(self, writer, saved, steps_per_epoch, stop, workers=ALONE, every=(None, None), validates=False):
        super().__init__()
        self.writer, self.stop, self.workers = writer, stop, workers
        self.steps_per_epoch, self.validates = steps_per_epoch, validates
        self.history, self.code = saved.state["history"], saved.state["code"]
        self.place = saved.state["epoch"], saved.state["step"]
        self._saved, self._every = saved, every
        self._unsaved, self._cut = 0, False
        self._start = self._last = time.perf_counter()

    def seconds(self):
        """What the run took so far, with its earlier parts."""
        return self._saved.state["seconds"] + time.perf_counter() - self._start

    def on_epoch_begin(self, epoch, logs=None):
        self._end_if(self._wanted() >= _END)
        self._before = self.place[1]
        if self._before:
            fill_metrics(self.model, self._saved)

    def on_train_batch_end(self, batch, logs=None):
        if self.model.stop_training:  # The loss is not a number.
            return
        self.stop.waits = True
        done = self._before + batch + 1
        self._unsaved += done - self.place[1]
        self.place = self.place[0], done
        if done < self.steps_per_epoch:
            wanted = self._wanted(_SAVE if self.workers.is_chief and self._is_due() else 0)
            if wanted:
                self._write(values_of(self.model), metrics_of(self.model))
            self._end_if(wanted >= _END)
            return
        if self.validates:  # Without a validation the end of the epoch is saved at once.
            self._write(values_of(self.model), metrics_of(self.model))
        if self._before:
            self.model.stop_training = self._cut = True

    def on_test_batch_end(self, batch, logs=None):
        self._end_if(self._wanted() >= _END)

    def on_epoch_end(self, epoch, logs=None):
        if self._cut:
            self.model.stop_training = self._cut = False
        numbers = {name: float(value) for name, value in (logs or {}).items()}
        values = values_of(self.model)
        if self.workers.total(0 if all_finite([*numbers.values(), *values]) else 1):
            self.model.stop_training = True  # The last good state stays.
            return
        self.history.append({**numbers, "wall_seconds": round(self.seconds(), 2)})
        self.place = epoch + 1, 0
        self._write(values)

    def finish(self):
        """Waits until the last state is saved, and ends the run if it was asked to.

        Raises:
            OSError: if the last state cannot be saved.
        """
        with self.workers.together():
            self.writer.insist()
        self.stop.waits = False
        self._end_if(self._wanted() >= _END)

    def _is_due(self):
        steps, minutes = self._every
        passed = time.perf_counter() - self._last
        wanted = (steps and self._unsaved >= steps) or (minutes and passed >= 60 * minutes)
        return wanted and not self.writer.is_busy()

    def _write(self, values, metrics=()):
        self._unsaved, self._last = 0, time.perf_counter()
        epoch, step = self.place
        now = {"epoch": epoch, "step": step, "history": [*self.history], "seconds": self.seconds()}
        if self.workers.is_chief:
            self.writer.write(values, {**self._saved.state, **now}, metrics)

    def _wanted(self, wish=0):
        """What any of the workers wants: the sum of `_SAVE` and `_END`, each as often as it is wanted."""
        return self.workers.total(wish + (_END if self.stop.signal else 0))

    def _end_if(self, asked):
        if asked:
            with self.workers.together():
                self.writer.insist()
            saved = self.writer.saved if self.workers.is_chief else "the chief knows what is saved"
            end(self.stop.signal or signal.SIGTERM, f"the run was asked to end; {saved}")
