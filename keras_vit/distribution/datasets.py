"""Divides the rows of each global batch among workers and replicas.

Row `i` of a batch of `n` rows belongs to replica `j` of `r` with `n * j // r <= i < n * (j + 1) // r`: each row to one
replica, in order, and the numbers of rows of two replicas differ by at most one.
"""

import tensorflow as tf

from keras_vit.data.pipeline.worker_shard import WorkerShard, rows_of
from keras_vit.validation import check_choice

SHARDINGS = ("auto", "data", "file", "off")


class MultiWorkerStrategy(tf.distribute.MultiWorkerMirroredStrategy):
    """A `tf.distribute.MultiWorkerMirroredStrategy` whose batches are those of one device.

    `options().experimental_distribute.auto_shard_policy` of a dataset, which `with_sharding` sets, selects the division
    among the workers:

    - `data`, and `auto`, the default: every worker runs the same dataset and takes its rows of each batch, so that the
      batches are those of one device. (TensorFlow deals the pieces of a batch to the workers in turn, so that `predict`
      cannot restore the order of the rows, and gives the rows of a short batch to the first replicas.) The order of the
      examples must be the same on all workers: give every `shuffle` a seed.
    - `file`: TensorFlow gives each worker other files, from which it makes its share of a batch. The dataset must read
      at least as many files as there are workers. The batches differ from those of one device.
    - `off`: each worker has a dataset of its own, from `dataset.shard` or a `tf.data` service, and uses all of it, in
      pieces of a batch divided by the replicas.

    The datasets of `keras_vit.data` use `distribute_shards` instead.
    """

    @property
    def num_workers(self):
        """int. The number of workers in the cluster."""
        spec = self.cluster_resolver.cluster_spec()
        return sum(spec.num_tasks(job) for job in spec.jobs)

    def experimental_distribute_dataset(self, dataset, options=None):
        policy = dataset.options().experimental_distribute.auto_shard_policy.name.lower()
        if policy in ("file", "off"):
            return super().experimental_distribute_dataset(dataset, options)
        replicas = self.num_replicas_in_sync
        local_replicas = replicas // self.num_workers

        def worker_batches(context):
            size = tf.nest.flatten(dataset.element_spec)[0].shape[0]
            first = context.input_pipeline_id * local_replicas
            return replica_batches(dataset, replicas, first, local_replicas, rows_per_replica(size, replicas))

        return self.distribute_datasets_from_function(worker_batches, options)


def with_sharding(dataset, sharding):
    """Sets the division of a dataset among workers.

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


def replica_batches(dataset, replicas, first, count, rows=None):
    """Splits every batch into one element for each of some replicas.

    Args:
        dataset: `tf.data.Dataset` of batches: nests of tensors with the same first dimension.
        replicas: int. The number of replicas that share a batch.
        first, count: ints. Elements are made for the replicas `first` to `first + count - 1`.
        rows: int or `None`. The number of rows of each element, if it is always the same.

    Returns:
        A `tf.data.Dataset` with `count` elements for each batch; an element has no rows if there are more replicas than
        rows.
    """

    def rows_of_replica(replica, *batch):
        batch = batch[0] if len(batch) == 1 else batch
        size = tf.shape(tf.nest.flatten(batch)[0], tf.int64)[0]
        low, high = rows_of(size, tf.cast(replica, tf.int64), replicas)
        return tf.nest.map_structure(lambda x: tf.ensure_shape(x[low:high], (rows, *x.shape[1:])), batch)

    if count == 1:
        return dataset.map(lambda *batch: rows_of_replica(first, *batch))

    def elements(*batch):
        return tf.data.Dataset.range(first, first + count).map(lambda replica: rows_of_replica(replica, *batch))

    return dataset.flat_map(elements).prefetch(count)


def rows_per_replica(batch_size, replicas):
    """The number of rows of each replica if the batch divides evenly, else `None`."""
    return batch_size // replicas if batch_size is not None and batch_size % replicas == 0 else None


def distribute_shards(strategy, make, batch_size=None, by_files=False):
    """Makes a dataset of which each worker computes its own shard.

    Args:
        strategy: `tf.distribute.Strategy`.
        make: callable from a `keras_vit.data.WorkerShard`, or `None` for a single worker, to a `tf.data.Dataset` of the
            worker's rows of each batch.
        batch_size: int or `None`. The rows of the global batch, if all batches have equally many.
        by_files: bool. Passed on to the `WorkerShard`. Default False.

    Returns:
        A dataset for `fit`: that of `make` for a single worker.
    """
    if not isinstance(strategy, MultiWorkerStrategy):
        return make(None)
    replicas, workers = strategy.num_replicas_in_sync, strategy.num_workers
    local_replicas, rows = replicas // workers, rows_per_replica(batch_size, replicas)

    def worker_batches(context):
        batches = make(WorkerShard(context.input_pipeline_id, workers, by_files))
        return replica_batches(batches, local_replicas, 0, local_replicas, rows)

    return strategy.distribute_datasets_from_function(worker_batches)
