"""Attention: against a NumPy reference, in every precision, with and without its probabilities."""

import keras
import numpy as np
import pytest

from keras_vit.layers import AttentionPooling, Dropout, MultiHeadSelfAttention
from keras_vit.layers.vit.attention import attend

TOKENS = np.random.default_rng(3).normal(size=(2, 5, 16)).astype("float32")


def _layer(**fields):
    layer = MultiHeadSelfAttention(4, **fields)
    layer.build(TOKENS.shape)
    for seed, weight in enumerate(layer.weights):
        weight.assign(weight + keras.random.normal(weight.shape, stddev=0.3, seed=seed))
    return layer


def _softmax(x):
    x = np.exp(x - x.max(axis=-1, keepdims=True))
    return x / x.sum(axis=-1, keepdims=True)


def _normalize(x, norm):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + norm.epsilon)
    return x * norm.gamma.numpy() + norm.beta.numpy()


def _reference(layer, tokens):
    """Head by head, with no reshape that could hide a wrong order."""
    width = tokens.shape[-1] // layer.num_heads
    query, key, value = np.split(tokens @ layer.qkv.kernel.numpy() + layer.qkv.bias.numpy(), 3, axis=-1)
    outputs, probabilities = [], []
    for head in range(layer.num_heads):
        q, k, v = (x[..., head * width : (head + 1) * width] for x in (query, key, value))
        if layer.qk_norm:
            q, k = _normalize(q, layer.query_norm), _normalize(k, layer.key_norm)
        probabilities.append(_softmax(q @ k.transpose(0, 2, 1) / np.sqrt(width)))
        outputs.append(probabilities[-1] @ v)
    outputs = np.concatenate(outputs, axis=-1) @ layer.projection.kernel.numpy() + layer.projection.bias.numpy()
    return outputs, np.stack(probabilities, axis=1)


@pytest.mark.parametrize("qk_norm", [False, True])
def test_equals_the_reference(qk_norm):
    layer = _layer(qk_norm=qk_norm)
    outputs, attention = layer(TOKENS, return_attention=True)
    expected_outputs, expected_attention = _reference(layer, TOKENS)
    np.testing.assert_allclose(outputs, expected_outputs, atol=1e-5)
    np.testing.assert_allclose(attention, expected_attention, atol=1e-5)


def test_rows_of_the_attention_sum_to_one():
    _, attention = _layer()(TOKENS, return_attention=True)
    assert attention.shape == (2, 4, 5, 5)
    np.testing.assert_allclose(np.sum(attention, axis=-1), 1, atol=1e-6)


def test_outputs_are_the_same_with_and_without_attention():
    layer = _layer(qk_norm=True)
    np.testing.assert_array_equal(layer(TOKENS), layer(TOKENS, return_attention=True)[0])


def test_symbolic_outputs_with_attention():
    outputs, attention = _layer()(keras.KerasTensor((None, 5, 16)), return_attention=True)
    assert (outputs.shape, attention.shape) == ((None, 5, 16), (None, 4, 5, 5))


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 2**-8), ("float16", 2**-11)])
def test_softmax_runs_in_float32(dtype, tolerance):
    # 300 keys at nearly one logit: summed in bfloat16 the denominator would stick at 256.
    rng = np.random.default_rng(0)
    query, key = (keras.ops.cast(rng.normal(scale=0.05, size=(1, 300, 1, 4)), dtype) for _ in "qk")
    value = keras.ops.ones((1, 300, 1, 4), dtype)
    _, attention = attend(query, key, value, return_attention=True)
    wide = [keras.ops.cast(x, "float32") for x in (query, key, value)]
    _, expected = attend(*wide, return_attention=True)
    assert keras.backend.standardize_dtype(attention.dtype) == dtype
    np.testing.assert_allclose(keras.ops.cast(attention, "float32"), expected, rtol=2 * tolerance)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_softmax_is_given_float32(dtype, monkeypatch):
    # TensorFlow's own half-precision softmax on a CPU sums in float32, so its outputs alone do not tell.
    given, softmax = [], keras.ops.softmax
    monkeypatch.setattr(keras.ops, "softmax", lambda x, axis: given.append(x.dtype) or softmax(x, axis))
    x = keras.ops.ones((1, 3, 1, 4), dtype)
    attend(x, x, x)
    assert [keras.backend.standardize_dtype(d) for d in given] == ["float32"]


def test_large_logits_stay_finite_in_float16():
    # The unscaled product of such a query and key is 80 000, beyond float16's 65 504.
    x = keras.ops.full((1, 2, 1, 128), 25.0, "float16")
    outputs = attend(x, x, x)
    np.testing.assert_array_equal(keras.ops.cast(outputs, "float32"), np.full((1, 2, 1, 128), 25.0))


def test_dropout_falls_on_the_probabilities_but_not_on_those_returned():
    eye = np.eye(64, dtype="float32")[None, :, None]
    queries = np.zeros((1, 64, 1, 64), "float32")
    outputs, attention = attend(queries, eye, eye, Dropout(0.25, seed=1), training=True, return_attention=True)
    np.testing.assert_allclose(attention, 1 / 64, rtol=1e-5)
    # The values are unit vectors, so the outputs are the dropped probabilities themselves.
    outputs = np.array(outputs)
    dropped = np.mean(outputs == 0)
    assert 0.2 < dropped < 0.3
    np.testing.assert_allclose(outputs[outputs != 0], 1 / 64 / 0.75, rtol=1e-5)


def test_dropouts_are_idle_in_inference():
    layer = _layer(dropout_rate=0.5, attention_dropout_rate=0.5)
    np.testing.assert_allclose(layer(TOKENS, training=False), _reference(layer, TOKENS)[0], atol=1e-5)


@pytest.mark.parametrize("field", ["dropout_rate", "attention_dropout_rate"])
def test_each_dropout_acts_in_training(field):
    layer = _layer(**{field: 0.5})
    assert np.abs(layer(TOKENS, training=True) - layer(TOKENS, training=False)).max() > 1e-2


def test_qkv_blocks_are_initialised_as_three_square_matrices():
    layer = MultiHeadSelfAttention(4)
    layer.build((None, None, 64))
    limit = np.sqrt(6 / (64 + 64))
    kernel = np.array(layer.qkv.kernel)
    assert 0.97 * limit < np.abs(kernel).max() <= limit


@pytest.mark.parametrize(
    "make", [lambda heads: MultiHeadSelfAttention(heads), lambda heads: AttentionPooling(heads, 8)]
)
def test_heads_must_divide_the_width(make):
    rule = "hidden_dim must be a multiple of num_heads. Received: hidden_dim=16, num_heads=3"
    with pytest.raises(ValueError, match=rule):
        make(3)(TOKENS)
    with pytest.raises(ValueError, match=r"num_heads must be a positive int. Received: num_heads=0"):
        make(0)
