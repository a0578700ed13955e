"""Deterministic order of examples over epochs, resumable and shardable."""

import dataclasses
import functools

import numpy as np
import tensorflow as tf

from keras_vit.data.pipeline.worker_shard import BatchRows
from keras_vit.data.seeds import augmentation_seed, spread_repeats


@dataclasses.dataclass(frozen=True)
class EpochSchedule:
    """The order of a run's examples.

    An example has a position, `epoch * examples of an epoch + number`, which seeds its augmentation. A worker that
    computes only some rows of every batch also numbers its computed examples consecutively.

    Args:
        batch_size, steps: ints. Rows of a whole batch, and batches of an epoch.
        epochs: int. Of the whole run.
        seed: int.
        first_epoch, first_step: ints. Where the run starts or resumes.
        repeats: int. Copies of every sampled example in a batch.
        rows: `BatchRows` of a worker, or `None` for all rows.
    """

    batch_size: int
    steps: int
    epochs: int
    seed: int
    first_epoch: int = 0
    first_step: int = 0
    repeats: int = 1
    rows: BatchRows | None = None

    # Whether a `tf.data` service makes the batches.
    is_served = False

    @property
    def count(self):
        """int. Examples of an epoch."""
        return self.steps * self.batch_size

    @property
    def local_batch_size(self):
        """int. Rows of a finished batch."""
        return self.rows.last - self.rows.first if self.rows else self.batch_size

    @functools.cached_property
    def row_examples(self):
        """int array: for every computed row, the index in the batch of the example that it shows."""
        indices = spread_repeats(self.batch_size, self.repeats)
        return indices if self.rows is None else indices[self.rows.computed]

    @functools.cached_property
    def computed(self):
        """int64 array, sorted: the indices in a batch of the examples that are computed."""
        return np.sort(self.row_examples).astype("int64")

    @property
    def computes_all_rows(self):
        """bool. Whether every row of a batch is computed."""
        return len(self.computed) == self.batch_size

    @property
    def start(self):
        """int. The first example, counted among the computed ones."""
        return (self.first_epoch * self.steps + self.first_step) * len(self.computed)

    @property
    def end(self):
        """int. One past the last example of the run, counted among the computed ones."""
        return self.epochs * self.steps * len(self.computed)

    def position(self, number):
        """Converts a number among the computed examples to a position, int64."""
        if self.computes_all_rows:
            return number
        batch, index = number // len(self.computed), number % len(self.computed)
        return batch * self.batch_size + tf.gather(self.computed, index)

    def flat_map(self, one_epoch, per_step):
        """Concatenates the examples or batches of all epochs, from the first step on.

        Args:
            one_epoch: callable from an epoch, an int64 tensor, to a `tf.data.Dataset`.
            per_step: int. Elements of a step.
        """
        epochs = tf.data.Dataset.range(self.first_epoch, self.epochs)
        return epochs.flat_map(one_epoch).skip(self.first_step * per_step)

    def records(self, split):
        """Returns `(number, record)` of the computed examples of an encoded split, from the first step on."""
        per_epoch = self.steps * len(self.computed)

        def one_epoch(epoch):
            records = split.epoch(self.seed, epoch, self.repeats).take(self.count)
            if not self.computes_all_rows:
                is_computed = tf.constant(np.isin(np.arange(self.batch_size), self.computed))
                records = records.enumerate()
                records = records.filter(lambda number, record: tf.gather(is_computed, number % self.batch_size))
                records = records.map(lambda number, record: record)
            return records.enumerate().map(lambda number, element: (epoch * per_epoch + number, element[1]))

        return self.flat_map(one_epoch, len(self.computed))

    def example_seed(self, number):
        """Returns the augmentation seed of an example by its number among the computed ones."""
        position = self.position(number)
        return augmentation_seed(self.seed, position // self.count, position % self.count)
