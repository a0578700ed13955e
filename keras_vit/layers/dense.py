"""The dense layers inside the layers of this room."""

import contextlib
import contextvars

import keras

_WEIGHTS_FOLLOW = contextvars.ContextVar("weights_follow", default=False)


@contextlib.contextmanager
def weights_follow():
    """Inside it, dense sublayers are built of zeros: a checkpoint fills them at once.

    Drawing random numbers would take as long as reading the file. Layers that are built outside it, clones among
    them, draw theirs as ever.
    """
    token = _WEIGHTS_FOLLOW.set(True)
    try:
        yield
    finally:
        _WEIGHTS_FOLLOW.reset(token)


def initial(initializer):
    """An initializer, or zeros where weights follow."""
    return "zeros" if _WEIGHTS_FOLLOW.get() else initializer


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
        dtype=parent.dtype_policy,
        name=name,
    )
