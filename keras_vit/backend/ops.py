"""Operations of the layers, each in the fastest form for the active backend and mode.

Layers call them by neutral names. Where nothing else applies they are plain `keras.ops`. Inside `fused_training` they
are XLA programs (`xla_kernels`), inside `portable_graph` they have the form that ONNX, LiteRT and OpenVINO recognize.
Results are the same up to rounding.
"""

import math

import keras
import numpy as np
from keras import ops

from keras_vit.backend import xla_kernels
from keras_vit.backend.export_mode import is_portable
from keras_vit.backend.runtime import has_flash_attention, prefers_separate_bias
from keras_vit.backend.xla_kernels import is_fused


def softmax(logits, dtype):
    """Computes the softmax over the last axis in float32.

    Args:
        logits: float tensor.
        dtype: str. Of the result.
    """
    if is_fused():
        return xla_kernels.softmax(logits, dtype)
    return ops.cast(ops.softmax(ops.cast(logits, "float32"), axis=-1), dtype)


def layer_norm(x, gamma, beta, epsilon, dtype):
    """Computes `(x - mean) / sqrt(variance + epsilon) * gamma + beta` over the last axis, in float32.

    Args:
        x: float tensor `(..., channels)`.
        gamma, beta: tensors `(channels,)`.
        epsilon: float.
        dtype: str. Of the result.
    """
    if is_fused():
        return xla_kernels.layer_norm(x, gamma, beta, epsilon)
    centered = ops.cast(x, "float32")
    centered = centered - ops.mean(centered, axis=(-1,), keepdims=True)
    if is_portable():  # ONNX Runtime and OpenVINO recognize this form and run one kernel
        normed = centered / ops.sqrt(ops.mean(ops.power(centered, 2.0), axis=(-1,), keepdims=True) + epsilon)
    else:
        normed = centered * ops.rsqrt(ops.mean(centered * centered, axis=-1, keepdims=True) + epsilon)
    return ops.cast(normed * ops.cast(gamma, "float32") + ops.cast(beta, "float32"), dtype)


def gelu(x):
    """Computes the exact GELU, `x * Phi(x)`, with `erf` and in float32 under every dtype policy.

    Backends may use `erfc`, which has no ONNX counterpart and makes an export silently invalid, and which is slow in
    half precision on a CPU; there `1 + erf` would cancel for negative inputs.
    """
    wide = ops.cast(x, "float32")
    # LiteRT's converter recognizes its exact GELU in this order only; TensorFlow fuses it, as it does others, into the
    # matrix product before it.
    return ops.cast((0.5 * wide) * (1.0 + ops.erf(wide * math.sqrt(0.5))), x.dtype)


def linear(dense, inputs, activation=None):
    """Computes `activation(inputs @ kernel + bias)`.

    Args:
        dense: built `keras.layers.Dense` without an activation; it may be quantized or have LoRA.
        inputs: tensor `(..., width)`. A matrix is fastest, as it needs no reshaping.
        activation: callable or `None`. `gelu` is fused with the bias.

    Returns:
        Tensor `(..., units)`.
    """
    # A matrix: only then TensorFlow fuses product, bias and GELU into one kernel.
    is_matrix = len(inputs.shape) == 2
    x = inputs if is_matrix else ops.reshape(inputs, (-1, inputs.shape[-1]))
    if activation is gelu and is_fused() and _is_affine(dense):
        x = xla_kernels.bias_gelu(ops.matmul(x, dense.kernel), dense.bias)
    else:
        x = _affine(dense, x)
        x = x if activation is None else activation(x)
    return x if is_matrix else ops.reshape(x, (*ops.shape(inputs)[:-1], x.shape[-1]))


def _affine(dense, x):
    """`x @ kernel + bias` of a matrix."""
    if not _is_affine(dense):
        return dense(x)
    if is_fused():
        return xla_kernels.bias_add(ops.matmul(x, dense.kernel), dense.bias)
    if not prefers_separate_bias(dense.compute_dtype):
        return dense(x)
    # The reshapes keep TensorFlow from fusing the product with the bias.
    product = ops.reshape(ops.matmul(x, dense.kernel), (-1, 1, dense.units)) + dense.bias
    return ops.reshape(product, (-1, dense.units))


