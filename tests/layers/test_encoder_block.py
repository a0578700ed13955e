"""The encoder block: order of its parts, stochastic depth, and attention on request."""

import keras
import numpy as np
import pytest

from keras_vit.layers import TransformerEncoder

TOKENS = np.random.default_rng(4).normal(size=(3, 5, 16)).astype("float32")


def _block(**fields):
    block = TransformerEncoder(2, 24, layer_scale_init=0.5, **fields)
    block.build(TOKENS.shape)
    for seed, weight in enumerate(block.weights):
        weight.assign(weight + keras.random.normal(weight.shape, stddev=0.2, seed=seed))
    return block


def test_pre_norm_order():
    block = _block()
    x = TOKENS + block.attention_scale(block.attention(block.attention_norm(TOKENS)))
    expected = x + block.mlp_scale(block.mlp(block.mlp_norm(x)))
    np.testing.assert_allclose(block(TOKENS), expected, atol=1e-5)


def test_post_norm_order():
    block = _block(norm_placement="post")
    x = block.attention_norm(TOKENS + block.attention_scale(block.attention(TOKENS)))
    expected = block.mlp_norm(x + block.mlp_scale(block.mlp(x)))
    np.testing.assert_allclose(block(TOKENS), expected, atol=1e-5)


@pytest.mark.parametrize("placement", ["pre", "post"])
def test_attention_on_request_changes_nothing_else(placement):
    block = _block(norm_placement=placement)
    config, outputs = block.get_config(), np.array(block(TOKENS))
    with_attention, probabilities = block(TOKENS, return_attention=True)
    np.testing.assert_array_equal(with_attention, outputs)
    np.testing.assert_allclose(np.sum(probabilities, axis=-1), 1, atol=1e-6)
    assert block.get_config() == config
    np.testing.assert_array_equal(block(TOKENS), outputs)


def test_stochastic_depth_drops_whole_branches_and_scales_the_rest():
    block = _block(drop_path_rate=0.5)
    block.mlp.dense_2.kernel.assign(keras.ops.zeros_like(block.mlp.dense_2.kernel))
    block.mlp.dense_2.bias.assign(keras.ops.zeros_like(block.mlp.dense_2.bias))
    tokens = np.repeat(TOKENS[:1], 64, axis=0)
    branch = np.array(block(tokens, training=False) - tokens)
    trained = np.array(block(tokens, training=True) - tokens)
    dropped = np.array([np.allclose(d, 0, atol=1e-6) for d in trained])
    assert 16 < dropped.sum() < 48
    np.testing.assert_allclose(trained[~dropped], 2 * branch[~dropped], atol=1e-4)


def test_both_branches_have_stochastic_depth_of_their_own():
    block = _block(drop_path_rate=0.5)
    tokens = np.repeat(TOKENS[:1], 64, axis=0)
    trained = np.round(np.array(block(tokens, training=True)), 3)
    assert len(np.unique(trained.reshape(64, -1), axis=0)) == 4


def test_every_norm_has_the_epsilon_of_the_family():
    block = TransformerEncoder(2, 24, qk_norm=True)
    block.build(TOKENS.shape)
    norms = (block.attention_norm, block.mlp_norm, block.attention.query_norm, block.attention.key_norm)
    assert [norm.epsilon for norm in norms] == [1e-6] * 4


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_sublayers_follow_the_policy(policy):
    block = TransformerEncoder(
        2, 24, layer_scale_init=0.5, qk_norm=True, drop_path_rate=0.1, dropout_rate=0.1, dtype=policy
    )
    block.build(TOKENS.shape)
    inner = (block.attention, block.attention.qkv, block.attention.query_norm, block.mlp, block.mlp.dense_1)
    layers = (*inner, block.mlp_norm, block.mlp_scale, block.mlp_drop_path, block.mlp.dropout)
    assert {layer.dtype_policy.name for layer in layers} == {policy}


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"norm_placement": "prae"}, "'pre'.*norm_placement='prae'"),
        ({"activation": "relu"}, "activation='relu'"),
        ({"drop_path_rate": 1}, "rate=1"),
        ({"dropout_rate": -0.1}, "rate=-0.1"),
        ({"num_heads": 0}, "num_heads=0"),
        ({"mlp_dim": 1.5}, "mlp_dim=1.5"),
    ],
)
def test_arguments_are_checked(fields, rule):
    with pytest.raises(ValueError, match=rule):
        TransformerEncoder(**{"num_heads": 2, "mlp_dim": 8, **fields})
