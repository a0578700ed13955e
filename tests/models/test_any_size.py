"""`dynamic_image_size`: one model for images of any size, beside the model that is built for each size."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny import CONFIG, tiny_vit
from tiny_hybrids import CONFIG as HYBRID

import keras_vit
from keras_vit import backbone, metadata
from keras_vit.models import ViTConfig, build_model

FIELDS = [
    {"position_resize": "bicubic"},
    {"position_resize": "bicubic_antialias", "num_registers": 2},
    {"position_resize": "bicubic_offset", "distillation_token": True},
    {"position_resize": "bilinear_corners", "position_on_prefix": False},
    {"position_embedding": "sincos2d"},
    {"position_embedding": "sincos2d_moco", "class_token": False, "pooling": "map"},
]
SIZES = [(16, 24), (40, 32), (8, 16)]


def _images(size, batch=2):
    return np.random.default_rng(0).uniform(-1, 1, (batch, *size, 3)).astype("float32")


def _rebuilt(model, config, path):
    model.save_weights(path / "model.weights.h5")
    other = build_model(config)
    with pytest.warns(UserWarning, match="positions"):
        other.load_weights(path / "model.weights.h5")
    return other


@pytest.mark.parametrize("fields", FIELDS)
def test_it_equals_the_model_rebuilt_at_that_size(fields, tmp_path):
    model = tiny_vit(**fields, dynamic_image_size=True)
    # Sides that are known only when the graph runs.
    graph = tf.function(lambda x: model(x), input_signature=[tf.TensorSpec((None, None, None, 3))])
    for size in SIZES:
        if size == CONFIG.image_size:
            other = tiny_vit(**fields)
        elif fields.get("position_embedding", "learned") == "learned":
            other = _rebuilt(model, CONFIG.replace(**fields, image_size=size), tmp_path)
        else:
            other = tiny_vit(**fields, image_size=size)
        images = _images(size)
        expected = np.array(other(images))
        np.testing.assert_allclose(model(images), expected, atol=1e-5, rtol=1e-5)
        np.testing.assert_allclose(graph(images), expected, atol=1e-5, rtol=1e-5)


def test_a_hybrid_takes_any_size_too():
    model = build_model(HYBRID.replace(dynamic_image_size=True))
    plain = build_model(HYBRID)
    plain.set_weights(model.get_weights())
    images = _images(HYBRID.image_size, 1)
    np.testing.assert_allclose(model(images), plain(images), atol=1e-5)
    assert model(_images((64, 96), 1)).shape == plain(images).shape


def test_maps_of_a_backbone_have_the_size_of_the_images():
    found = backbone(tiny_vit(dynamic_image_size=True, num_registers=1), (0, 1))
    assert [info.grid_size for info in found.feature_info] == [(None, None)] * 2
    images = _images((40, 32))
    for actual, expected in zip(
        found(images),
        backbone(tiny_vit(dynamic_image_size=True, num_registers=1), (0, 1), layout="tokens")(images),
        strict=True,
    ):
        assert actual.shape == (2, 5, 4, 16)
        np.testing.assert_array_equal(np.reshape(actual, expected.shape), expected)


def test_it_is_saved_and_predicts_batches_of_several_sizes(tmp_path):
    model = tiny_vit(dynamic_image_size=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert metadata(loaded).config.dynamic_image_size
    for size in SIZES:
        images = _images(size)
        np.testing.assert_allclose(loaded.predict(images, verbose=0), model(images), atol=1e-5)
    whole = keras.Sequential([keras.layers.Rescaling(1 / 127.5, -1), loaded])
    images = _images((40, 32))
    maps = backbone(whole, 1)((images + 1) * 127.5)
    np.testing.assert_allclose(maps, backbone(model, 1)(images), atol=1e-4)


def test_the_field_is_absent_from_a_config_without_it():
    assert "dynamic_image_size" not in CONFIG.get_config()
    config = CONFIG.replace(dynamic_image_size=True)
    assert ViTConfig.from_json(config.to_json()) == config
    assert json.loads(config.to_json())["dynamic_image_size"] is True
    assert not config.can_mask_patches


def test_the_word_of_timm_is_taken():
    model = keras_vit.create_model("vit_tiny_patch16_224", num_layers=1, dynamic_img_size=True)
    assert model.input_shape == (None, None, None, 3)


def test_a_size_that_is_no_multiple_of_the_patch_is_refused():
    model = tiny_vit(dynamic_image_size=True)
    with pytest.raises(ValueError, match=r"image_size must be a multiple of patch_size.*\(20, 24\)"):
        model(_images((20, 24)))
    graph = tf.function(lambda x: model(x), input_signature=[tf.TensorSpec((None, None, None, 3))])
    # Four images of 20 rows hold as many pixels as five of 16.
    with pytest.raises(tf.errors.InvalidArgumentError):
        graph(_images((20, 24), 4))
