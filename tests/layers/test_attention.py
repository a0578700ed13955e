"""Attention: against a NumPy reference, in every precision, with and without its probabilities."""

import keras
import numpy as np
import pytest

from keras_vit.layers import AttentionPooling, Dropout, MultiHeadSelfAttention
from keras_vit.layers.vit.attention import attention

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
    outputs, probabilities = layer(TOKENS, return_attention=True)
    expected_outputs, expected_probabilities = _reference(layer, TOKENS)
    np.testing.assert_allclose(outputs, expected_outputs, atol=1e-5)
    np.testing.assert_allclose(probabilities, expected_probabilities, atol=1e-5)


def test_rows_of_the_attention_sum_to_one():
    _, probabilities = _layer()(TOKENS, return_attention=True)
    assert probabilities.shape == (2, 4, 5, 5)
    np.testing.assert_allclose(np.sum(probabilities, axis=-1), 1, atol=1e-6)


def test_outputs_are_the_same_with_and_without_attention():
    layer = _layer(qk_norm=True)
    np.testing.assert_array_equal(layer(TOKENS), layer(TOKENS, return_attention=True)[0])


def test_symbolic_outputs_with_attention():
    outputs, probabilities = _layer()(keras.KerasTensor((None, 5, 16)), return_attention=True)
    assert (outputs.shape, probabilities.shape) == ((None, 5, 16), (None, 4, 5, 5))


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 2**-8), ("float16", 2**-11)])
def test_softmax_runs_in_float32(dtype, tolerance):
    # 300 keys at nearly one logit: summed in bfloat16 the denominator would stick at 256.
    rng = np.random.default_rng(0)
    query, key = (keras.ops.cast(rng.normal(scale=0.05, size=(1, 1, 300, 4)), dtype) for _ in "qk")
    value = keras.ops.ones((1, 1, 300, 4), dtype)
    _, probabilities = attention(query, key, value, return_attention=True)
    wide = [keras.ops.cast(x, "float32") for x in (query, key, value)]
    _, expected = attention(*wide, return_attention=True)
    assert keras.backend.standardize_dtype(probabilities.dtype) == dtype
    np.testing.assert_allclose(keras.ops.cast(probabilities, "float32"), expected, rtol=2 * tolerance)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_softmax_receives_float32(dtype, monkeypatch):
    # TensorFlow's own half-precision softmax on a CPU sums in float32, so its outputs do not show it.
    dtypes, softmax = [], keras.ops.softmax
    monkeypatch.setattr(keras.ops, "softmax", lambda x, axis: dtypes.append(x.dtype) or softmax(x, axis))
    x = keras.ops.ones((1, 1, 3, 4), dtype)
    attention(x, x, x)
    assert [keras.backend.standardize_dtype(d) for d in dtypes] == ["float32"]


def test_large_logits_stay_finite_in_float16():
    # The unscaled product of such a query and key is 80,000, beyond float16's 65,504.
    layer = MultiHeadSelfAttention(1, dtype="float16")
    layer.build((None, 2, 128))
    for dense, blocks in ((layer.qkv, 3), (layer.projection, 1)):
        dense.kernel.assign(np.tile(np.eye(128), (1, blocks)))
    x = keras.ops.full((1, 2, 128), 25.0, "float16")
    np.testing.assert_array_equal(keras.ops.cast(layer(x), "float32"), np.full((1, 2, 128), 25.0))


def test_returned_probabilities_have_no_dropout():
    eye = np.eye(64, dtype="float32")[None, None]
    queries = np.zeros((1, 1, 64, 64), "float32")
    dropout = Dropout(0.25, seed=1)
    outputs, probabilities = attention(queries, eye, eye, dropout=dropout, training=True, return_attention=True)
    np.testing.assert_allclose(probabilities, 1 / 64, rtol=1e-5)
    # The values are unit vectors, so the outputs are the dropped probabilities themselves.
    outputs = np.array(outputs)
    dropped = np.mean(outputs == 0)
    assert 0.2 < dropped < 0.3
    np.testing.assert_allclose(outputs[outputs != 0], 1 / 64 / 0.75, rtol=1e-5)


def test_dropout_does_nothing_in_inference():
    layer = _layer(dropout_rate=0.5, attention_dropout_rate=0.5)
    np.testing.assert_allclose(layer(TOKENS, training=False), _reference(layer, TOKENS)[0], atol=1e-5)


@pytest.mark.parametrize("field", ["dropout_rate", "attention_dropout_rate"])
def test_each_dropout_acts_in_training(field):
    layer = _layer(**{field: 0.5})
    assert np.abs(layer(TOKENS, training=True) - layer(TOKENS, training=False)).max() > 1e-2


def test_qkv_blocks_are_initialized_as_three_square_matrices():
    layer = MultiHeadSelfAttention(4)
    layer.build((None, None, 64))
    limit = np.sqrt(6 / (64 + 64))
    kernel = np.array(layer.qkv.kernel)
    assert 0.97 * limit < np.abs(kernel).max() <= limit


@pytest.mark.parametrize(
    "make", [lambda heads: MultiHeadSelfAttention(heads), lambda heads: AttentionPooling(heads, 8)]
)
def test_heads_must_divide_the_width(make):
    with pytest.raises(ValueError, match="hidden_dim=16, num_heads=3"):
        make(3)(TOKENS)
    with pytest.raises(ValueError, match="num_heads=0"):
        make(0)
