"""Old forms of big_vision's files that its `fix_old_checkpoints` reads."""

import warnings

import numpy as np
import pytest
from tiny import tiny_vit

import keras_vit
from keras_vit.weights import from_checkpoint, load_weights, save_weights

FIELDS = {
    "image_size": (16, 16),
    "patch_size": 4,
    "class_token": False,
    "position_on_prefix": False,
    "activation": "gelu_tanh",
}
TABLES = ("pos_embedding", "Transformer/pos_embedding", "Transformer/posembed_input/pos_embedding")
LEFT_OUT = "the entry of the class token is left out of the positions, as the model has none"


def _written(change, path, pooling, **fields):
    """A tiny model and its file with the keys and arrays of another time."""
    model = tiny_vit(**{**FIELDS, "pooling": pooling, **fields})
    save_weights(model, path.with_name("new.npz"), "big_vision")
    np.savez(path, **change(dict(np.load(path.with_name("new.npz")))))
    return model


def _with_entry(table="pos_embedding"):
    def change(arrays):
        positions = arrays.pop("params/pos_embedding")
        arrays[f"params/{table}"] = np.concatenate([np.ones_like(positions[:, :1]), positions], axis=1)
        return arrays

    return change


def _images(model):
    return np.random.default_rng(0).uniform(-1, 1, (1, *model.input_shape[1:])).astype("float32")


def _positions(model):
    return np.asarray(model.get_layer("patch_encoder").positions)


def test_the_attention_pooling_may_lie_at_the_root(tmp_path):
    path = tmp_path / "x.npz"
    model = _written(lambda a: {key.replace("MAPHead_0/", ""): v for key, v in a.items()}, path, "map")
    assert "params/probe" in np.load(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = from_checkpoint(path)
    assert keras_vit.metadata(again).config.pooling == "map"
    np.testing.assert_array_equal(again(_images(model)), model(_images(model)))


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("pooling", ["gap", "map"])
def test_a_position_of_a_class_token_that_is_not_there_is_dropped(pooling, table, tmp_path):
    path = tmp_path / "x.npz"
    model = _written(_with_entry(table), path, pooling)
    with pytest.warns(UserWarning, match=f"{LEFT_OUT}$"):
        again = from_checkpoint(path)
    assert keras_vit.metadata(again).config.image_size == (16, 16)
    np.testing.assert_array_equal(_positions(again), _positions(model))
    np.testing.assert_array_equal(again(_images(model)), model(_images(model)))
    with pytest.warns(UserWarning, match=LEFT_OUT):
        report = load_weights(again, path)
    assert report.notes == (LEFT_OUT,)
    with pytest.warns(UserWarning, match=rf"{LEFT_OUT}; positions of the grid \(4, 4\) are resized to \(4, 6\)"):
        wide = from_checkpoint(path, image_size=(16, 24))
    save_weights(model, tmp_path / "y.npz", "big_vision")
    with pytest.warns(UserWarning, match="are resized"):
        expected = from_checkpoint(tmp_path / "y.npz", image_size=(16, 24))
    np.testing.assert_array_equal(_positions(wide), _positions(expected))


def test_an_image_of_as_many_patches_has_no_such_entry(tmp_path):
    """10 are 2 x 5 patches, if that is the image, else 3 x 3 and one of no token."""
    path = tmp_path / "x.npz"
    model = _written(lambda arrays: arrays, path, "gap", image_size=(8, 20))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = from_checkpoint(path, image_size=(8, 20))
        load_weights(again, path)
    np.testing.assert_array_equal(_positions(again), _positions(model))
    with pytest.warns(UserWarning, match=LEFT_OUT):
        square = from_checkpoint(path)
    np.testing.assert_array_equal(_positions(square), _positions(model)[:, 1:])
