"""The activations against formulas of the standard library."""

import math

import keras
import numpy as np
import pytest

from keras_vit.layers import MLP
from keras_vit.layers.core.activations import ACTIVATIONS

X = np.linspace(-6, 6, 97, dtype="float32")
FORMULAS = {
    "gelu": lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "quick_gelu": lambda x: x / (1 + math.exp(-1.702 * x)),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_equals_the_formula(name):
    expected = [FORMULAS[name](float(x)) for x in X]
    np.testing.assert_allclose(ACTIVATIONS[name](keras.ops.convert_to_tensor(X)), expected, atol=1e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 2**-6), ("float16", 2**-9)])
def test_gelu_keeps_the_negative_tail_in_half_precision(dtype, tolerance):
    x = keras.ops.cast(np.linspace(-3, -0.5, 50), dtype)
    expected = [FORMULAS["gelu"](float(v)) for v in keras.ops.cast(x, "float32")]
    np.testing.assert_allclose(keras.ops.cast(ACTIVATIONS["gelu"](x), "float32"), expected, rtol=2 * tolerance)


def test_every_activation_is_tested():
    assert {*FORMULAS, "swiglu"} == set(ACTIVATIONS)


def test_swiglu_gates_with_the_first_half():
    layer = MLP(4, "swiglu")
    x = np.random.default_rng(0).normal(size=(2, 3, 6)).astype("float32")
    layer.build(x.shape)
    gate, value = np.split(x @ layer.dense_1.kernel.numpy(), 2, axis=-1)
    expected = (gate / (1 + np.exp(-gate)) * value) @ layer.dense_2.kernel.numpy()
    np.testing.assert_allclose(layer(x), expected, atol=1e-5)


def test_unknown_activation_names_the_nearest():
    with pytest.raises(ValueError, match=r"activation.*'quick_gelu'.*'quickgelu'"):
        MLP(4, "quickgelu")


def test_width_is_checked():
    with pytest.raises(ValueError, match="mlp_dim=0"):
        MLP(0)
