"""The activations of the family by name."""

import math

import keras
from keras import ops


def gelu(x):
    """Exact GELU, `x * Phi(x)`, written with `erf` and computed in float32 under every dtype policy.

    Backends may write it with `erfc`, which has no ONNX counterpart and makes an export silently invalid, and
    which is slow in half precision on a CPU; there `1 + erf` would cancel for negative inputs.
    """
    wide = ops.cast(x, "float32")
    # LiteRT's converter makes its exact GELU of this order alone; TensorFlow fuses it, like others, into the matrix
    # product before it.
    return ops.cast((0.5 * wide) * (1.0 + ops.erf(wide * math.sqrt(0.5))), x.dtype)


def gelu_tanh(x):
    """The tanh approximation of GELU, Flax' default (Hendrycks and Gimpel, arXiv:1606.08415)."""
    return keras.activations.gelu(x, approximate=True)


def quick_gelu(x):
    """`x * sigmoid(1.702 x)`, as in OpenAI's CLIP."""
    return x * ops.sigmoid(1.702 * x)


ACTIVATIONS = {"gelu": gelu, "gelu_tanh": gelu_tanh, "quick_gelu": quick_gelu, "swiglu": keras.activations.silu}
