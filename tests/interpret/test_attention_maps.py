"""Attention on request: nothing of the model may change for it."""

import json

import keras
import numpy as np
import pytest
from tiny import CONFIG, IMAGES, tiny_vit

from keras_vit import features
from keras_vit.interpret import attention_maps, attention_model
from keras_vit.models import build_vit


def test_maps_of_every_block():
    maps = attention_maps(tiny_vit(num_registers=2), IMAGES)
    assert list(maps) == ["encoder_block_0", "encoder_block_1"]
    for attention in maps.values():
        assert attention.shape == (2, 2, 9, 9)
        np.testing.assert_allclose(attention.sum(axis=-1), 1, atol=1e-5)
        assert attention.std() > 1e-3


@pytest.mark.parametrize(
    ("blocks", "names"),
    [
        (0, ["encoder_block_0"]),
        (-1, ["encoder_block_2"]),
        ("encoder_block_1", ["encoder_block_1"]),
        ([2, "encoder_block_0"], ["encoder_block_2", "encoder_block_0"]),
    ],
)
def test_chosen_blocks_are_the_same_as_among_all(blocks, names):
    model = tiny_vit(num_layers=3)
    maps, everything = attention_model(model, blocks)(IMAGES), attention_model(model)(IMAGES)
    assert list(maps) == names
    for name in names:
        np.testing.assert_allclose(maps[name], everything[name], atol=1e-6)


def test_attention_explains_the_output_of_the_block():
    model = tiny_vit()
    block = model.get_layer("encoder_block_1")
    tokens = features(model, "encoder_block_0")(IMAGES)["encoder_block_0"]
    _, expected = block(tokens, return_attention=True)
    np.testing.assert_allclose(attention_model(model)(IMAGES)["encoder_block_1"], expected, atol=1e-6)


def test_the_model_is_unchanged():
    model = tiny_vit(num_layers=3)
    config, outputs = json.dumps(model.get_config()), np.array(model(IMAGES))
    weights = [w.numpy() for w in model.weights]
    attention_model(model, [0, 2])(IMAGES)
    assert json.dumps(model.get_config()) == config
    np.testing.assert_array_equal(model(IMAGES), outputs)
    assert len(model.weights) == len(weights)
    for weight, before in zip(model.weights, weights, strict=True):
        np.testing.assert_array_equal(weight, before)


def test_the_model_can_still_be_saved(tmp_path):
    model = tiny_vit(num_layers=3)
    attention_model(model, [0, 2])
    model.save(tmp_path / "vit.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "vit.keras")(IMAGES), model(IMAGES))


def test_weights_are_shared():
    model = tiny_vit()
    viewer = attention_model(model)
    mine = {id(w) for w in model.weights}
    assert viewer.weights
    assert {id(w) for w in viewer.weights} <= mine


def test_the_attention_model_can_be_saved(tmp_path):
    viewer = attention_model(tiny_vit(num_layers=3, qk_norm=True), [0, 2])
    viewer.save(tmp_path / "attention.keras")
    loaded = keras.models.load_model(tmp_path / "attention.keras")(IMAGES)
    for name, expected in viewer(IMAGES).items():
        np.testing.assert_array_equal(loaded[name], expected)


def test_works_on_a_loaded_model(tmp_path):
    model = tiny_vit()
    model.save(tmp_path / "vit.keras")
    loaded = attention_model(keras.models.load_model(tmp_path / "vit.keras"))(IMAGES)
    for name, expected in attention_model(model)(IMAGES).items():
        np.testing.assert_array_equal(loaded[name], expected)


def test_batches_are_joined():
    images = np.concatenate([IMAGES] * 3)[:5]
    model = tiny_vit()
    attention = attention_maps(model, images, 0, batch_size=2)["encoder_block_0"]
    np.testing.assert_allclose(attention, attention_model(model, 0)(images)["encoder_block_0"], atol=1e-6)


@pytest.mark.parametrize("blocks", ["encoder_blok_1", 2, -3, ["encoder_block_0", 9]])
def test_unknown_block_raises(blocks):
    with pytest.raises(
        ValueError, match=r"unknown block of model 'vit'.* Received: block=.*known: \['encoder_block_0'"
    ):
        attention_model(build_vit(CONFIG), blocks)


def test_unknown_block_names_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'encoder_block_1'"):
        attention_model(build_vit(CONFIG), "encoder_blok_1")


def test_no_block_raises():
    with pytest.raises(ValueError, match="at least one block must be chosen"):
        attention_model(build_vit(CONFIG), [])


def test_a_model_without_encoder_blocks_raises():
    with pytest.raises(ValueError, match="at least one block must be chosen"):
        attention_model(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]))
