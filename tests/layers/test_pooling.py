"""From tokens to one vector: token, mean and attention pooling."""

import keras
import numpy as np
import pytest

from keras_vit.layers import AttentionPooling, LayerScale, TokenPooling

TOKENS = np.random.default_rng(5).normal(size=(2, 6, 8)).astype("float32")


@pytest.mark.parametrize("index", [0, 2, -1])
def test_token_takes_one_token(index):
    np.testing.assert_array_equal(TokenPooling("token", index=index)(TOKENS), TOKENS[:, index])


@pytest.mark.parametrize("prefix", [0, 3])
def test_gap_leaves_the_prefix_out(prefix):
    pooled = TokenPooling("gap", num_prefix_tokens=prefix)(TOKENS)
    np.testing.assert_allclose(pooled, TOKENS[:, prefix:].mean(axis=1), atol=1e-6)


def test_gap_sums_in_float32():
    # In float16 the sum of 600 tokens of 200 would overflow.
    pooled = TokenPooling("gap", dtype="float16")(np.full((1, 600, 2), 200, "float16"))
    np.testing.assert_array_equal(keras.ops.cast(pooled, "float32"), [[200, 200]])


def test_attention_pooling_has_no_residual_from_the_probe():
    layer = AttentionPooling(2, 16)
    layer.build(TOKENS.shape)
    layer.projection.kernel.assign(keras.ops.zeros_like(layer.projection.kernel))
    layer.mlp.dense_2.kernel.assign(keras.ops.zeros_like(layer.mlp.dense_2.kernel))
    np.testing.assert_array_equal(layer(TOKENS), np.zeros((2, 8)))


def test_attention_pooling_ignores_the_order_of_tokens():
    layer = AttentionPooling(2, 16)
    np.testing.assert_allclose(layer(TOKENS), layer(TOKENS[:, ::-1]), atol=1e-5)
    assert np.abs(np.array(layer(TOKENS))[0] - np.array(layer(TOKENS))[1]).max() > 1e-3


def test_attention_pooling_leaves_the_prefix_out():
    layer, whole = AttentionPooling(2, 16, num_prefix_tokens=2), AttentionPooling(2, 16)
    layer.build(TOKENS.shape)
    whole.build(TOKENS.shape)
    whole.set_weights(layer.get_weights())
    np.testing.assert_allclose(layer(TOKENS), whole(TOKENS[:, 2:]), atol=1e-6)
    assert np.abs(np.array(layer(TOKENS)) - np.array(whole(TOKENS))).max() > 1e-3


def test_unknown_pooling_names_the_nearest():
    with pytest.raises(ValueError, match=r"'token'.*Received: pooling='tokens'"):
        TokenPooling("tokens")


def test_layer_scale_multiplies_every_channel():
    layer = LayerScale(0.1)
    layer.build(TOKENS.shape)
    np.testing.assert_allclose(layer(TOKENS), 0.1 * TOKENS, rtol=1e-6)
    layer.gamma.assign(np.arange(8))
    np.testing.assert_allclose(layer(TOKENS), TOKENS * np.arange(8), rtol=1e-6)
