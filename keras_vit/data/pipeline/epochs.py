"""Which examples of which epochs come in a run, in which order, and which of them are made here."""

import dataclasses
import functools

import numpy as np
import tensorflow as tf

from keras_vit.data.pipeline.worker_shard import Rows
from keras_vit.data.seeds import apart


@dataclasses.dataclass(frozen=True)
class Course:
    """The order of a run's examples.

    An example has a position, `epoch * examples of an epoch + number`, from which its random changes are drawn. Where a
    worker makes a part of every batch only, its examples are also counted among those that it makes.

    Args:
        batch_size, steps: ints. The rows of a whole batch, and the batches of an epoch.
        epochs: int. Of the whole run.
        seed: int.
        first_epoch, first_step: ints. Where the run begins, or goes on.
        repeats: int. How often every drawn example comes in a batch.
        rows: `Rows` of a worker, or `None` for all.
    """

    batch_size: int
    steps: int
    epochs: int
    seed: int
    first_epoch: int = 0
    first_step: int = 0
    repeats: int = 1
    rows: Rows | None = None

    # Whether a `tf.data` service makes the batches.
    is_served = False

    @property
    def count(self):
        """int. The examples of an epoch."""
        return self.steps * self.batch_size

    @property
    def batch_rows(self):
        """int. The rows of a batch at last."""
        return self.rows.last - self.rows.first if self.rows else self.batch_size

    @functools.cached_property
    def places(self):
        """int array: for every row that is made, the example of the batch that it shows."""
        places = apart(self.batch_size, self.repeats)
        return places if self.rows is None else places[self.rows.made]

    @functools.cached_property
    def made(self):
        """int64 array, sorted: the examples of a batch that are made."""
        return np.sort(self.places).astype("int64")

    @property
    def makes_all(self):
        """bool. Whether every row of a batch is made."""
        return len(self.made) == self.batch_size

    @property
    def begin(self):
        """int. The first example, counted among those that are made."""
        return (self.first_epoch * self.steps + self.first_step) * len(self.made)

    @property
    def end(self):
        """int. One behind the last example of the run, counted among those that are made."""
        return self.epochs * self.steps * len(self.made)

    def position(self, number):
        """The position, int64, of the example that is the `number`-th of those that are made."""
        if self.makes_all:
            return number
        batch, place = number // len(self.made), number % len(self.made)
        return batch * self.batch_size + tf.gather(self.made, place)

    def flat_map(self, one_epoch, per_step):
        """The examples or batches of all epochs, from the first step on.

        Args:
            one_epoch: callable from an epoch, an int64 tensor, to a `tf.data.Dataset`.
            per_step: int. The elements of a step.
        """
        epochs = tf.data.Dataset.range(self.first_epoch, self.epochs)
        return epochs.flat_map(one_epoch).skip(self.first_step * per_step)
