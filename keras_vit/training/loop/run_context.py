"""The settings of a run that its data, its training loop and its record share."""

import contextlib
import dataclasses
import pathlib

from keras_vit.training.loop.workers import SINGLE_WORKER, Workers


def discard(text):
    """Logs nothing."""


@dataclasses.dataclass(frozen=True)
class RunContext:
    """The directory and the hardware of a run.

    Args:
        directory: `pathlib.Path`. The folder of the run.
        strategy: `tf.distribute.Strategy` or `None`.
        workers: `Workers`. The processes of the run, of which only the chief writes to the directory.
        precision: str. The name of the dtype policy, from `choose_precision`.
        compiler: `xla`, `fused` or `plain`, from `choose_compiler`.
        log: callable for lines of text.
    """

    directory: pathlib.Path
    strategy: object = None
    workers: Workers = SINGLE_WORKER
    precision: str = "float32"
    compiler: str = "plain"
    log: object = discard

    def scope(self):
        """The scope of the strategy, in which models are built, compiled and restored."""
        return contextlib.nullcontext() if self.strategy is None else self.strategy.scope()
