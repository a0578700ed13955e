"""Builds layers without initializing their weights, for checkpoints that overwrite them."""

import contextlib
import contextvars
import math

import keras
from keras import ops

_shared_zeros = contextvars.ContextVar("shared_zeros", default=None)


@contextlib.contextmanager
def skip_init():
    """Builds the kernels and tables of this library's layers without drawing random numbers.

    Drawing them would take as long as reading the file. Layers that are built outside this context, clones included,
    are initialized as usual.
    """
    initializer = SharedZeros()
    token = _shared_zeros.set(initializer)
    try:
        with _short_variable_names():
            yield
    finally:
        _shared_zeros.reset(token)
        initializer.close()


def skippable(initializer):
    """Returns the initializer, or one of shared zeros within `skip_init`."""
    return _shared_zeros.get() or initializer


@keras.saving.register_keras_serializable(package="keras_vit", name="Placeholder")  # the name that files hold
class SharedZeros(keras.initializers.Initializer):
    """Zeros for variables that a checkpoint fills at once.

    Writing zeros that a file overwrites would take as long as reading the file. So on TensorFlow the variables share
    one piece of memory; each gets its own as soon as it is assigned. PyTorch assigns in place, to all variables that
    share the memory, and JAX traces initializers of large variables: both get ordinary zeros.
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
        """Releases the memory, since layers keep their initializers."""
        self._zeros, self._views, self._closed = None, {}, True


@contextlib.contextmanager
def _short_variable_names():
    """Makes TensorFlow name a variable `kernel` instead of `encoder_block_0/mlp/fc1/kernel`.

    TensorFlow prepares one kernel for every name and shape of a new variable, half a millisecond each: a third of the
    time that a Swin-B takes to build. The paths of Keras' variables, which files use, do not change.
    """
    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    def create(next_creator, name=None, **arguments):
        # TensorFlow takes a name with a trailing slash as it is, without the scopes around it.
        return next_creator(name=name and name.rstrip("/") + "/", **arguments)

    with tf.variable_creator_scope(create):
        yield
