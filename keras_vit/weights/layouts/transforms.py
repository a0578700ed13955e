"""Transforms between our arrays and those of other libraries' files, in both directions.

A transform knows one pair of ways: `load` from the source's arrays to ours, `save` back. Both are exact: they
move values and compute none.
"""

import dataclasses
import typing

import ml_dtypes
import numpy as np


@dataclasses.dataclass(frozen=True)
class Transform:
    """A bijection between arrays of a source and one of ours.

    Args:
        load: callable of the source's array and the model's config; gives ours.
        save: callable of our array and the config; gives the source's.
    """

    load: typing.Callable
    save: typing.Callable


def _checked_heads(array, axis, config):
    if array.shape[axis] != config.num_heads:
        raise ValueError(f"there must be {config.num_heads} heads. Received: {array.shape[axis]}")
    return array


def _vector(array, config):
    if array.shape[:-1] not in ((), (1, 1, 1)):
        raise ValueError(f"a vector has one axis, or three of one in front. Received: shape={array.shape}")
    return array.reshape(-1)


SAME = Transform(lambda a, config: a, lambda a, config: a)
# PyTorch's linear layers are (out, in).
TRANSPOSED = Transform(lambda a, config: a.T, lambda a, config: a.T)
# Kernels of the patches: ours is the matrix (ph * pw * channels, hidden_dim).
CONV_OIHW = Transform(
    lambda a, config: a.transpose(2, 3, 1, 0).reshape(-1, a.shape[0]),
    lambda a, config: a.reshape(*config.patch_size, -1, a.shape[-1]).transpose(3, 2, 0, 1),
)
CONV_HWIO = Transform(
    lambda a, config: a.reshape(-1, a.shape[-1]),
    lambda a, config: a.reshape(*config.patch_size, -1, a.shape[-1]),
)
# The axes of a kernel as the file has it that are a patch's height and width.
PATCH_AXES = {CONV_OIHW: (2, 3), CONV_HWIO: (0, 1)}
# Kernels of convolutions, which are ours as they are Flax'.
KERNEL_OIHW = Transform(
    lambda a, config: a.transpose(2, 3, 1, 0),
    lambda a, config: a.transpose(3, 2, 0, 1),
)
# Google's vectors of group norms have three leading axes of one; newer versions of Flax leave them away.
GROUP_NORM = Transform(_vector, lambda a, config: a[None, None, None])
# Flax keeps the heads as an axis: (in, heads, head_dim) before the attention, (heads, head_dim, out) behind it.
HEADS_LAST = Transform(
    lambda a, config: _checked_heads(a, -2, config).reshape(*a.shape[:-2], -1),
    lambda a, config: a.reshape(*a.shape[:-1], config.num_heads, -1),
)
HEADS_FIRST = Transform(
    lambda a, config: _checked_heads(a, 0, config).reshape(-1, a.shape[-1]),
    lambda a, config: a.reshape(config.num_heads, -1, a.shape[-1]),
)
# Tables without our leading axis of one.
NO_BATCH = Transform(lambda a, config: a[None], lambda a, config: a[0])
VECTOR_TOKEN = Transform(lambda a, config: a[None, None], lambda a, config: a[0, 0])


def check_exact(values, path):
    """Raises a `ValueError` that names the array if it holds NaN or infinity in float32, or no floats at all."""
    if values.dtype.kind != "f" and values.dtype != ml_dtypes.bfloat16:
        raise ValueError(f"weights must be floating-point. Received: {path!r} of dtype {values.dtype}")
    with np.errstate(over="ignore", invalid="ignore"):
        values = np.ravel(np.asarray(values, "float32"), order="K")
        # The sum of the squares is finite only if all values are; that it may overflow needs the second look.
        if np.isfinite(np.dot(values, values)):
            return
    count = int((~np.isfinite(values)).sum())
    if count:
        raise ValueError(f"weights must be finite. Received: {path!r} with {count} NaN or infinite values")
