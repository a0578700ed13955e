"""The functional Swin Transformer: its stages, its options, and what Keras can do with it."""

import json

import keras
import numpy as np
import pytest
from tiny import randomize

import keras_vit
from keras_vit import InputSpec, SwinConfig, features
from keras_vit.layers import SwinBlock
from keras_vit.layers.swin import block as swin_block
from keras_vit.layers.swin import window_attention
from keras_vit.models import build_swin

CONFIG = SwinConfig(
    image_size=(32, 48), embed_dim=8, depths=(2, 2, 1), num_heads=(2, 2, 4), window_size=4, num_classes=3
)
IMAGES = np.random.default_rng(7).uniform(-1, 1, size=(2, 32, 48, 3)).astype("float32")
OPTIONS = [
    {},
    {"version": 2},
    {"version": 2, "pretrained_window_sizes": (3, 3, 2), "qkv_bias": False},
    {"image_size": (28, 36), "num_channels": 1, "activation": "gelu_tanh"},
    {"image_size": (28, 36), "window_rule": "huggingface", "patch_size": (2, 4)},
    {"image_size": 32, "window_rule": "microsoft", "mlp_ratio": 2.5},
    {"window_size": (2, 5), "qkv_bias": False},
]
each_option = pytest.mark.parametrize("fields", OPTIONS, ids=lambda f: "-".join(f) or "default")


def tiny_swin(*, dtype=None, labels=None, origin=None, input_spec=None, **fields):
    """A tiny Swin Transformer whose every weight is random."""
    model = build_swin(CONFIG.replace(**fields), input_spec, labels, origin, dtype)
    randomize(model)
    return model


def _images(model, batch=2):
    return np.random.default_rng(0).normal(size=(batch, *model.input_shape[1:])).astype("float32")


def test_layer_names():
    expected = ["images", "metadata", "patches", "patch_encoder", "encoder_block_0", "encoder_block_1", "stage_0"]
    expected += ["patch_merging_1", "encoder_block_2", "encoder_block_3", "stage_1"]
    expected += ["patch_merging_2", "encoder_block_4", "stage_2", "encoder_norm", "representation", "head"]
    assert [layer.name for layer in build_swin(CONFIG).layers] == expected
    assert [layer.name for layer in build_swin(CONFIG.replace(num_classes=0)).layers] == expected[:-1]


@each_option
def test_saved_model_is_equal_without_custom_objects(fields, tmp_path):
    model = tiny_swin(**fields)
    outputs = np.array(model(_images(model)))
    assert outputs.shape == (2, 3)
    assert np.abs(outputs[0] - outputs[1]).max() > 1e-3
    model.save(tmp_path / "swin.keras")
    loaded = keras.models.load_model(tmp_path / "swin.keras")
    np.testing.assert_array_equal(loaded(_images(model)), outputs)
    assert keras_vit.metadata(loaded).config == CONFIG.replace(**fields)


@each_option
def test_every_weight_receives_a_gradient(fields):
    import tensorflow as tf

    model = tiny_swin(dropout_rate=0.1, attention_dropout_rate=0.1, **fields)
    images = _images(model, 3)
    with tf.GradientTape() as tape:
        loss = keras.ops.mean(keras.ops.square(model(images, training=True) - images.mean()))
    gradients = tape.gradient(loss, [w.value for w in model.trainable_weights])
    for weight, gradient in zip(model.trainable_weights, gradients, strict=True):
        assert isinstance(gradient, tf.Tensor), weight.path
        assert np.isfinite(gradient).all(), weight.path
        assert np.abs(gradient).max() > 1e-10, weight.path


