"""Tables of positions of sources that have none but square ones, in models of images that are not square."""

import json
import warnings

import numpy as np
import pytest
import safetensors.numpy
from golden import config_of
from tiny import tiny_vit

import keras_vit
from keras_vit.layers.core.resample import resize_positions
from keras_vit.weights import from_checkpoint, load_weights, save_weights
from keras_vit.weights.hub.catalog import catalog

DINO = {"layer_scale_init": 1.0, "num_classes": 0}
BARE = {"class_token": False, "position_on_prefix": False}
SOURCES = {
    "dinov2": ("dinov2", DINO, "bicubic_offset"),
    "dinov2, registers": ("dinov2", {**DINO, "num_registers": 2}, "bicubic_antialias"),
    "huggingface": ("huggingface", DINO, "bicubic"),
    "huggingface, registers": ("huggingface", {**DINO, "num_registers": 2}, "bicubic_antialias"),
    "huggingface, siglip": ("huggingface", {**BARE, "pooling": "map", "num_classes": 0}, "bicubic"),
}
# As many patches as the table of (24, 24) has, 6 x 6.
SIZE = (16, 36)


def _positions(model):
    return np.asarray(model.get_layer("patch_encoder").positions)


def _written(fields, layout, path, size=(24, 24)):
    """A source's file of a tiny model of patches of 4, without a word about it, and the model."""
    model = tiny_vit(image_size=size, patch_size=4, **fields)
    save_weights(model, path, layout)
    safetensors.numpy.save_file(safetensors.numpy.load_file(path), path)
    return model


@pytest.mark.parametrize("source", SOURCES)
def test_as_many_patches_in_another_shape_are_resized_from_a_square(source, tmp_path):
    layout, fields, method = SOURCES[source]
    path = tmp_path / "x.safetensors"
    written = _written(fields, layout, path)
    prefix = int("class_token" not in fields)
    expected = resize_positions(_positions(written), (6, 6), (4, 9), prefix, method)
    said = rf"positions of the grid \(6, 6\) are resized to \(4, 9\) \({method}\)"
    heads = keras_vit.metadata(written).config.num_heads
    # Nor does it help to say so beside the file, as the source itself would not listen.
    for content in ({}, {"image_size": list(SIZE)}):
        (tmp_path / "config.json").write_text(json.dumps(content))
        with pytest.warns(UserWarning, match=said):
            model = from_checkpoint(path, num_heads=heads, image_size=SIZE)
        np.testing.assert_array_equal(_positions(model), expected)
        with pytest.warns(UserWarning, match=said):
            load_weights(model, path)
        with pytest.warns(UserWarning, match=said):
            again = from_checkpoint(path, config=keras_vit.metadata(model).config)
        np.testing.assert_array_equal(_positions(again), expected)


@pytest.mark.parametrize("layout", ["timm", "huggingface", "torchvision", "google"])
def test_other_sources_have_tables_in_the_shape_of_the_image(layout, tmp_path):
    path = tmp_path / "x.safetensors"
    written = _written({}, layout, path, SIZE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = from_checkpoint(path, num_heads=keras_vit.metadata(written).config.num_heads, image_size=SIZE)
    np.testing.assert_array_equal(_positions(model), _positions(written))


@pytest.mark.parametrize("source", SOURCES)
def test_our_own_files_say_how_a_table_lies(source, tmp_path):
    layout, fields, _ = SOURCES[source]
    model = tiny_vit(image_size=SIZE, patch_size=4, **fields)
    path = tmp_path / "x.safetensors"
    save_weights(model, path, layout)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for again in (from_checkpoint(path), from_checkpoint(path, config=keras_vit.metadata(model).config)):
            np.testing.assert_array_equal(_positions(again), _positions(model))
    with pytest.raises(ValueError, match=r"must determine the image_size by its arrays.*\(16, 36\), .* as \(24, 24\)"):
        save_weights(model, tmp_path / "x.npz", layout)


def test_the_entry_of_the_class_token_is_not_taken_for_one_of_a_square(tmp_path):
    """25 entries are five by five, but here 24 patches and a class token."""
    path = tmp_path / "x.safetensors"
    written = _written(DINO, "dinov2", path, (16, 24))
    model = from_checkpoint(path, num_heads=keras_vit.metadata(written).config.num_heads, image_size=(16, 24))
    np.testing.assert_array_equal(_positions(model), _positions(written))


def test_published_models_with_registers_are_antialiased():
    entries = {name: entry for name, entry in catalog().items() if entry.layout == "huggingface"}
    for name, entry in entries.items():
        config = entry.config()
        if config.layer_scale_init is not None:
            method = "bicubic_antialias" if config.num_registers else "bicubic"
            assert config.position_resize == method, name
    assert any(entry.config().num_registers for entry in entries.values())


@pytest.mark.parametrize("source", SOURCES)
def test_a_golden_that_says_nothing_is_resized_as_its_source_does_it(source):
    layout, fields, method = SOURCES[source]
    case = {"family": "vit", "image_size": [24, 24], "patch_size": 4, "hidden_dim": 8, "num_layers": 1, "num_heads": 2}
    case |= {"mlp_dim": 12, "num_classes": 0, "class_token": True, "qk_norm": False, "layer_norm_epsilon": 1e-6}
    case |= {"pre_logits_dim": None, "position_on_prefix": True, "pooling": "token", "distilled": False, "gelu": "erf"}
    case |= {"position": "learned", "swiglu": False, "layer_scale": True, "num_registers": 0}
    assert config_of(case | {"num_registers": fields.get("num_registers", 0)}, layout).position_resize == method
    for size, drops in ((26, True), ([24, 27], True), ([24, 28], False)):
        config = config_of(case | {"image_size": size}, layout)
        assert (config.drop_remainder, config.grid_size[0]) == (drops, 6)


@pytest.mark.parametrize("kind", [{}, {"layer_scale_init": 1e-5}, {"num_registers": 2, "position_on_prefix": False}])
def test_a_table_that_may_be_of_images_that_are_not_square_is_told(kind, tmp_path):
    path, fields = tmp_path / "x.safetensors", {"position_on_prefix": False, **kind}
    written = tiny_vit(image_size=(20, 20), patch_size=4, **fields)
    save_weights(written, path, "timm")
    safetensors.numpy.save_file(safetensors.numpy.load_file(path), path)
    heads = {"num_heads": keras_vit.metadata(written).config.num_heads}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = from_checkpoint(path, **heads)
    assert model.input_shape[1:3] == (20, 20)
    assert len([w for w in caught if "image_size=" in str(w.message)]) == (not kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert from_checkpoint(path, image_size=20, **heads).input_shape[1:3] == (20, 20)
        if not kind:  # 25 entries are 6 x 4 patches and a class token as well.
            other = from_checkpoint(path, image_size=(24, 16), **heads)
            assert keras_vit.metadata(other).config.position_on_prefix
