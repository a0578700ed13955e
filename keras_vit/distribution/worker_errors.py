"""Errors of TensorFlow after the loss of a worker."""

import contextlib
import re

import tensorflow as tf

from keras_vit.training.loop.preemption import Preempted

# TensorFlow has no error class for a lost worker: whichever collective operation comes next fails with such a message.
_LOST_WORKER = re.compile("Collective ops is aborted|coordination service|CoordinationService|heartbeat", re.IGNORECASE)


@contextlib.contextmanager
def raise_on_lost_worker():
    """A context, or a decorator, in which the loss of another worker raises `Preempted`.

    TensorFlow lets no worker join a run again. It notices a loss at once if a connection breaks, else after about ten
    seconds without a heartbeat; then every collective operation fails.
    """
    try:
        yield
    except tf.errors.OpError as error:
        if not _LOST_WORKER.search(error.message or ""):
            raise
        raise Preempted("lost a worker; restart all workers to resume from the last checkpoint") from error
