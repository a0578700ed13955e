"""The activations of the family by name."""

import keras
from keras import ops

from keras_vit.backend.ops import gelu


def gelu_tanh(x):
    """Computes the tanh approximation of GELU, Flax' default (Hendrycks and Gimpel, arXiv:1606.08415)."""
    return keras.activations.gelu(x, approximate=True)


def quick_gelu(x):
    """Computes `x * sigmoid(1.702 x)`, as in OpenAI's CLIP."""
    return x * ops.sigmoid(1.702 * x)


def swiglu(x):
    """Gates the second half of the channels with the SiLU of the first (Shazeer, arXiv:2002.05202)."""
    gate, value = ops.split(x, 2, axis=-1)
    return keras.activations.silu(gate) * value


ACTIVATIONS = {"gelu": gelu, "gelu_tanh": gelu_tanh, "quick_gelu": quick_gelu, "swiglu": swiglu}
