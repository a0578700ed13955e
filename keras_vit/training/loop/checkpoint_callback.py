"""Saving while `fit` runs, going on within an epoch, and ending where that was asked for."""

import concurrent.futures
import pathlib
import signal
import time
import warnings

import keras
import numpy as np

from keras_vit.training.loop import checkpoint as saved_state
from keras_vit.training.loop.checkpoint import fill_metrics, metrics_of, values_of
from keras_vit.training.loop.preemption import raise_for_signal
from keras_vit.training.loop.workers import SINGLE_WORKER, StopSaveConsensus


class Writer:
    """Saves one state at a time in a thread.

    A disk that is full does not end a run: there is a warning, the last good state stays, and the next save may find
    room. Only `insist` raises.

    Args:
        path: of the file, as for `saved_state.save`.

    Attributes:
        saved: str. What is on the disk, in words.
    """

    def __init__(self, path):
        self.path, self.saved = pathlib.Path(path), "nothing new is saved"
        self._pool = concurrent.futures.ThreadPoolExecutor(1, "keras_vit-save")
        self._job, self._wanted = None, ()

    def is_busy(self):
        """Whether a state is on its way."""
        return self._job is not None and not self._job.done()

    def write(self, values, state, metrics=()):
        """Saves a state if it is made of numbers; waits for the one before it. Arguments as for `saved_state.save`."""
        try:
            self._wait()
        except OSError as error:
            warnings.warn(f"{error}; training goes on", stacklevel=2)
        self._wanted = (values, state, metrics)
        self._job = self._pool.submit(self._save, *self._wanted)

    def insist(self):
        """Waits for what is on its way, and tries once more where it could not be written.

        Raises:
            OSError: if it cannot be written.
        """
        try:
            self._wait()
        except OSError:
            self._save(*self._wanted)

    def close(self):
        """Lets the thread go, when what is on its way is written."""
        self._pool.shutdown()

    def _wait(self):
        job, self._job = self._job, None
        if job is not None:
            job.result()

    def _save(self, values, state, metrics):
        if not all_finite([*values, *metrics]):
            self._wanted = ()
            return
        place = saved_state.describe(state["epoch"], state["step"])
        try:
            saved_state.save(self.path, values, state, metrics)
        except OSError as error:
            raise OSError(
                f"the state {place} could not be saved; {self.saved}. Received: {error} for {str(self.path)!r}"
            ) from error
        self.saved, self._wanted = f"it is saved {place}", ()


def all_finite(arrays):
    """Whether arrays hold numbers alone, no infinity and no NaN."""
    return all(np.isfinite(array).all() for array in arrays)


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
        earlier_epochs: list of int, the lengths that the run had before it got another one.
    """

    def __init__(
        self, writer, saved, steps_per_epoch, stop, workers=SINGLE_WORKER, every=(None, None), validates=False
    ):
        super().__init__()
        self.writer, self.stop, self.workers = writer, stop, workers
        self.steps_per_epoch, self.validates = steps_per_epoch, validates
        self.history, self.code = saved.state["history"], saved.state["code"]
        self.earlier_epochs = saved.state.get("earlier_epochs", [])
        self.place = saved.state["epoch"], saved.state["step"]
        self._saved, self._every = saved, every
        self._unsaved, self._cut = 0, False
        self._ballot = StopSaveConsensus(workers)
        self._start = self._last = time.perf_counter()

    def seconds(self):
        """What the run took so far, with its earlier parts."""
        return self._saved.state["seconds"] + time.perf_counter() - self._start

    def on_epoch_begin(self, epoch, logs=None):
        self._end_if(self._ballot.ends(self.stop.signal))
        self._before = self.place[1]
        if self._before:
            fill_metrics(self.model, self._saved)

    def on_train_batch_end(self, batch, logs=None):
        if self.model.stop_training:  # The loss is not a number.
            return
        self.stop.waits = True
        done = self._before + batch + 1
        steps = done - self.place[1]
        self._unsaved += steps
        self.place = self.place[0], done
        if done < self.steps_per_epoch:
            is_due = self.workers.is_chief and self._is_due()
            save, end = self._ballot.after(steps, is_due, self.stop.signal, at_once=self._is_due_by_steps())
            if save or end:
                self._write(values_of(self.model), metrics_of(self.model))
            self._end_if(end)
            return
        if self.validates:  # Without a validation the end of the epoch is saved at once.
            self._write(values_of(self.model), metrics_of(self.model))
        if self._before:
            self.model.stop_training = self._cut = True

    def on_test_batch_end(self, batch, logs=None):
        self._end_if(self._ballot.ends(self.stop.signal))

    def on_epoch_end(self, epoch, logs=None):
        if self._cut:
            self.model.stop_training = self._cut = False
        numbers = {name: float(value) for name, value in (logs or {}).items()}
        values = values_of(self.model)
        if self.workers.all_reduce_sum(0 if all_finite([*numbers.values(), *values]) else 1):
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
        with self.workers.fail_together():
            self.writer.insist()
        self.stop.waits = False
        self._end_if(self._ballot.ends(self.stop.signal))

    def _is_due_by_steps(self):
        return self._every[0] is not None and self._unsaved >= self._every[0]

    def _is_due(self):
        minutes, passed = self._every[1], time.perf_counter() - self._last
        wanted = self._is_due_by_steps() or (minutes is not None and passed >= 60 * minutes)
        return wanted and not self.writer.is_busy()

    def _write(self, values, metrics=()):
        self._unsaved, self._last = 0, time.perf_counter()
        epoch, step = self.place
        now = {"epoch": epoch, "step": step, "history": [*self.history], "seconds": self.seconds()}
        if self.workers.is_chief:
            self.writer.write(values, {**self._saved.state, **now}, metrics)

    def _end_if(self, asked):
        if asked:
            with self.workers.fail_together():
                self.writer.insist()
            saved = self.writer.saved if self.workers.is_chief else "the chief knows what is saved"
            raise_for_signal(self.stop.signal or signal.SIGTERM, f"the run was asked to end; {saved}")
