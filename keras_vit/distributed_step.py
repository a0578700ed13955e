"""A step on every replica, and the gradients of the whole batch of which each has a part."""

import contextvars

import keras
import tensorflow as tf

from keras_vit.fused import fused_training, fuses

# The rows of the batch that the step of this replica is working on: a scalar tensor, or `None` where all have as many.
_rows = contextvars.ContextVar("rows", default=None)


def count_rows(batch):
    """The rows of a batch: an int where they are known, else a scalar tensor."""
    first = next(column for column in keras.tree.flatten(batch) if column is not None)
    return tf.shape(first)[0] if first.shape[0] is None else first.shape[0]


def on_replicas(strategy, step, batch):
    """A step on every replica. Their threads do not inherit the variables of context that this library reads."""
    fusing = fuses()

    def on_replica(batch):
        batch = keras.tree.map_structure(lambda x: None if isinstance(x, tf.experimental.Optional) else x, batch)
        rows = count_rows(batch)
        token = _rows.set(None if isinstance(rows, int) else rows)
        try:
            with fused_training(fusing):
                return step(batch)
        finally:
            _rows.reset(token)

    return strategy.run(on_replica, args=(batch,))


def summed(grads):
    """The gradients of the whole batch.

    Keras divides the mean over the rows of a replica by the number of replicas; where these have different numbers of
    rows, that weighs their examples differently.
    """
    context = tf.distribute.get_replica_context()
    known = [tf.convert_to_tensor(grad) for grad in grads if grad is not None]  # no IndexedSlices
    rows = _rows.get()
    if context.num_replicas_in_sync == 1:
        sums = known
    elif rows is None:
        sums = context.all_reduce("SUM", known)
    else:
        rows = tf.cast(rows, tf.float32)
        *sums, total = context.all_reduce("SUM", [*(grad * tf.cast(rows, grad.dtype) for grad in known), rows])
        scale = context.num_replicas_in_sync / total
        sums = [grad * tf.cast(scale, grad.dtype) for grad in sums]
    total_of = iter(sums)
    return [None if grad is None else next(total_of) for grad in grads]
