"""Runs a step on every replica and sums its gradients, weighted by the number of examples of each replica."""

import contextvars

import keras
import tensorflow as tf

from keras_vit.backend.xla_kernels import fused_training, is_fused

# The number of rows of this replica in the current step: a scalar tensor, or `None` if it is equal on all replicas.
_rows = contextvars.ContextVar("rows", default=None)


def count_rows(batch):
    """The number of rows of a batch: an int if it is static, else a scalar tensor."""
    first = next(column for column in keras.tree.flatten(batch) if column is not None)
    return tf.shape(first)[0] if first.shape[0] is None else first.shape[0]


def run_on_replicas(strategy, step, batch):
    """Runs a step on every replica.

    Args:
        strategy: `tf.distribute.Strategy`.
        step: callable from a batch. It may call `all_reduce_gradients`, and it is fused as the caller is.
        batch: of a distributed dataset, or one batch for all replicas.

    Returns:
        The result of `strategy.run`.
    """
    # Replicas run in threads, which do not inherit context variables.
    fused = is_fused()

    def on_replica(batch):
        batch = keras.tree.map_structure(lambda x: None if isinstance(x, tf.experimental.Optional) else x, batch)
        rows = count_rows(batch)
        # A static number is that of every replica in a graph; in eager execution it is that of this replica alone.
        is_equal = isinstance(rows, int) and not tf.executing_eagerly()
        token = _rows.set(None if is_equal else tf.convert_to_tensor(rows))
        try:
            with fused_training(fused):
                return step(batch)
        finally:
            _rows.reset(token)

    return strategy.run(on_replica, args=(batch,))


def all_reduce_gradients(grads):
    """Sums the gradients over the replicas, to those of the mean loss over the whole batch.

    Keras divides the mean over a replica's rows by the number of replicas, which gives examples of a replica with fewer
    rows a larger weight.

    Args:
        grads: list of the gradients of one replica, within its step; `None` stays `None`.

    Returns:
        A list of tensors without `tf.IndexedSlices`.
    """
    context = tf.distribute.get_replica_context()
    dense = [tf.convert_to_tensor(grad) for grad in grads if grad is not None]  # Converts IndexedSlices.
    rows = _rows.get()
    if context.num_replicas_in_sync > 1:
        if rows is not None:
            # Turns the mean over this replica's rows, divided by the replicas, into a share of the mean over all rows.
            share = tf.cast(rows, tf.float32) / context.all_reduce("SUM", tf.cast(rows, tf.float32))
            dense = [grad * tf.cast(share * context.num_replicas_in_sync, grad.dtype) for grad in dense]
        dense = context.all_reduce("SUM", dense)
    dense = iter(dense)
    return [None if grad is None else next(dense) for grad in grads]
