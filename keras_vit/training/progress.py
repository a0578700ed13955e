"""One progress bar for a whole run."""

import time

import keras
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

# Seconds between the lines of a log, and between the updates of a bar.
_LINE, _UPDATE = 10.0, 0.25


class ProgressBar(keras.callbacks.Callback):
    """Shows epochs, loss, accuracy, images a second and the time that remains.

    On a terminal it is a bar; elsewhere a line about every ten seconds, so that logs stay short. Images a second are
    those of the training steps alone, without compilation and validation; the time that remains is of everything.

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
        self._done = first_step / steps_per_epoch  # of the epoch, before its first step here
        self._shown = -_LINE
        self._bar = self._begin = None

    def on_train_begin(self, logs=None):
        if not self.console.is_terminal:
            return
        columns = (
            TextColumn("epoch"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=self.console)
        self._task = self._bar.add_task("compiling", total=self.epochs)
        self._bar.start()

    def on_epoch_begin(self, epoch, logs=None):
        if self._begin is None:
            self._begin, self._first = self._clock(), epoch + self._done
        self._epoch, self._steps, self._early = epoch, 0, None

    def on_train_batch_end(self, batch, logs=None):
        self._steps, self._late = batch + 1, self._clock()
        if self._early is None:  # The first call of the step compiles.
            self._early = self._steps, self._late
        if self._bar and self._late - self._shown > _UPDATE:
            self._shown = self._late
            done = self._epoch + self._done + self._steps / self.steps_per_epoch
            self._bar.update(self._task, completed=done, description=self._rate())

    def _rate(self):
        steps, seconds = self._steps - self._early[0], self._late - self._early[1]
        return f"{steps * self.batch_size / seconds:.0f} images/s" if steps and seconds else ""

    def on_epoch_end(self, epoch, logs=None):
        self._done = 0
        numbers = [f"{name} {value:.4f}" for name, value in (logs or {}).items()]
        rate = self._rate() if self._steps else ""
        text = ", ".join([*numbers, *([rate] if rate else [])])
        now = self._clock()
        if self._bar:
            self._bar.update(self._task, completed=epoch + 1, description=text)
        elif now - self._shown >= _LINE or epoch + 1 == self.epochs:
            self._shown = now
            done = epoch + 1 - self._first
            left = (now - self._begin) / done * (self.epochs - epoch - 1) if done else 0
            rest = f", {int(left) // 60}:{int(left) % 60:02d} left" if left else ""
            self.console.print(f"epoch {epoch + 1}/{self.epochs}: {text}{rest}", highlight=False, soft_wrap=True)

    def close(self):
        """Takes the bar off the terminal; also after an interrupt."""
        if self._bar:
            self._bar.stop()
            self._bar = None

    def on_train_end(self, logs=None):
        self.close()
