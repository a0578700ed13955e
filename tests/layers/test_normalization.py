"""Layer normalization against NumPy and against the layer of Keras that it replaces."""

import keras
import numpy as np
import pytest

from keras_vit.layers import LayerNormalization

X = np.random.default_rng(8).normal(3, 2, size=(2, 5, 16)).astype("float32")


def _pair(**fields):
    """Our layer and that of Keras with the same random weights."""
    layers = LayerNormalization(**fields), keras.layers.LayerNormalization(**fields)
    for layer in layers:
        layer.build(X.shape)
        layer.gamma.assign(keras.random.normal((16,), 1.0, 0.2, seed=0))
        layer.beta.assign(keras.random.normal((16,), 0.0, 0.2, seed=1))
    return layers


@pytest.mark.parametrize("epsilon", [1e-6, 0.5])
def test_equals_the_formula(epsilon):
    layer, _ = _pair(epsilon=epsilon)
    normed = (X - X.mean(-1, keepdims=True)) / np.sqrt(X.var(-1, keepdims=True) + epsilon)
    np.testing.assert_allclose(layer(X), normed * layer.gamma.numpy() + layer.beta.numpy(), atol=1e-5)


@pytest.mark.parametrize(("policy", "atol"), [("float32", 1e-5), ("mixed_bfloat16", 0.05), ("mixed_float16", 0.01)])
def test_equals_keras(policy, atol):
    ours, theirs = (keras.ops.cast(layer(X), "float32") for layer in _pair(epsilon=1e-6, dtype=policy))
    np.testing.assert_allclose(ours, theirs, atol=atol)


def test_gradients_equal_those_of_keras():
    import tensorflow as tf

    target, gradients = tf.constant(X[::-1].copy()), []
    for layer in _pair(epsilon=1e-6):
        x = tf.Variable(X)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(layer(x) - target))
        gradients.append(tape.gradient(loss, [x, layer.gamma.value, layer.beta.value]))
    for ours, theirs in zip(*gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_statistics_in_float16_do_not_overflow():
    # The squares of such values are beyond float16's 65,504.
    x = np.array([[-1000.0, 1000.0]], "float16")
    np.testing.assert_allclose(keras.ops.cast(LayerNormalization(dtype="float16")(x), "float32"), [[-1, 1]], atol=1e-3)


def test_default_epsilon_is_that_of_vision_transformers():
    assert LayerNormalization().epsilon == 1e-6


@pytest.mark.parametrize(("argument", "value"), [("axis", 1), ("center", False), ("scale", False)])
def test_unsupported_arguments_raise(argument, value):
    with pytest.raises(ValueError, match=f"Received:.*{argument}={value}"):
        LayerNormalization(**{argument: value})
