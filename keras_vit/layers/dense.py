"""The dense layers inside the layers of this room."""

import contextlib
import contextvars
import math

import keras
from keras import ops

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
