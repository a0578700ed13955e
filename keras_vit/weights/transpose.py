"""Transposes the kernels of a checkpoint in a background thread while the model is built."""

import concurrent.futures
import contextlib

import keras
import numpy as np
from keras import ops

from keras_vit.weights.layouts.base import expand_blocks, is_head
from keras_vit.weights.layouts.transforms import TRANSPOSED


@contextlib.contextmanager
def transpose_in_background(checkpoint, layout, config, dtype=None):
    """Transposes kernels that the file stores as (out, in) while the model is built in this context.

    Building runs in Python and transposing in the backend, so that two cores share the work. TensorFlow only: JAX
    transposes asynchronously, and PyTorch while it copies.

    Args:
        checkpoint, layout: as for `assign_weights`.
        config: of the model to load.
        dtype: of the model, as for `keras.layers.Layer`. Variables in lower precision are left to
            `assign_weights`, which needs one float32 matrix at a time.

    Yields:
        Dict from key to the future of a tensor or `None`, for `assign_weights`. All are done when the context ends.
    """
    if keras.config.backend() != "tensorflow" or _variable_dtype(dtype) != "float32":
        yield {}
        return
    checkpoint = layout.unpack(checkpoint)
    keys = [
        item.theirs[0]
        for item in expand_blocks(layout.table(config), config)
        if is_single_transpose(item) and not is_head(item)
    ]

    def transpose(key):
        array = checkpoint[key]
        with keras.device("cpu"):  # Device scopes do not reach into threads; host memory is large enough.
            return transpose_matrix(array) if array.dtype == np.float32 else None

    pool = concurrent.futures.ThreadPoolExecutor(1)
    try:
        yield {key: pool.submit(transpose, key) for key in keys if key in checkpoint}
    except BaseException:
        pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown()


def _variable_dtype(dtype):
    return (keras.dtype_policies.get(dtype) if dtype else keras.config.dtype_policy()).variable_dtype


def is_single_transpose(item):
    """Returns whether a rule is one matrix on both sides, transposed."""
    return item.transform is TRANSPOSED and len(item.ours) == len(item.theirs) == 1


def transpose_matrix(array):
    """Transposes a matrix in the backend, many times faster than NumPy; returns a tensor."""
    return ops.transpose(ops.convert_to_tensor(array))
