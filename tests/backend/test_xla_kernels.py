"""`fused_training`: the same values, gradients and weights as the plain operations."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tiny import tiny_vit

from keras_vit.backend.xla_kernels import is_fused
from keras_vit.layers import MLP, AttentionPooling, LayerNormalization, MultiHeadSelfAttention, WindowAttention
from keras_vit.training import AdamW, fused_training

RNG = np.random.default_rng(0)


def _value_and_gradients(layer, x, upstream, context):
    with context(), tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x) if isinstance(layer, LayerNormalization) else layer(x, training=True)
    upstream = upstream if len(y.shape) == 3 else upstream[:, 0]
    return [y, *tape.gradient(y, [x, *(v.value for v in layer.trainable_variables)], upstream)]


LAYERS = {
    "layer_norm": LayerNormalization,
    "mlp": lambda **kw: MLP(24, **kw),
    "attention": lambda **kw: MultiHeadSelfAttention(2, **kw),
    "attention_with_norms": lambda **kw: MultiHeadSelfAttention(2, qk_norm=True, **kw),
    "attention_pooling": lambda **kw: AttentionPooling(2, 24, **kw),
    "window_attention": lambda **kw: WindowAttention(2, (1, 5), **kw),
    "window_attention_2": lambda **kw: WindowAttention(2, (1, 5), version=2, **kw),
}


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize(("policy", "limit"), [("float32", 2e-6), ("mixed_bfloat16", 4e-2)])
def test_values_and_gradients_are_those_of_the_plain_operations(make, policy, limit):
    random = np.random.default_rng(0)  # of each case, whichever others run
    layer = make(dtype=policy)
    layer.build((None, 5, 16))
    for variable in layer.trainable_variables:
        scale = variable.shape[0] ** -0.5 if variable.name == "kernel" else 1.0
        variable.assign(scale * random.normal(size=variable.shape))
    dtype = keras.dtype_policies.get(policy).compute_dtype
    x, upstream = (tf.cast(random.normal(0.5, 2, (3, 5, 16)), dtype) for _ in range(2))
    plain = _value_and_gradients(layer, x, upstream, contextlib.nullcontext)
    fused = _value_and_gradients(layer, x, upstream, fused_training)
    names = ["outputs", "inputs", *(variable.path for variable in layer.trainable_variables)]
    for name, a, b in zip(names, plain, fused, strict=True):
        assert a.dtype == b.dtype
        if name.endswith("key_norm/beta"):  # has no gradient but rounding, as a bias of keys
            continue
        a, b = np.asarray(a, "float32"), np.asarray(b, "float32")
        np.testing.assert_allclose(b, a, atol=limit * np.abs(a).max(), err_msg=name)


@pytest.mark.long
def test_a_fit_ends_with_the_weights_of_a_plain_one():
    images = RNG.normal(size=(16, 16, 24, 3)).astype("float32")
    labels = RNG.integers(5, size=16)
    weights = []
    for context in (contextlib.nullcontext, fused_training):
        keras.utils.set_random_seed(0)
        model = tiny_vit(num_classes=5)
        model.compile(
            AdamW(1e-3, weight_decay=0.1, global_clipnorm=0.5, use_ema=True, ema_momentum=0.9),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        with context():
            model.fit(images, labels, batch_size=8, epochs=2, verbose=0, shuffle=False)
        weights.append({v.path: np.asarray(v) for v in model.weights})
        assert int(model.optimizer.iterations) == 4
    for path, plain in weights[0].items():
        if "qkv/bias" in path:  # the key biases have no gradient but rounding, which Adam blows up
            plain, other = (np.delete(w[path], slice(len(plain) // 3, 2 * len(plain) // 3)) for w in weights)
        else:
            other = weights[1][path]
        np.testing.assert_allclose(other, plain, atol=2e-5, err_msg=path)


@pytest.mark.long
def test_only_the_trained_graph_holds_xla_programs(tmp_path):
    model = tiny_vit(num_classes=5)
    model.compile(AdamW(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with fused_training():
        assert is_fused()
        model.fit(np.zeros((4, 16, 24, 3)), np.zeros(4), verbose=0)
    assert not is_fused()
    model.export(tmp_path / "saved", verbose=False)
    graph = saved_model_pb2.SavedModel.FromString((tmp_path / "saved" / "saved_model.pb").read_bytes())
    functions = graph.meta_graphs[0].graph_def.library.function
    assert functions
    assert not [f.signature.name for f in functions if f.attr["_XlaMustCompile"].b]