@pytest.mark.long
@each_option
def test_a_step_of_fit_is_finite_and_moves_every_weight(fields):
    model = tiny_swin(drop_path_rate=0.1, **fields)
    before = {w.path: w.numpy() for w in model.trainable_weights}
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    history = model.fit(_images(model, 4), np.array([0, 1, 2, 0]), batch_size=4, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    for weight in model.trainable_weights:
        assert np.isfinite(weight.numpy()).all(), weight.path
    moved = [(w.numpy() != before[w.path]).any() for w in model.trainable_weights]
    assert np.mean(moved) > 0.95


def test_drop_path_rates_reach_the_blocks():
    model = tiny_swin(drop_path_rate=0.4)
    rates = [model.get_layer(f"encoder_block_{i}").drop_path_rate for i in range(5)]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_every_norm_has_the_epsilon_of_the_config():
    model = tiny_swin(layer_norm_epsilon=1e-4)
    blocks = [layer for layer in model.layers if isinstance(layer, SwinBlock)]
    norms = [norm for block in blocks for norm in (block.attention_norm, block.mlp_norm)]
    norms += [model.get_layer(name).norm for name in ("patch_encoder", "patch_merging_1", "patch_merging_2")]
    assert {norm.epsilon for norm in [*norms, model.get_layer("encoder_norm")]} == {1e-4}


def test_shapes_of_the_stages():
    names = ["patch_encoder", "stage_0", "patch_merging_1", "stage_1", "stage_2", "representation"]
    shapes = {name: output.shape for name, output in features(tiny_swin(), names)(IMAGES).items()}
    widths = {"patch_encoder": (96, 8), "stage_0": (96, 8), "patch_merging_1": (24, 16), "stage_1": (24, 16)}
    assert shapes == {name: (2, *s) for name, s in {**widths, "stage_2": (6, 32), "representation": (32,)}.items()}


def test_representation_is_the_mean_of_the_tokens():
    outputs = features(tiny_swin(), ["encoder_norm", "representation"])(IMAGES)
    np.testing.assert_allclose(outputs["representation"], np.mean(outputs["encoder_norm"], axis=1), atol=1e-6)


def test_without_classes_the_representation_is_returned():
    model = tiny_swin(num_classes=0)
    np.testing.assert_array_equal(model(IMAGES), features(model, "representation")(IMAGES)["representation"])


def test_classifier_activation():
    probabilities = tiny_swin(classifier_activation="softmax")(IMAGES)
    np.testing.assert_allclose(probabilities, keras.ops.softmax(tiny_swin()(IMAGES)), atol=1e-6)


@pytest.mark.parametrize("version", [1, 2])
def test_mixed_precision_logits_are_float32_and_close(version):
    mixed, full = tiny_swin(dtype="mixed_bfloat16", version=version), tiny_swin(version=version)
    logits = mixed(IMAGES)
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    assert {w.dtype for w in mixed.weights} == {"float32"}
    assert features(mixed, "stage_1").output["stage_1"].dtype == "bfloat16"
    assert 0 < np.abs(np.array(logits) - np.array(full(IMAGES))).max() < 0.2


def test_the_last_stage_is_one_window():
    model = tiny_swin(depths=(2, 2, 2), image_size=(32, 32))
    block = model.get_layer("encoder_block_5")
    assert (block.resolution, block.attention.window_size, block.shift) == ((2, 2), (2, 2), (0, 0))
    _, attention = block(
        features(model, "encoder_block_4")(IMAGES[:, :, :32])["encoder_block_4"], return_attention=True
    )
    assert attention.shape == (2, 4, 4, 4)


def test_the_graph_holds_masks_and_indices_as_constants():
    import tensorflow as tf

    model = tiny_swin()
    function = tf.function(lambda x: model(x)).get_concrete_function(tf.TensorSpec((None, 32, 48, 3)))
    constants = [tf.make_ndarray(op.get_attr("value")) for op in function.graph.get_operations() if op.type == "Const"]
    masks = [c for c in constants if c.dtype == np.float32 and c.size > 1 and set(np.unique(c)) == {0, -100}]
    assert [mask.size for mask in masks] == [6 * 16 * 16, 2 * 16 * 16]  # windows, tokens, tokens of the odd blocks
    assert sum(c.dtype == np.int32 and c.shape == (256,) for c in constants) == 4


@pytest.mark.parametrize("version", [1, 2])
def test_large_masks_and_indices_are_computed(version, monkeypatch):
    import tensorflow as tf

    model = tiny_swin(version=version)
    expected = np.array(model(IMAGES))
    for module in (swin_block, window_attention):
        monkeypatch.setattr(module, "MAX_CONSTANT_BYTES", 0)
    function = tf.function(lambda x: model(x)).get_concrete_function(tf.TensorSpec((None, 32, 48, 3)))
    np.testing.assert_allclose(function(tf.constant(IMAGES)), expected, atol=1e-5)
    constants = [tf.make_ndarray(op.get_attr("value")) for op in function.graph.get_operations() if op.type == "Const"]
    # What is left are the numbers of the tokens of each window; of version 2 also the coordinates.
    assert max(c.size for c in constants) <= 7 * 7 * 2


def test_windows_see_their_neighbors_only_after_the_shift():
    model, changed = tiny_swin(), IMAGES.copy()
    changed[:, :4, :4] += 1  # the first patch of the first window
    before, after = (features(model, ["encoder_block_0", "encoder_block_1"])(x) for x in (IMAGES, changed))
    moved = {name: np.abs(after[name] - before[name]).max(axis=(0, 2)).reshape(8, 12) > 1e-6 for name in before}
    expected = np.zeros((8, 12), bool)
    expected[:4, :4] = True
    np.testing.assert_array_equal(moved["encoder_block_0"], expected)
    expected[:6, :6] = True  # windows that begin at 2 hold a part of it
    np.testing.assert_array_equal(moved["encoder_block_1"], expected)


def test_all_rules_agree_where_the_window_divides_the_grid():
    logits = [tiny_swin(image_size=32, window_rule=rule)(IMAGES[:, :, :32]) for rule in ("timm", "microsoft")]
    logits.append(tiny_swin(image_size=32, window_rule="huggingface")(IMAGES[:, :, :32]))
    np.testing.assert_array_equal(logits[0], logits[1])
    np.testing.assert_array_equal(logits[0], logits[2])


def test_metadata_travels_inside_the_model(tmp_path):
    spec = InputSpec((32, 48), 0.9, mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 0.2))
    model = tiny_swin(labels=("ant", "bee", "cat"), origin="a test", input_spec=spec)
    for copy in (
        model,
        keras.models.clone_model(model),
        keras.Model.from_config(json.loads(json.dumps(model.get_config()))),
    ):
        content = keras_vit.metadata(copy)
        assert (content.config, content.input_spec) == (CONFIG, spec)
        assert (content.labels, content.origin) == (("ant", "bee", "cat"), "a test")


