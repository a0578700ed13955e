"""Saves checkpoints while `fit` runs, resumes within an epoch, and stops when asked to."""

import concurrent.futures
import pathlib
import signal
import time
import warnings

import keras
import numpy as np

from keras_vit.training.loop.checkpoint import (
    describe_position,
    metric_values,
    restore_metrics,
    save_checkpoint,
    training_values,
)
from keras_vit.training.loop.preemption import raise_for_signal
from keras_vit.training.loop.workers import SINGLE_WORKER, StopSaveConsensus


class CheckpointWriter:
    """Writes one checkpoint at a time in a background thread.

    A full disk does not stop a run: it warns, the last checkpoint stays, and the next save tries again. Only `flush`
    raises.

    Args:
        path: of the file, as for `save_checkpoint`.

    Attributes:
        status: str. The last checkpoint on disk, in words.
    """

    def __init__(self, path):
        self.path, self.status = pathlib.Path(path), "no new checkpoint is saved"
        self._pool = concurrent.futures.ThreadPoolExecutor(1, "keras_vit-save")
        self._job, self._unsaved = None, ()

    def is_busy(self):
        """Returns whether a checkpoint is being written."""
        return self._job is not None and not self._job.done()

    def write(self, values, state, metrics=()):
        """Starts to save a checkpoint, if it is finite; waits for the one before. Arguments: see `save_checkpoint`."""
        try:
            self._wait()
        except OSError as error:
            warnings.warn(f"{error}; training continues", stacklevel=2)
        self._unsaved = (values, state, metrics)
        self._job = self._pool.submit(self._save, *self._unsaved)

    def flush(self):
        """Waits for the checkpoint that is being written, and tries once more if that fails.

        Raises:
            OSError: if it cannot be written.
        """
        try:
            self._wait()
        except OSError:
            self._save(*self._unsaved)

    def close(self):
        """Waits for the checkpoint that is being written, and ends the thread."""
        self._pool.shutdown()

    def _wait(self):
        job, self._job = self._job, None
        if job is not None:
            job.result()

    def _save(self, values, state, metrics):
        if not all_finite([*values, *metrics]):
            self._unsaved = ()
            return
        position = describe_position(state["epoch"], state["step"])
        try:
            save_checkpoint(self.path, values, state, metrics)
        except OSError as error:
            raise OSError(
                f"the checkpoint {position} could not be saved; {self.status}. Received: {error} for {str(self.path)!r}"
            ) from error
        self.status, self._unsaved = f"it is saved {position}", ()


def all_finite(arrays):
    """Returns whether arrays hold neither NaN nor infinity."""
    return all(np.isfinite(array).all() for array in arrays)


