"""The dense layers inside the layers of this room."""

import contextlib
import contextvars
import math

import keras
from keras import ops

from keras_vit.backend.runtime import quick_variables, splits_bias
from keras_vit.backend.xla_kernels import fused_bias, fuses

_PLACEHOLDER = contextvars.ContextVar("placeholder", default=None)


@keras.saving.register_keras_serializable(package="keras_vit")
class Placeholder(keras.initializers.Initializer):
    """Zeros for variables that a checkpoint fills at once.

    Writing zeros that a file overwrites would take as long as reading the file. So the variables share one piece of
    memory on TensorFlow, which gives each its own as soon as it is assigned. They are ordinary zeros on PyTorch, which
    assigns in place, to all that share the memory, and on JAX, which traces initializers of large variables.
    """

    def __init__(self):
        self._zeros, self._views, self._closed = None, {}, False

    def __call__(self, shape, dtype=None):
        if self._closed or keras.config.backend() != "tensorflow":
            return ops.zeros(shape, dtype)
        shape, size = tuple(shape), math.prod(shape)
        if self._zeros is None or self._zeros.shape[0] < size or self._zeros.dtype != dtype:
            self._zeros, self._views = ops.zeros(size, dtype), {}
        if shape not in self._views:
            self._views[shape] = ops.reshape(self._zeros[:size], shape)
        return self._views[shape]

    def close(self):
        """Lets go of the memory: layers keep their initializers."""
        self._zeros, self._views, self._closed = None, {}, True


@contextlib.contextmanager
def weights_follow():
    """Inside it, the kernels and tables of this library's layers are built of placeholders.

    Drawing random numbers would take as long as reading the file. Layers that are built outside it, clones of this
    library's among them, draw theirs as ever.
    """
    placeholder = Placeholder()
    token = _PLACEHOLDER.set(placeholder)
    try:
        with quick_variables():
            yield
    finally:
        _PLACEHOLDER.reset(token)
        placeholder.close()


def initial(initializer):
    """An initializer, or a placeholder where weights follow."""
    return _PLACEHOLDER.get() or initializer


def dense(parent, name, units, kernel_initializer="glorot_uniform", use_bias=True):
    """A dense sublayer with the dtype policy of its parent.

    Args:
        parent: the layer that it is part of.
        name: str.
        units: int.
        kernel_initializer: as for `keras.layers.Dense`. Default `glorot_uniform`.
        use_bias: bool. Default True.
    """
    return keras.layers.Dense(
        units,
        use_bias=use_bias,
        kernel_initializer=initial(kernel_initializer),
        bias_initializer=initial("zeros"),
        dtype=parent.dtype_policy,
        name=name,
    )


def is_plain(dense):
    """Whether a dense layer is nothing but a product and a bias: neither quantized nor with LoRA."""
    return dense.quantization_mode is None and not dense.lora_enabled


def on_rows(dense, rows):
    """What a dense layer makes of the rows of a matrix, computed in the fastest way that is known.

    Args:
        dense: from `dense`.
        rows: tensor `(rows, width)`.

    Returns:
        Tensor `(rows, units)`.
    """
    if not has_bias(dense):
        return dense(rows)
    if fuses():
        return fused_bias(ops.matmul(rows, dense.kernel), dense.bias)
    if not splits_bias(dense.compute_dtype):
        return dense(rows)
    # Nothing but this keeps TensorFlow from making one operation of the product and its bias.
    product = ops.reshape(ops.matmul(rows, dense.kernel), (-1, 1, dense.units)) + dense.bias
    return ops.reshape(product, (-1, dense.units))


def has_bias(dense):
    """Whether a dense layer is a product and a bias, and nothing but these."""
    return dense.use_bias and is_plain(dense)
