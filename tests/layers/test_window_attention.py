"""Window attention: against a NumPy reference, its masks, and its precision."""

import keras
import numpy as np
import pytest

from keras_vit.layers import WindowAttention
from keras_vit.layers.swin.window_attention import unit_vectors
from keras_vit.layers.swin.windows import log_coordinates, relative_position_index
from keras_vit.layers.vit.attention import attention

INPUTS = np.random.default_rng(3).normal(size=(4, 6, 16)).astype("float32")
MASK = np.where(np.random.default_rng(5).random((2, 6, 6)) < 0.4, -100, 0).astype("float32")
MASK[:, range(6), range(6)] = 0


def _layer(**fields):
    layer = WindowAttention(4, (2, 3), **fields)
    layer.build(INPUTS.shape)
    for seed, weight in enumerate(layer.weights):
        weight.assign(keras.random.normal(weight.shape, stddev=0.3, seed=seed))
    if layer.version == 2:  # one head above the clamp
        layer.logit_scale.assign(np.log([5, 10, 20, 400]).astype("float32").reshape(4, 1, 1))
    return layer


def _softmax(x):
    x = np.exp(x - x.max(axis=-1, keepdims=True))
    return x / x.sum(axis=-1, keepdims=True)


def _bias(layer, head):
    """The bias of one head, pair by pair."""
    if layer.version == 1:
        table = layer.relative_position_bias_table.numpy()
    else:
        coordinates = log_coordinates((2, 3), layer.pretrained_window_size or (2, 3))
        inner = coordinates @ layer.cpb_kernel_1.numpy() + layer.cpb_bias_1.numpy()
        table = 16 / (1 + np.exp(-np.maximum(inner, 0) @ layer.cpb_kernel_2.numpy()))
    return table[relative_position_index((2, 3)), head].reshape(6, 6)


def _reference(layer, inputs, mask):
    """Window by window and head by head, with no reshape that could hide a wrong order."""
    query, key, value = np.split(inputs @ layer.qkv.kernel.numpy(), 3, axis=-1)
    if layer.version == 1 and layer.qkv_bias:
        query, key, value = (
            x + b for x, b in zip((query, key, value), np.split(layer.qkv.bias.numpy(), 3), strict=True)
        )
    elif layer.qkv_bias:
        query, value = query + layer.query_bias.numpy(), value + layer.value_bias.numpy()
    outputs, probabilities = np.zeros_like(inputs), np.zeros((4, 4, 6, 6))
    for window in range(4):
        for head in range(4):
            part = slice(4 * head, 4 * head + 4)
            q, k, v = (x[window, :, part] for x in (query, key, value))
            if layer.version == 2:
                q, k = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (q, k))
                logits = q @ k.T * min(np.exp(layer.logit_scale.numpy()[head, 0, 0]), 100)
            else:
                logits = q @ k.T / 2
            logits = logits + _bias(layer, head) + (0 if mask is None else mask[window % 2])
            probabilities[window, head] = _softmax(logits)
            outputs[window, :, part] = probabilities[window, head] @ v
    return outputs @ layer.projection.kernel.numpy() + layer.projection.bias.numpy(), probabilities


@pytest.mark.parametrize("mask", [None, MASK], ids=["open", "masked"])
@pytest.mark.parametrize(
    "fields",
    [{}, {"qkv_bias": False}, {"version": 2}, {"version": 2, "qkv_bias": False, "pretrained_window_size": (4, 3)}],
    ids=str,
)
def test_equals_the_reference(fields, mask):
    layer = _layer(**fields)
    outputs, probabilities = layer(INPUTS, mask, return_attention=True)
    expected_outputs, expected_probabilities = _reference(layer, INPUTS, mask)
    np.testing.assert_allclose(probabilities, expected_probabilities, atol=1e-5)
    np.testing.assert_allclose(outputs, expected_outputs, atol=1e-5)
    np.testing.assert_array_equal(layer(INPUTS, mask), outputs)


@pytest.mark.parametrize("version", [1, 2])
def test_bias_is_float32_in_mixed_precision(version):
    mixed, full = _layer(version=version, dtype="mixed_bfloat16"), _layer(version=version)
    assert keras.backend.standardize_dtype(mixed.position_bias().dtype) == "float32"
    difference = np.abs(np.array(mixed(INPUTS), "float32") - np.array(full(INPUTS)))
    assert 0 < difference.max() < 0.1


def test_gradient_of_the_table_is_dense():
    import tensorflow as tf

    layer = _layer()
    with tf.GradientTape() as tape:
        loss = keras.ops.sum(keras.ops.square(layer(INPUTS)))
    assert isinstance(tape.gradient(loss, layer.relative_position_bias_table.value), tf.Tensor)


def test_unit_vectors_of_zeros_are_zero_and_so_is_the_gradient():
    import tensorflow as tf

    x = tf.Variable([[3.0, 4.0], [0.0, 0.0]])
    with tf.GradientTape() as tape:
        outputs = unit_vectors(x)
    np.testing.assert_allclose(outputs, [[0.6, 0.8], [0, 0]], atol=1e-6)
    gradient = tape.gradient(outputs, x, tf.constant([[1.0, 0.0], [1e6, 1e6]]))
    np.testing.assert_allclose(gradient, [[0.128, -0.096], [0, 0]], atol=1e-6)


def test_unit_vectors_are_quotients_to_the_last_digit():
    """As PyTorch rounds them: a cosine is multiplied by up to 100, and its last digits with it."""
    x = np.random.default_rng(0).normal(size=(500, 2)).astype("float32")
    np.testing.assert_array_equal(unit_vectors(x), x / np.sqrt(x[:, :1] * x[:, :1] + x[:, 1:] * x[:, 1:]))


def test_the_scale_of_version_2_multiplies_float32_logits():
    keys = np.array([0.01, 0.0105], "float16")
    query, key = (keras.ops.convert_to_tensor(x.reshape(1, 1, -1, 1)) for x in (np.full(1, 600, "float16"), keys))
    bias, scale = np.zeros((1, 1, 1, 2), "float32"), np.full((1, 1, 1), 1000, "float32")
    _, probabilities = attention(query, key, key, bias, scale / 1000, return_attention=True)
    np.testing.assert_allclose(np.ravel(probabilities), _softmax(600 * keys.astype("float32")), atol=1e-3)
    # 600,000 is infinite in float16.
    assert np.isfinite(attention(query, key, key, bias, scale, return_attention=True)[1]).all()


def test_new_version_2_starts_at_the_published_scale():
    layer = WindowAttention(4, 2, version=2)
    layer.build((None, 4, 16))
    np.testing.assert_allclose(np.exp(layer.logit_scale), 10, rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: WindowAttention(4, 2, version=3), "version=3"),
        (lambda: WindowAttention(4, (2, 0)), r"window_size=\(2, 0\)"),
        (lambda: WindowAttention(4, 2, pretrained_window_size=3), "version=2.*pretrained_window_size=3"),
        (lambda: WindowAttention(3, (2, 3))(INPUTS), "hidden_dim=16, num_heads=3"),
        (lambda: WindowAttention(4, 2)(INPUTS), "expected axis 1 of input shape to have value 4"),
    ],
)
def test_errors_state_the_rule(make, rule):
    with pytest.raises(ValueError, match=rule):
        make()
