"""Matrices that a file has the other way round, turned while the model is being built."""

import concurrent.futures
import contextlib

import keras
import numpy as np
from keras import ops

from keras_vit.weights.layouts.base import count, is_head
from keras_vit.weights.layouts.transforms import TRANSPOSED


@contextlib.contextmanager
def turning(checkpoint, layout, config, dtype=None):
    """While the model is being built in its context, the matrices are turned that a file has the other way round.

    Building is Python's work and turning the backend's, so that two cores share them. TensorFlow only: JAX turns
    asynchronously, and PyTorch turns as it copies.

    Args:
        checkpoint, layout: as for `fill`.
        config: of the model to be filled.
        dtype: of the model, as for `keras.layers.Layer`. Variables of less than float32 are left to `fill`, which
            needs one float32 matrix at a time.

    Yields:
        Dict from key to the future of a tensor or `None`, for `fill`. At the end of the context all are done.
    """
    if keras.config.backend() != "tensorflow" or _variable_dtype(dtype) != "float32":
        yield {}
        return
    checkpoint = layout.unpack(checkpoint)
    keys = [item.theirs[0] for item in count(layout.table(config), config) if is_turned(item) and not is_head(item)]

    def turn(key):
        array = checkpoint[key]
        with keras.device("cpu"):  # Scopes of devices do not reach into threads; on the host it fits in any case.
            return turned_matrix(array) if array.dtype == np.float32 else None

    pool = concurrent.futures.ThreadPoolExecutor(1)
    try:
        yield {key: pool.submit(turn, key) for key in keys if key in checkpoint}
    except BaseException:
        pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown()


def _variable_dtype(dtype):
    return (keras.dtype_policies.get(dtype) if dtype else keras.config.dtype_policy()).variable_dtype


def is_turned(item):
    """Returns whether a rule is one matrix on both sides, turned."""
    return item.transform is TRANSPOSED and len(item.ours) == len(item.theirs) == 1


def turned_matrix(array):
    """The tensor of a transposed array: the backend turns many times faster than NumPy."""
    return ops.transpose(ops.convert_to_tensor(array))
