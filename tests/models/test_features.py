"""`features`: any stage by its name."""

import keras
import numpy as np
import pytest
from tiny import IMAGES, tiny_vit

from keras_vit import features


def test_outputs_are_keyed_by_stage_name():
    names = ["patch_encoder", "encoder_block_1", "encoder_norm", "head"]
    model = tiny_vit(num_registers=1)
    outputs = features(model, names)(IMAGES)
    assert list(outputs) == names
    assert [tuple(outputs[name].shape) for name in names] == [(2, 8, 16), (2, 8, 16), (2, 8, 16), (2, 3)]
    np.testing.assert_array_equal(outputs["head"], model(IMAGES))


def test_a_single_name_is_enough():
    assert list(features(tiny_vit(), "representation")(IMAGES)) == ["representation"]


def test_weights_are_shared():
    model = tiny_vit()
    stages = features(model, "encoder_block_0")
    before = np.array(stages(IMAGES)["encoder_block_0"])
    kernel = model.get_layer("encoder_block_0").mlp.dense_2.kernel
    kernel.assign(keras.ops.zeros_like(kernel))
    assert np.abs(np.array(stages(IMAGES)["encoder_block_0"]) - before).max() > 1e-2


def test_later_stages_are_not_computed():
    names = [layer.name for layer in features(tiny_vit(), "encoder_block_0").layers]
    assert names == ["images", "metadata", "patches", "patch_encoder", "encoder_block_0"]


def test_can_be_saved_and_loaded(tmp_path):
    stages = features(tiny_vit(), ["encoder_block_0", "representation"])
    stages.save(tmp_path / "stages.keras")
    loaded = keras.models.load_model(tmp_path / "stages.keras")(IMAGES)
    for name, expected in stages(IMAGES).items():
        np.testing.assert_array_equal(loaded[name], expected)


def test_unknown_name_names_the_nearest():
    with pytest.raises(ValueError, match=r"unknown stage of model 'vit'. Did you mean 'encoder_block_1'.*known: "):
        features(tiny_vit(), ["encoder_blok_1"])


def test_no_name_raises():
    with pytest.raises(ValueError, match="names must hold at least one stage"):
        features(tiny_vit(), [])
