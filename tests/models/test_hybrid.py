"""The hybrid of ResNet and Vision Transformer: its config, its stages, and what Keras can do with it."""

import dataclasses
import json

import keras
import numpy as np
import pytest
from tiny_hybrids import CONFIG, OPTIONS, tiny_hybrid

import keras_vit
from keras_vit import HybridConfig, ViTConfig, features
from keras_vit.interpret import attention_maps
from keras_vit.models import build_model

IMAGES = np.random.default_rng(7).uniform(-1, 1, size=(2, 22, 36, 3)).astype("float32")
each_option = pytest.mark.parametrize("fields", OPTIONS, ids=lambda f: "-".join(f) or "default")


def _images(model, batch=2):
    return np.random.default_rng(0).normal(size=(batch, *model.input_shape[1:])).astype("float32")


@pytest.mark.parametrize("fields", OPTIONS)
def test_json_and_keras_round_trip(fields):
    config = CONFIG.replace(**fields)
    assert HybridConfig.from_json(config.to_json()) == config
    written = {field.name for field in dataclasses.fields(HybridConfig)} - {"dynamic_image_size"}
    assert set(json.loads(config.to_json())) == written
    serialized = json.loads(json.dumps(keras.saving.serialize_keras_object(config)))
    assert keras.saving.deserialize_keras_object(serialized) == config


@pytest.mark.parametrize(
    ("fields", "stride", "features", "grid"),
    [
        ({}, 8, (3, 5), (3, 5)),
        ({"stem_depths": ()}, 4, (6, 9), (6, 9)),
        ({"stem_depths": (1,), "patch_size": (2, 3)}, 4, (6, 9), (3, 3)),
        ({"stem_depths": (1, 1, 1, 1)}, 32, (1, 2), (1, 2)),
        ({"image_size": 224, "stem_depths": (3, 4, 9)}, 16, (14, 14), (14, 14)),
    ],
)
def test_sizes(fields, stride, features, grid):
    config = CONFIG.replace(**fields)
    assert (config.stem_stride, config.feature_size, config.grid_size) == (stride, features, grid)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"stem_depths": 2}, "stem_depths must hold one int of at least 1 a stage. Received: stem_depths=2"),
        ({"stem_depths": (2, 0)}, r"stem_depths must hold one int of at least 1 a stage. Received: stem_depths=\(2, 0"),
        ({"stem_width": 48}, "stem_width must be a multiple of 32. Received: stem_width=48"),
        ({"stem_width": 0}, "stem_width must be a positive int. Received: stem_width=0"),
        ({"stem_rule": "tim"}, "stem_rule must be one of .* Did you mean 'timm'"),
        ({"patch_size": 2}, r"image_size / 8, rounded up, must be a multiple of patch_size. Received: .*=\(3, 5\)"),
        ({"num_heads": 3}, "hidden_dim must be a multiple of num_heads"),
        ({"stem_depth": (2,)}, "unknown field of HybridConfig. Did you mean 'stem_depths'"),
    ],
)
def test_errors_state_the_rule(changes, rule):
    with pytest.raises(ValueError, match=rule):
        CONFIG.replace(**changes)


def test_layer_names_and_shapes_of_the_stages():
    model = tiny_hybrid()
    names = ["images", "metadata", "stem_root", "stem_stage_0", "stem_stage_1", "patches", "patch_encoder"]
    names += ["encoder_block_0", "encoder_block_1", "encoder_norm", "representation", "head"]
    assert [layer.name for layer in model.layers] == names
    shapes = {name: output.shape for name, output in features(model, names[2:8])(IMAGES).items()}
    expected = {"stem_root": (6, 9, 32), "stem_stage_0": (6, 9, 128), "stem_stage_1": (3, 5, 256)}
    expected |= {"patches": (15, 256), "patch_encoder": (16, 16), "encoder_block_0": (16, 16)}
    assert shapes == {name: (2, *shape) for name, shape in expected.items()}
    assert {name: map_.shape for name, map_ in attention_maps(model, IMAGES).items()} == {
        f"encoder_block_{i}": (2, 2, 16, 16) for i in range(2)
    }


