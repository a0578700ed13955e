"""What one of several workers makes of a run's batches: its rows of each, or batches of files of its own."""

import dataclasses

import numpy as np
import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Part:
    """Which of several workers a data set is for.

    Args:
        index, count: ints. The worker's number, and how many there are.
        by_files: bool. Whether it makes batches of its own, of its own files, instead of its rows of every batch.
            Default False.
    """

    index: int
    count: int
    by_files: bool = False


def rows_of(rows, part, parts):
    """`(first, behind the last)` of the rows of a batch that one of several parts gets; tensors where one is given."""
    return rows * part // parts, rows * (part + 1) // parts


@dataclasses.dataclass(frozen=True)
class Rows:
    """The rows of a batch that a worker makes: its own, and those that they are mixed with.

    What is drawn for a batch is drawn for all of it, so that every row is that of the whole batch.

    Args:
        total: int. The rows of the whole batch.
        first, last: ints. Its own are those from `first` to `last - 1`.
        made: int32 array, sorted. What it makes.
        partners: int32 array `(last - first,)`. What its own are mixed with.
    """

    total: int
    first: int
    last: int
    made: np.ndarray
    partners: np.ndarray

    def drawn(self, numbers):
        """Of what was drawn for all rows of the batch, that of the rows that are made."""
        return tf.gather(numbers, self.made)

    def own(self, column):
        """Of the rows that are made, its own."""
        return tf.gather(column, np.searchsorted(self.made, np.arange(self.first, self.last)))

    def mixed_with(self, column):
        """Of the rows that are made, for each of its own the one that it is mixed with."""
        return tf.gather(column, np.searchsorted(self.made, self.partners))


def rows_to_make(batch_size, part, augment):
    """The `Rows` of a `Part`.

    Args:
        batch_size: int. Of the whole batch.
        part: `Part`.
        augment: `AugmentConfig`.

    Raises:
        ValueError: if there are fewer rows than workers.
    """
    if batch_size < part.count:
        raise ValueError(
            f"a batch needs a row for every worker. Received: batch_size={batch_size}, {part.count} workers"
        )
    first, last = rows_of(batch_size, part.index, part.count)
    own = np.arange(first, last)
    if not (augment.mixup or augment.cutmix):
        partners = own
    elif augment.mixup_mode == "keras_cv":  # whose partners are drawn by keras-cv
        partners = np.arange(batch_size)
    else:
        partners = (own - 1) % batch_size if augment.mixup_mode == "big_vision" else batch_size - 1 - own
    made = np.unique(np.concatenate([own, partners])).astype("int32")
    return Rows(batch_size, first, last, made, partners.astype("int32"))


def by_files(split, batch_size, seed, part):
    """What the worker of a `Part` reads where every worker has files of its own.

    Args:
        split: `EncodedShards`.
        batch_size: int. Of all workers.
        seed: int. Of the run.
        part: `Part`.

    Returns:
        The worker's split, the size of its batches, a seed of its own, and the whole batches that every worker has.

    Raises:
        ValueError: if the split is no stream of at least as many files as there are workers, or a worker's files hold
            no batch.
    """
    files = len(getattr(split, "shards", ()))
    if files < part.count:
        raise ValueError(
            "a division by files needs a stream of as many files as workers. "
            f"Received: {type(split).__name__} of {files} files, {part.count} workers"
        )
    sizes = [last - first for first, last in (rows_of(batch_size, index, part.count) for index in range(part.count))]
    splits = [split.of_files(index, part.count) for index in range(part.count)]
    steps = min(len(own) // max(size, 1) for own, size in zip(splits, sizes, strict=True))
    if not steps or not all(sizes):
        raise ValueError(
            "the files of every worker must hold one batch at least. "
            f"Received: files with {[len(own) for own in splits]} images, batches of {sizes}"
        )
    # The same numbers drawn for other images would make the workers' changes alike.
    return splits[part.index], sizes[part.index], (seed + part.index * 1_000_003) % 2**31, steps