@pytest.mark.long
@pytest.mark.parametrize("version", [1, 2])
def test_quantized_models_are_close_and_can_be_saved(version, tmp_path):
    model = tiny_swin(version=version)
    expected = np.array(model(IMAGES))
    model.quantize("int8")
    outputs = np.array(model(IMAGES))
    assert 0 < np.abs(outputs - expected).max() < 0.2
    model.save(tmp_path / "swin.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "swin.keras")(IMAGES), outputs)


@pytest.mark.parametrize("version", [1, 2])
def test_what_makes_biases_is_not_decayed(version):
    from keras_vit.training import AdamW

    model = tiny_swin(version=version)
    before = {w.path: w.numpy() for w in model.trainable_weights}
    zeros = [keras.ops.zeros_like(w) for w in model.trainable_weights]
    AdamW(0.1, weight_decay=0.1).apply(zeros, model.trainable_weights)
    decayed = {w.path for w in model.trainable_weights if (w.numpy() != before[w.path]).any()}
    kernels = ("qkv", "projection", "dense_1", "dense_2", "reduction", "head")
    assert decayed == {
        w.path for w in model.trainable_weights if w.path.endswith(tuple(f"{k}/kernel" for k in kernels))
    }


@pytest.mark.long
def test_xla_and_a_dynamic_batch_agree_with_eager():
    import tensorflow as tf

    for version in (1, 2):
        model = tiny_swin(version=version)
        compiled = tf.function(lambda x, m=model: m(x), jit_compile=True)
        np.testing.assert_allclose(compiled(tf.constant(IMAGES)), model(IMAGES), atol=1e-4)
        np.testing.assert_allclose(model.predict(IMAGES[:1], verbose=0), model(IMAGES)[:1], atol=1e-4)