def test_the_published_hybrids_are_those_of_the_papers():
    found = {name: c for name, c in keras_vit.models.VARIANTS.items() if isinstance(c, HybridConfig)}
    assert {name: c.grid_size for name, c in found.items() if name.endswith("_224")} == {
        "vit_tiny_r_s16_p8_224": (7, 7),
        "vit_small_r26_s32_224": (7, 7),
        "vit_base_r26_s32_224": (7, 7),
        "vit_base_r50_s16_224": (14, 14),
        "vit_large_r50_s32_224": (7, 7),
    }
    assert type(keras_vit.models.VARIANTS["vit_base_patch16_224"]) is ViTConfig


@each_option
def test_saved_model_is_equal_without_custom_objects(fields, tmp_path):
    model = tiny_hybrid(**fields)
    outputs = np.array(model(_images(model)))
    assert np.abs(outputs[0] - outputs[1]).max() > 1e-3
    model.save(tmp_path / "hybrid.keras")
    loaded = keras.models.load_model(tmp_path / "hybrid.keras")
    np.testing.assert_array_equal(loaded(_images(model)), outputs)
    assert keras_vit.metadata(loaded).config == CONFIG.replace(**fields)


@each_option
def test_every_weight_receives_a_gradient_and_moves(fields):
    import tensorflow as tf

    model = tiny_hybrid(dropout_rate=0.1, drop_path_rate=0.1, **fields)
    images, labels = _images(model, 4), np.array([0, 1, 2, 0])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    with tf.GradientTape() as tape:
        value = loss(labels, model(images, training=True))
    gradients = tape.gradient(value, [w.value for w in model.trainable_weights])
    for weight, gradient in zip(model.trainable_weights, gradients, strict=True):
        assert np.isfinite(gradient).all(), weight.path
        assert np.abs(gradient).max() > 1e-10, weight.path
    before = {w.path: w.numpy() for w in model.trainable_weights}
    model.compile("sgd", loss)
    assert np.isfinite(model.fit(images, labels, batch_size=4, verbose=0).history["loss"]).all()
    assert np.mean([(w.numpy() != before[w.path]).any() for w in model.trainable_weights]) > 0.95


def test_mixed_precision_logits_are_float32_and_close():
    mixed, full = tiny_hybrid(dtype="mixed_bfloat16"), tiny_hybrid()
    logits = mixed(IMAGES)
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    assert {w.dtype for w in mixed.weights} == {"float32"}
    assert features(mixed, "stem_stage_0").output["stem_stage_0"].dtype == "bfloat16"
    assert 0 < np.abs(np.array(logits) - np.array(full(IMAGES))).max() < 0.3


@pytest.mark.long
def test_xla_and_a_dynamic_batch_agree_with_eager():
    import tensorflow as tf

    model = tiny_hybrid()
    compiled = tf.function(lambda x: model(x), jit_compile=True)
    np.testing.assert_allclose(compiled(tf.constant(IMAGES)), model(IMAGES), atol=1e-4)
    np.testing.assert_allclose(model.predict(IMAGES[:1], verbose=0), model(IMAGES)[:1], atol=1e-4)


def test_weights_of_another_size_of_images(tmp_path):
    model = tiny_hybrid()
    model.save_weights(tmp_path / "hybrid.weights.h5")
    larger = build_model(CONFIG.replace(image_size=32))
    with pytest.warns(UserWarning, match=r"positions of the grid \(3, 5\) are resized to \(4, 4\)"):
        larger.load_weights(tmp_path / "hybrid.weights.h5")


def test_norms_of_the_resnet_are_not_decayed():
    from keras_vit.training import AdamW

    model = tiny_hybrid()
    before = {w.path: w.numpy() for w in model.trainable_weights}
    AdamW(0.1, weight_decay=0.1).apply(
        [keras.ops.zeros_like(w) for w in model.trainable_weights], model.trainable_weights
    )
    decayed = {w.path for w in model.trainable_weights if (w.numpy() != before[w.path]).any()}
    assert decayed == {w.path for w in model.trainable_weights if w.path.endswith("kernel")}
