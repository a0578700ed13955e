"""The activations of the family by name."""

import math

import keras
from keras import ops


def gelu(x):
    """Exact GELU, `x * Phi(x)`, written with `erf`.

    Keras writes it with `erfc`, which has no ONNX counterpart and makes an export silently invalid. In
    half precision `1 + erf` cancels for negative inputs, so there Keras' form is kept.
    """
    if keras.backend.standardize_dtype(x.dtype) in ("bfloat16", "float16"):
        return keras.activations.gelu(x, approximate=False)
    return 0.5 * x * (1.0 + ops.erf(x * math.sqrt(0.5)))


def gelu_tanh(x):
    """The tanh approximation of GELU, Flax' default (Hendrycks and Gimpel, arXiv:1606.08415)."""
    return keras.activations.gelu(x, approximate=True)


def quick_gelu(x):
    """`x * sigmoid(1.702 x)`, as in OpenAI's CLIP."""
    return x * ops.sigmoid(1.702 * x)


ACTIVATIONS = {"gelu": gelu, "gelu_tanh": gelu_tanh, "quick_gelu": quick_gelu, "swiglu": keras.activations.silu}
