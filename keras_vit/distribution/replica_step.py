"""A step on every replica, and the sum of its gradients, in which every example counts alike."""

import contextvars

import keras
import tensorflow as tf

from keras_vit.backend.xla_kernels import fused_training, is_fused

# The rows of the batch that the step of this replica is working on: a scalar tensor, or `None` where all have as many.
_rows = contextvars.ContextVar("rows", default=None)


def count_rows(batch):
    """The rows of a batch: an int where they are known, else a scalar tensor."""
    first = next(column for column in keras.tree.flatten(batch) if column is not None)
    return tf.shape(first)[0] if first.shape[0] is None else first.shape[0]


def on_replicas(strategy, step, batch):
    """A step on every replica.

    Args:
        strategy: `tf.distribute.Strategy`.
        step: callable from a batch, in which `summed` and `fused_training` know what they must.
        batch: of a distributed data set, or a batch for every replica.

    Returns:
        What `strategy.run` returns.
    """
    # The threads of replicas do not inherit variables of context.
    fused = is_fused()

    def on_replica(batch):
        batch = keras.tree.map_structure(lambda x: None if isinstance(x, tf.experimental.Optional) else x, batch)
        rows = count_rows(batch)
        # In a graph a number that is known is that of every replica; eagerly it is known of any batch.
        are_alike = isinstance(rows, int) and not tf.executing_eagerly()
        token = _rows.set(None if are_alike else tf.convert_to_tensor(rows))
        try:
            with fused_training(fused):
                return step(batch)
        finally:
            _rows.reset(token)

    return strategy.run(on_replica, args=(batch,))


def summed(grads):
    """The gradients of the whole batch: their sum over the replicas.

    Keras divides the mean over the rows of a replica by the number of replicas; where these have different numbers of
    rows, that weighs their examples differently.

    Args:
        grads: list of a replica's gradients, within its step; `None` stays `None`.

    Returns:
        A list of tensors, no `tf.IndexedSlices`.
    """
    context = tf.distribute.get_replica_context()
    known = [tf.convert_to_tensor(grad) for grad in grads if grad is not None]  # no IndexedSlices
    rows = _rows.get()
    if context.num_replicas_in_sync > 1:
        if rows is not None:
            # What the mean over the rows of this replica must be multiplied with.
            share = tf.cast(rows, tf.float32) / context.all_reduce("SUM", tf.cast(rows, tf.float32))
            known = [grad * tf.cast(share * context.num_replicas_in_sync, grad.dtype) for grad in known]
        known = context.all_reduce("SUM", known)
    known = iter(known)
    return [None if grad is None else next(known) for grad in grads]
