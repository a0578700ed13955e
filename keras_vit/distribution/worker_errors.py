"""What becomes of a worker when another one of its run is gone."""

import contextlib
import re

import tensorflow as tf

from keras_vit.training.loop.preemption import Preempted

# TensorFlow has no class of errors for it: any of what it does in common fails, with a word of either kind.
_GONE = re.compile("Collective ops is aborted|coordination service|CoordinationService|heartbeat", re.IGNORECASE)


@contextlib.contextmanager
def raise_on_lost_worker():
    """A context in which the end of another worker raises `Preempted`: all are to be started again.

    TensorFlow lets nobody come back into a run. It notices an end where a connection breaks, or after some ten seconds
    without a heartbeat; then everything fails that workers do together.
    """
    try:
        yield
    except tf.errors.OpError as error:
        if not _GONE.search(error.message or ""):
            raise
        raise Preempted(
            "another worker of the run is gone; start all of them again, and they go on from the last save"
        ) from error
