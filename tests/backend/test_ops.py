"""The dispatch of the layers' operations: every form gives the results of the plain one."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny import tiny_vit

from keras_vit.backend import ops as backend_ops
from keras_vit.backend.export_mode import portable_graph
from keras_vit.backend.ops import (
    flash_attention,
    gelu,
    layer_norm,
    linear,
    project_from_heads,
    project_to_heads,
    roll_grid,
)
from keras_vit.layers.vit.attention import attention
from keras_vit.training import fused_training

RNG = np.random.default_rng(0)
MODES = {"plain": contextlib.nullcontext, "fused": fused_training, "portable": portable_graph}


def _dense(units, width, use_bias=True):
    layer = keras.layers.Dense(units, use_bias=use_bias, bias_initializer="normal")
    layer.build((None, width))
    return layer


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_layer_norm_equals_the_formula_in_every_mode(mode):
    x = RNG.normal(3, 2, size=(2, 5, 16)).astype("float32")
    gamma, beta = RNG.normal(size=(2, 16)).astype("float32")
    with mode():
        outputs = layer_norm(tf.constant(x), gamma, beta, 1e-3, "float32")
    expected = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-3) * gamma + beta
    np.testing.assert_allclose(outputs, expected, atol=1e-5)


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
@pytest.mark.parametrize("scales", [(0.5,), (0.5, 1, 1)], ids=len)
@pytest.mark.parametrize("use_bias", [True, False])
def test_heads_are_slices_of_the_projection(use_bias, scales, mode):
    tokens, dense = RNG.normal(size=(2, 5, 8)).astype("float32"), _dense(len(scales) * 12, 8, use_bias)
    with mode():
        results = project_to_heads(dense, tf.constant(tokens), 3, scales)
    assert len(results) == len(scales)
    projected = np.array(dense(tokens))
    for number, (result, scale) in enumerate(zip(results, scales, strict=True)):
        for head in range(3):
            first = 12 * number + 4 * head
            np.testing.assert_allclose(result[:, head], scale * projected[..., first : first + 4], atol=1e-5)


def test_merged_heads_are_projected():
    heads, dense = RNG.normal(size=(2, 3, 5, 4)).astype("float32"), _dense(7, 12)
    expected = dense(np.concatenate([heads[:, head] for head in range(3)], axis=-1))
    np.testing.assert_allclose(project_from_heads(dense, heads), expected, atol=1e-5)


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_the_activation_follows_the_bias(mode):
    x, dense = tf.constant(RNG.normal(size=(7, 8)), "float32"), _dense(6, 8)
    with mode():
        outputs = linear(dense, x, gelu)
    np.testing.assert_allclose(outputs, gelu(dense(x)), atol=1e-5)


def test_flash_attention_equals_the_formula(monkeypatch):
    query, key, value = RNG.normal(size=(3, 2, 3, 5, 4)).astype("float32")
    expected, probabilities = attention(query, key, value, return_attention=True)
    assert probabilities is not None
    monkeypatch.setattr(backend_ops, "has_flash_attention", lambda: True)
    np.testing.assert_allclose(flash_attention(query, key, value), expected, atol=1e-5)
    outputs, probabilities = attention(query, key, value)
    np.testing.assert_allclose(outputs, expected, atol=1e-5)
    assert probabilities is None
    monkeypatch.setattr(backend_ops, "has_flash_attention", lambda: False)
    assert flash_attention(query, key, value) is None


def test_roll_is_that_of_numpy():
    grid = RNG.normal(size=(2, 6, 8, 3)).astype("float32")
    for training in (False, True):
        rolled = roll_grid(grid, (-1, 2), training)
        np.testing.assert_array_equal(rolled, np.roll(grid, (-1, 2), axis=(1, 2)))
    assert roll_grid(grid, (0, 0)) is grid


@pytest.mark.parametrize("context", [contextlib.nullcontext, fused_training], ids=["plain", "fused"])
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("shape", [(7, 8), (2, 3, 8)], ids=["matrix", "tokens"])
def test_linear_equals_the_dense_layer(policy, context, shape):
    layer = keras.layers.Dense(6, dtype=policy, bias_initializer="normal")
    layer.build((None, 8))
    x = tf.cast(RNG.normal(size=shape), layer.compute_dtype)
    kernel, bias = (tf.cast(v.value, layer.compute_dtype) for v in (layer.kernel, layer.bias))

    class Parent(keras.layers.Layer):
        def call(self, x):
            return linear(layer, x)

    with context():
        y = Parent(dtype=policy)(x)
    assert y.dtype == layer.compute_dtype
    expected = tf.cast(keras.ops.matmul(x, kernel), "float32") + tf.cast(bias, "float32")
    np.testing.assert_allclose(
        np.asarray(y, "float32"), expected, rtol=1e-6 if policy == "float32" else 1e-2, atol=1e-2
    )


def test_bfloat16_products_are_not_fused_with_their_bias():
    """oneDNN's fused operation leaves AMX unused."""
    model = tiny_vit(num_classes=5, dtype="mixed_bfloat16")
    function = tf.function(lambda x: model(x)).get_concrete_function(tf.TensorSpec((2, 16, 24, 3)))
    nodes = {node.name: node for node in function.graph.as_graph_def().node}
    biased = [n for n in nodes.values() if n.op in ("BiasAdd", "AddV2") and "encoder_block" in n.name]
    products = [n.name for n in biased if nodes[n.input[0].split(":")[0]].op == "MatMul"]
    assert biased
    assert not products