def _is_affine(dense):
    """Returns whether a dense layer is a product and a bias only: neither quantized nor with LoRA."""
    return dense.use_bias and dense.quantization_mode is None and not dense.lora_enabled


def project_to_heads(dense, tokens, num_heads, scales):
    """Projects tokens, splits the result into equal tensors and these into heads.

    The projection is split before the heads are: a CPU trains faster on contiguous blocks than on slices of a
    `(3, batch, heads, ...)` tensor.

    Args:
        dense: as for `linear`, of `len(scales) * width` units: for example queries, keys and values, each with its
            heads side by side.
        tokens: tensor `(batch, length, hidden_dim)`.
        num_heads: int.
        scales: tuple of floats. The factor of each resulting tensor.

    Returns:
        List of `len(scales)` tensors `(batch, num_heads, length, width / num_heads)`.
    """
    length, x = ops.shape(tokens)[1], ops.reshape(tokens, (-1, tokens.shape[-1]))
    if is_fused() and _is_affine(dense):
        return xla_kernels.split_heads(ops.matmul(x, dense.kernel), dense.bias, scales, length, num_heads)
    parts = ops.split(linear(dense, x), len(scales), axis=-1)
    heads = [ops.reshape(part, (-1, length, num_heads, part.shape[-1] // num_heads)) for part in parts]
    heads = [x if scale == 1 else x * scale for x, scale in zip(heads, scales, strict=True)]
    return [ops.transpose(x, (0, 2, 1, 3)) for x in heads]


def project_from_heads(dense, heads):
    """Merges heads and projects them: the inverse of `project_to_heads` for one tensor.

    Args:
        dense: as for `linear`.
        heads: tensor `(batch, num_heads, length, head_dim)`.

    Returns:
        Tensor `(batch, length, units)`.
    """
    length, width = ops.shape(heads)[2], heads.shape[1] * heads.shape[3]
    x = ops.reshape(ops.transpose(heads, (0, 2, 1, 3)), (-1, width))
    return ops.reshape(linear(dense, x), (-1, length, dense.units))


def flash_attention(query, key, value):
    """Computes `softmax(query @ key^T) @ value` with a fused kernel of the backend.

    Args:
        query: tensor `(batch, heads, queries, head_dim)`, scaled.
        key, value: tensors `(batch, heads, keys, head_dim)`.

    Returns:
        Tensor `(batch, heads, queries, head_dim)`, or `None` if the backend has no such kernel.
    """
    if not has_flash_attention():
        return None
    query, key, value = (ops.transpose(x, (0, 2, 1, 3)) for x in (query, key, value))
    return ops.transpose(ops.dot_product_attention(query, key, value, scale=1.0), (0, 2, 1, 3))


def roll_grid(grid, shift, training=False):
    """Shifts a grid cyclically.

    LiteRT has no roll, and TensorFlow gathers tokens as fast as it rolls them, so a model that is not being trained
    gathers. The gradient of a gather is slower than that of a roll.

    Args:
        grid: tensor `(batch, h, w, channels)`.
        shift: `(h, w)`, numbers of rows and columns; negative: upwards and to the left.
        training: bool.

    Returns:
        Tensor of the shape of `grid`.
    """
    if not any(shift):
        return grid
    if training or keras.backend.backend() != "tensorflow":
        return ops.roll(grid, tuple(shift), axis=(1, 2))
    _, height, width, channels = grid.shape
    rows, columns = ((np.arange(side) - by) % side for side, by in zip((height, width), shift, strict=True))
    # Added up in the graph: a table of all tokens would be a large constant.
    order = ops.reshape(ops.add((rows * width).astype("int32")[:, None], columns.astype("int32")), (-1,))
    tokens = ops.take(ops.reshape(grid, (-1, height * width, channels)), order, axis=1)
    return ops.reshape(tokens, (-1, height, width, channels))
