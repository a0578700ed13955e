"""Progress bar of a whole run."""

import time

import keras
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

# Seconds between log lines of epochs, between log lines within an epoch, and between updates of the bar.
_EPOCH_LINES, _STEP_LINES, _UPDATE = 10.0, 60.0, 0.25
# Steps after the first one that are measured before the remaining time is estimated.
_MIN_STEPS = 2


class TimeLeft:
    """Estimates the remaining seconds of a run from its steps and the ends of its epochs.

    The first step, which compiles, does not count; of the ends of epochs, which validate and save, the first one counts
    only until there is a second.

    Args:
        epochs, steps_per_epoch: ints, the length of the run.
    """

    def __init__(self, epochs, steps_per_epoch):
        self.epochs, self.steps_per_epoch = epochs, steps_per_epoch
        self._steps, self._step_seconds, self._ends = 0, 0.0, []

    def add_step(self, seconds):
        """Adds the seconds of a step, which is not the first one."""
        self._steps += 1
        self._step_seconds += seconds

    def add_end(self, seconds):
        """Adds the seconds that the end of an epoch took."""
        self._ends.append(seconds)

    def seconds(self, epochs_done, steps_done):
        """Returns the remaining seconds, a float, or `None` before enough steps are measured.

        Args:
            epochs_done: int. Epochs that have ended.
            steps_done: int. Steps of the next one.
        """
        if self._steps < min(_MIN_STEPS, self.steps_per_epoch):
            return None
        ends = self._ends[1:] or self._ends
        epochs = self.epochs - epochs_done
        steps = epochs * self.steps_per_epoch - steps_done
        return steps * self._step_seconds / self._steps + (epochs * sum(ends) / len(ends) if ends else 0.0)


class ProgressBar(keras.callbacks.Callback):
    """Shows epochs, loss, accuracy, images per second and the remaining time.

    On a terminal it is a bar, with a line above it for every epoch that has ended. Elsewhere there are only lines: of
    epochs at most one in ten seconds, so that logs stay short, and one a minute within a long epoch. Images a second
    are those of the training steps alone, without compilation and validation; the time that remains is of everything
    but compilation.

    Args:
        epochs: int. Of the whole run.
        steps_per_epoch: int.
        batch_size: int.
        console: `rich.console.Console` or `None`.
        clock: callable that gives seconds.
        first_step: int. Steps of the first epoch that an earlier part of the run has done. Default 0.
    """

    def __init__(self, epochs, steps_per_epoch, batch_size, console=None, clock=time.perf_counter, first_step=0):
        super().__init__()
        self.epochs, self.steps_per_epoch, self.batch_size = epochs, steps_per_epoch, batch_size
        self.console, self._clock = console or Console(), clock
        self._time_left = TimeLeft(epochs, steps_per_epoch)
        self._skipped = first_step  # of the epoch that is going on
        self._updated = self._epoch_line = -_EPOCH_LINES
        self._bar = self._last_step_end = None

    def on_train_begin(self, logs=None):
        if not self.console.is_terminal:
            return
        columns = (
            TextColumn("epoch"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
        )
        self._bar = Progress(*columns, console=self.console)
        self._task = self._bar.add_task("compiling", total=self.epochs, left="")
        self._bar.start()

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch, self._steps, self._timed, self._seconds = epoch, 0, 0, 0.0
        self._step_line = self._clock()
        if self._last_step_end is not None:
            self._last_step_end = self._clock()

    def on_train_batch_end(self, batch, logs=None):
        now, self._steps = self._clock(), batch + 1
        if self._last_step_end is None:  # The first call of the step compiles.
            self._step_line = now
        else:
            self._timed += 1
            self._seconds += now - self._last_step_end
            self._time_left.add_step(now - self._last_step_end)
        self._last_step_end = now
        self._show_steps(now)

    def _show_steps(self, now):
        done = self._skipped + self._steps
        left = _text_of_seconds(self._time_left.seconds(self._epoch, done))
        if self._bar and now - self._updated > _UPDATE:
            self._updated = now
            completed = self._epoch + done / self.steps_per_epoch
            self._bar.update(self._task, completed=completed, description=self._rate(), left=left)
        elif not self._bar and now - self._step_line >= _STEP_LINES and done < self.steps_per_epoch:
            self._step_line = now
            place = f"epoch {self._epoch + 1}/{self.epochs}, step {done}/{self.steps_per_epoch}"
            self._print(place, [self._rate(), left])

    def _rate(self):
        if not self._seconds:
            return ""
        rate = self._timed * self.batch_size / self._seconds
        return f"{rate:.0f} images/s" if rate >= 1 else f"{rate:.2f} images/s"

    def _print(self, place, parts):
        text = ", ".join(part for part in parts if part)
        self.console.print(f"{place}: {text}" if text else place, highlight=False, soft_wrap=True, markup=False)

    def on_epoch_end(self, epoch, logs=None):
        now = self._clock()
        if self._steps:
            self._time_left.add_end(now - self._last_step_end)
        self._skipped = 0
        numbers = [f"{name} {value:.4f}" for name, value in (logs or {}).items()]
        is_last = epoch + 1 == self.epochs
        left = "" if is_last else _text_of_seconds(self._time_left.seconds(epoch + 1, 0))
        if self._bar:
            self._bar.update(self._task, completed=epoch + 1, description=self._rate(), left=left)
        if self._bar or is_last or now - self._epoch_line >= _EPOCH_LINES:
            self._epoch_line = now
            self._print(f"epoch {epoch + 1}/{self.epochs}", [*numbers, self._rate(), "" if self._bar else left])

    def close(self):
        """Removes the bar from the terminal, also after an interrupt."""
        if self._bar:
            self._bar.stop()
            self._bar = None

    def on_train_end(self, logs=None):
        self.close()


def _text_of_seconds(seconds):
    """Formats seconds as `m:ss left` or `h:mm:ss left`; an empty str for `None`."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d} left" if hours else f"{minutes}:{rest:02d} left"
