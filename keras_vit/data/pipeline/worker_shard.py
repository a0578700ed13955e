"""Shards of a training run: the rows of every batch, or the files, that one of several workers reads."""

import dataclasses

import numpy as np
import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class WorkerShard:
    """The share of one of several workers in a data set.

    Args:
        index, count: ints. The worker's number, and the number of workers.
        by_files: bool. Whether the worker makes batches of its own, from its own files, instead of its rows of every
            batch. Default False.
    """

    index: int
    count: int
    by_files: bool = False


def rows_of(rows, index, count):
    """`(start, stop)` of the rows of a batch that belong to shard `index` of `count`; tensors if one is given."""
    return rows * index // count, rows * (index + 1) // count


@dataclasses.dataclass(frozen=True)
class BatchRows:
    """The rows of a batch that a worker computes: its local rows, and the rows that they are mixed with.

    Random numbers are drawn for the whole batch and then selected, so that every row equals that of the whole batch.

    Args:
        total: int. Rows of the whole batch.
        first, last: ints. The local rows are those from `first` to `last - 1`.
        computed: int32 array, sorted. Rows that are computed.
        partners: int32 array `(last - first,)`. The mixup partner of each local row.
    """

    total: int
    first: int
    last: int
    computed: np.ndarray
    partners: np.ndarray

    def sampled_rows(self, numbers):
        """Selects the computed rows from numbers that were drawn for the whole batch."""
        return tf.gather(numbers, self.computed)

    def local_rows(self, column):
        """Selects the local rows from the computed ones."""
        return tf.gather(column, np.searchsorted(self.computed, np.arange(self.first, self.last)))

    def mixup_partners(self, column):
        """Selects the mixup partner of each local row from the computed rows."""
        return tf.gather(column, np.searchsorted(self.computed, self.partners))


def rows_for_shard(batch_size, shard, augment):
    """Lists the rows of a batch that a worker computes.

    Args:
        batch_size: int. Of the whole batch.
        shard: `WorkerShard`.
        augment: `AugmentConfig`.

    Returns:
        `BatchRows`.

    Raises:
        ValueError: if there are fewer rows than workers.
    """
    if batch_size < shard.count:
        raise ValueError(
            f"a batch needs a row for every worker. Received: batch_size={batch_size}, {shard.count} workers"
        )
    first, last = rows_of(batch_size, shard.index, shard.count)
    local = np.arange(first, last)
    if not (augment.mixup or augment.cutmix):
        partners = local
    elif augment.mixup_mode == "keras_cv":  # keras-cv draws the partners itself
        partners = np.arange(batch_size)
    else:
        partners = (local - 1) % batch_size if augment.mixup_mode == "big_vision" else batch_size - 1 - local
    computed = np.unique(np.concatenate([local, partners])).astype("int32")
    return BatchRows(batch_size, first, last, computed, partners.astype("int32"))


def shard_by_files(split, batch_size, seed, shard):
    """Gives a worker files of its own.

    Args:
        split: `EncodedShards`.
        batch_size: int. Of all workers together.
        seed: int. Of the run.
        shard: `WorkerShard`.

    Returns:
        The worker's split, its batch size, its seed, and the number of whole batches that every worker has.

    Raises:
        ValueError: if the split is not a stream of at least as many files as workers, or a worker's files hold less
            than a batch.
    """
    files = len(getattr(split, "shards", ()))
    if files < shard.count:
        raise ValueError(
            "sharding by files needs a stream of as many files as workers. "
            f"Received: {type(split).__name__} of {files} files, {shard.count} workers"
        )
    sizes = [last - first for first, last in (rows_of(batch_size, index, shard.count) for index in range(shard.count))]
    splits = [split.shard_files(index, shard.count) for index in range(shard.count)]
    steps = min(len(local) // max(size, 1) for local, size in zip(splits, sizes, strict=True))
    if not steps or not all(sizes):
        raise ValueError(
            "the files of every worker must hold at least one batch. "
            f"Received: files with {[len(local) for local in splits]} images, batches of {sizes}"
        )
    # With one seed for all, the workers would draw the same numbers for different images.
    return splits[shard.index], sizes[shard.index], (seed + shard.index * 1_000_003) % 2**31, steps