class CheckpointCallback(keras.callbacks.Callback):
    """Saves a checkpoint after every epoch and within epochs, resumes within an epoch, and stops on request.

    Only finite values are saved. When `fit` resumes within an epoch, its dataset starts at the first step that is left;
    this callback restores the metrics of the earlier steps, and ends that epoch at its last step.

    Args:
        writer: `CheckpointWriter`.
        checkpoint: `Checkpoint` that the run starts from; the `history` in its state is appended to.
        steps_per_epoch: int.
        stop: `StopRequest`.
        workers: `Workers`, all of which save and stop after the same step.
        save_every: `(steps, minutes)`: saves within an epoch when either has passed since the last save; `None` for
            never.
        validates: bool. Whether a validation follows the last step of an epoch. If so, that step is saved too, so that
            a run can stop within the validation.

    Attributes:
        history: list of dicts, one for each finished epoch, with the `wall_seconds` of the run at its end.
        position: `(epoch, step)`: finished epochs, and finished steps of the next one.
        code: list of dicts: the code version of each part of the run, this one last.
        earlier_epochs: list of int: earlier values of `training.epochs`.
    """

    def __init__(
        self,
        writer,
        checkpoint,
        steps_per_epoch,
        stop,
        workers=SINGLE_WORKER,
        save_every=(None, None),
        validates=False,
    ):
        super().__init__()
        self.writer, self.stop, self.workers = writer, stop, workers
        self.steps_per_epoch, self.validates = steps_per_epoch, validates
        self.history, self.code = checkpoint.state["history"], checkpoint.state["code"]
        self.earlier_epochs = checkpoint.state.get("earlier_epochs", [])
        self.position = checkpoint.position
        self._checkpoint, self._save_every = checkpoint, save_every
        self._unsaved_steps, self._ends_resumed_epoch = 0, False
        self._consensus = StopSaveConsensus(workers)
        self._start = self._last_save = time.perf_counter()

    def seconds(self):
        """The time that the run has taken, its earlier parts included."""
        return self._checkpoint.state["seconds"] + time.perf_counter() - self._start

    def on_epoch_begin(self, epoch, logs=None):
        self._stop_if(self._consensus.any_stops(self.stop.signal))
        self._resumed_step = self.position[1]
        if self._resumed_step:
            restore_metrics(self.model, self._checkpoint)

    def on_train_batch_end(self, batch, logs=None):
        if self.model.stop_training:  # The loss is not a number.
            return
        self.stop.defers_signals = True
        done = self._resumed_step + batch + 1
        steps = done - self.position[1]
        self._unsaved_steps += steps
        self.position = self.position[0], done
        if done < self.steps_per_epoch:
            is_due = self.workers.is_chief and self._is_due()
            save, stop = self._consensus.after_steps(steps, is_due, self.stop.signal, force=self._is_due_by_steps())
            if save or stop:
                self._write(training_values(self.model), metric_values(self.model))
            self._stop_if(stop)
            return
        if self.validates:  # Without a validation, `on_epoch_end` saves at once.
            self._write(training_values(self.model), metric_values(self.model))
        if self._resumed_step:
            # Keras counts `steps_per_epoch` from the resumed step; this ends the epoch, not the training.
            self.model.stop_training = self._ends_resumed_epoch = True

    def on_test_batch_end(self, batch, logs=None):
        self._stop_if(self._consensus.any_stops(self.stop.signal))

    def on_epoch_end(self, epoch, logs=None):
        if self._ends_resumed_epoch:
            self.model.stop_training = self._ends_resumed_epoch = False
        logs = {name: float(value) for name, value in (logs or {}).items()}
        values = training_values(self.model)
        if self.workers.all_reduce_sum(0 if all_finite([*logs.values(), *values]) else 1):
            self.model.stop_training = True  # The last finite checkpoint stays.
            return
        self.history.append({**logs, "wall_seconds": round(self.seconds(), 2)})
        self.position = epoch + 1, 0
        self._write(values)

    def finish(self):
        """Waits until the last checkpoint is saved, and stops if that was requested.

        Raises:
            OSError: if the last checkpoint cannot be saved.
        """
        with self.workers.fail_together():
            self.writer.flush()
        self.stop.defers_signals = False
        self._stop_if(self._consensus.any_stops(self.stop.signal))

    def _is_due_by_steps(self):
        steps, _ = self._save_every
        return steps is not None and self._unsaved_steps >= steps

    def _is_due(self):
        _, minutes = self._save_every
        is_due_by_time = minutes is not None and time.perf_counter() - self._last_save >= 60 * minutes
        return (self._is_due_by_steps() or is_due_by_time) and not self.writer.is_busy()

    def _write(self, values, metrics=()):
        self._unsaved_steps, self._last_save = 0, time.perf_counter()
        epoch, step = self.position
        update = {"epoch": epoch, "step": step, "history": [*self.history], "seconds": self.seconds()}
        if self.workers.is_chief:
            self.writer.write(values, {**self._checkpoint.state, **update}, metrics)

    def _stop_if(self, is_requested):
        if is_requested:
            with self.workers.fail_together():
                self.writer.flush()
            status = self.writer.status if self.workers.is_chief else "see the chief for the last checkpoint"
            raise_for_signal(self.stop.signal or signal.SIGTERM, f"the run was asked to stop; {status}")
