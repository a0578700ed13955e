"""Which rows of a batch every replica gets: global batch in, per-replica out.

Row `i` of a batch of `n` rows goes to replica `j` of `r` where `n * j // r <= i < n * (j + 1) // r`: every row to one
replica, in order, and no two replicas' numbers of rows differ by more than one.
"""

import tensorflow as tf

from keras_vit.data.pipeline.worker_shard import Part, rows_of
from keras_vit.validation import check_choice

SHARDINGS = ("auto", "data", "file", "off")


class MultiWorkerStrategy(tf.distribute.MultiWorkerMirroredStrategy):
    """`tf.distribute.MultiWorkerMirroredStrategy` that says how a data set is divided among the workers.

    By `options().experimental_distribute.auto_shard_policy`, which `with_sharding` sets:

    - `data`, and `auto`, the default: every worker runs the same data set and takes its rows of each batch, so that the
      batches are those of one device. TensorFlow would deal the pieces of a batch to the workers by turns, by which
      `predict` could not tell the order of its rows, and fill up the first replicas with what a short batch has. The
      order must be the same on all workers: give every `shuffle` a seed.
    - `file`: TensorFlow gives every worker other files, of which it makes its part of a batch. Of the data set's own
      files there must be as many as workers. The batches are others than those of one device.
    - `off`: every worker has a data set of its own, by `dataset.shard` or a `tf.data` service, and takes all of it,
      in pieces of a batch divided by the replicas.

    For `keras_vit.data`'s own data sets there is `distribute_shards`.
    """

    @property
    def num_workers(self):
        """int. The workers of the cluster."""
        spec = self.cluster_resolver.cluster_spec()
        return sum(spec.num_tasks(job) for job in spec.jobs)

    def experimental_distribute_dataset(self, dataset, options=None):
        policy = dataset.options().experimental_distribute.auto_shard_policy.name.lower()
        if policy in ("file", "off"):
            return super().experimental_distribute_dataset(dataset, options)
        replicas = self.num_replicas_in_sync
        local = replicas // self.num_workers

        def part_of(context):
            size = tf.nest.flatten(dataset.element_spec)[0].shape[0]
            first = context.input_pipeline_id * local
            return replica_rows(dataset, replicas, first, local, rows_of_each(size, replicas))

        return self.distribute_datasets_from_function(part_of, options)


def with_sharding(dataset, sharding):
    """The same data set, divided among workers in another way.

    Args:
        dataset: `tf.data.Dataset`.
        sharding: `auto`, `data`, `file` or `off`, see `MultiWorkerStrategy`.

    Returns:
        A `tf.data.Dataset`.

    Raises:
        ValueError: on another sharding.
    """
    options = tf.data.Options()
    name = check_choice(sharding, SHARDINGS, "sharding").upper()
    options.experimental_distribute.auto_shard_policy = getattr(tf.data.experimental.AutoShardPolicy, name)
    return dataset.with_options(options)


def replica_rows(dataset, replicas, first, count, rows=None):
    """The rows of some replicas, one element a replica.

    Args:
        dataset: `tf.data.Dataset` of batches: any nest of tensors of one first dimension.
        replicas: int. Among so many the rows of a batch are divided.
        first, count: ints. The replicas `first` to `first + count - 1` are wanted.
        rows: int or `None`. What every replica gets, if that is always the same.

    Returns:
        A `tf.data.Dataset`: for every batch `count` elements, without rows where there are fewer than replicas.
    """

    def part(replica, *batch):
        batch = batch[0] if len(batch) == 1 else batch
        number = tf.shape(tf.nest.flatten(batch)[0], tf.int64)[0]
        low, high = rows_of(number, tf.cast(replica, tf.int64), replicas)
        return tf.nest.map_structure(lambda x: tf.ensure_shape(x[low:high], (rows, *x.shape[1:])), batch)

    if count == 1:
        return dataset.map(lambda *batch: part(first, *batch))

    def parts(*batch):
        return tf.data.Dataset.range(first, first + count).map(lambda replica: part(replica, *batch))

    return dataset.flat_map(parts).prefetch(count)


def rows_of_each(batch_size, replicas):
    """The rows that every replica gets of batches of one size, where all get as many; else `None`."""
    return batch_size // replicas if batch_size is not None and batch_size % replicas == 0 else None


def distribute_shards(strategy, make, batch_size=None, by_files=False):
    """A data set of which every worker makes its own part.

    Args:
        strategy: `tf.distribute.Strategy`.
        make: callable from a `keras_vit.data.Part`, or `None` where there is one worker, to a `tf.data.Dataset` of the
            worker's rows of every batch.
        batch_size: int or `None`. The rows of the whole batch, if all batches have as many.
        by_files: bool. What the parts are told.

    Returns:
        What `fit` takes: the data set itself where there is one worker.
    """
    if not isinstance(strategy, MultiWorkerStrategy):
        return make(None)
    replicas, workers = strategy.num_replicas_in_sync, strategy.num_workers
    local, rows = replicas // workers, rows_of_each(batch_size, replicas)

    def part_of(context):
        batches = make(Part(context.input_pipeline_id, workers, by_files))
        return replica_rows(batches, local, 0, local, rows)

    return strategy.distribute_datasets_from_function(part_of)
