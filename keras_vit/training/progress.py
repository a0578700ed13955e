"""One progress bar for a whole run."""

import time

import keras
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class ProgressBar(keras.callbacks.Callback):
    """Shows epochs, loss, accuracy, images a second and the time that remains.

    On a terminal it is a bar; elsewhere a line about every ten seconds, so that logs stay short.

    Args:
        epochs: int. Of the whole run.
        images_per_epoch: int.
        console: `rich.console.Console` or `None`.
    """

    def __init__(self, epochs, images_per_epoch, console=None):
        super().__init__()
        self.epochs = epochs
        self.images_per_epoch = images_per_epoch
        self.console = console or Console()
        self._last_line = 0.0
        self._bar = None

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
        self._start = time.perf_counter()
        if self._bar and epoch:
            self._bar.update(self._task, completed=epoch)

    def on_epoch_end(self, epoch, logs=None):
        seconds = time.perf_counter() - self._start
        numbers = ", ".join(f"{name} {value:.4f}" for name, value in (logs or {}).items())
        text = f"{numbers}, {self.images_per_epoch / seconds:.0f} images/s"
        if self._bar:
            self._bar.update(self._task, completed=epoch + 1, description=text)
        elif time.monotonic() - self._last_line > 10 or epoch + 1 == self.epochs:
            self._last_line = time.monotonic()
            self.console.print(f"epoch {epoch + 1}/{self.epochs}: {text}", highlight=False)

    def close(self):
        """Takes the bar off the terminal; also after an interrupt."""
        if self._bar:
            self._bar.stop()
            self._bar = None

    def on_train_end(self, logs=None):
        self.close()
