"""Checkpoints in models of another grid, window or patch: resized as their source does it, and said once."""

import json
import warnings

import numpy as np
import pytest
import safetensors.numpy
from golden import GOLDENS
from tiny import randomize, tiny_vit

import keras_vit
from keras_vit.layers.core.resample import resample_kernel, resize_bias_table, resize_positions
from keras_vit.models import SwinConfig, build_swin
from keras_vit.weights import from_checkpoint, load_weights, save_weights
from keras_vit.weights.files.checkpoint import open_checkpoint

LEGACY = GOLDENS / "torchvision/vit_legacy_mlp_keys/checkpoint.safetensors"
SWIN = SwinConfig(image_size=48, embed_dim=8, depths=(2, 1), num_heads=(1, 2), window_size=6, num_classes=3)


def _stripped(model, path, layout):
    """Writes a model as its source would: without a word about it."""
    save_weights(model, path, layout)
    safetensors.numpy.save_file(safetensors.numpy.load_file(path), path)
    return path


@pytest.fixture(scope="module")
def swin(tmp_path_factory):
    """A callable that gives the path of a tiny Swin Transformer of a source, and its model."""
    folder, written = tmp_path_factory.mktemp("swin"), {}

    def write(layout, **fields):
        key = (layout, *sorted(fields.items()))
        if key not in written:
            model = build_swin(SWIN.replace(window_rule=layout, **fields))
            randomize(model)
            written[key] = _stripped(model, folder / f"{len(written)}.safetensors", layout), model
        return written[key]

    return write


def _table(model, block):
    return np.asarray(model.get_layer(f"encoder_block_{block}").attention.relative_position_bias_table)


@pytest.mark.parametrize(
    ("layout", "method"), [("timm", "geometric"), ("microsoft", "bicubic"), ("huggingface", "bicubic")]
)
def test_another_window_resizes_the_biases_by_the_sources_method_and_warns_once(layout, method, swin):
    path, source = swin(layout)
    with pytest.warns(UserWarning, match="relative position biases") as caught:
        model = from_checkpoint(path, image_size=32, window_size=4)
    assert [str(warning.message) for warning in caught] == [
        f"{path.name}: relative position biases of the window (6, 6) are resized to (4, 4) ({method})"
    ]
    assert keras_vit.metadata(model).config == SWIN.replace(
        image_size=32, window_size=4, window_rule=layout, position_resize=method
    )
    for block in range(3):
        expected = resize_bias_table(_table(source, block), (6, 6), (4, 4), method)
        np.testing.assert_array_equal(_table(model, block), expected)
    with pytest.warns(UserWarning, match="relative position biases"):
        report = load_weights(model, path)
    assert report.notes == (f"relative position biases of the window (6, 6) are resized to (4, 4) ({method})",)


def test_only_the_last_stage_changes_where_the_image_shrinks_and_windows_need_not_be_square(swin):
    path, source = swin("timm")
    with pytest.warns(UserWarning, match=r"window \(6, 6\) are resized to \(5, 3\) \(geometric\)$"):
        model = from_checkpoint(path, image_size=(40, 24))
    np.testing.assert_array_equal(_table(model, 1), _table(source, 1))
    np.testing.assert_array_equal(_table(model, 2), resize_bias_table(_table(source, 2), (6, 6), (5, 3), "geometric"))


def test_a_window_that_is_not_square_is_told_by_the_model_or_a_config(swin, tmp_path):
    path, source = swin("timm", window_size=(6, 3))
    with pytest.raises(ValueError, match=r"must be of a square window or fit window_size.*Received: 55 entries"):
        from_checkpoint(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = from_checkpoint(path, window_size=(6, 3), image_size=48)
    np.testing.assert_array_equal(_table(model, 0), _table(source, 0))
    (tmp_path / "model.safetensors").write_bytes(path.read_bytes())
    content = {"architecture": "swin", "model_args": {"window_size": [6, 3], "img_size": 48}}
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.warns(UserWarning, match=r"window \(6, 3\) are resized to \(4, 4\)"):
        model = from_checkpoint(tmp_path / "model.safetensors", window_size=4)
    assert keras_vit.metadata(model).config.image_size == (48, 48)
    np.testing.assert_array_equal(_table(model, 0), resize_bias_table(_table(source, 0), (6, 3), (4, 4), "geometric"))


def test_a_table_of_no_window_and_another_number_of_heads_are_refused(swin, tmp_path):
    path, source = swin("timm")
    tensors = safetensors.numpy.load_file(path)
    key = "layers.0.blocks.1.attn.relative_position_bias_table"
    for table in (tensors[key][:-1], np.tile(tensors[key], (1, 2))):
        safetensors.numpy.save_file({**tensors, key: table}, tmp_path / "x.safetensors")
        with pytest.raises(ValueError, match=rf"~ {key}  \(file"):
            load_weights(source, tmp_path / "x.safetensors")


def test_in_version_2_the_window_of_training_stays_that_of_the_file(swin):
    path, source = swin("microsoft", version=2)
    assert keras_vit.metadata(from_checkpoint(path)).config == SWIN.replace(
        version=2, window_rule="microsoft", position_resize="bicubic"
    )
    model = from_checkpoint(path, image_size=96, window_size=12)
    assert keras_vit.metadata(model).config.pretrained_window_sizes == (6, 6)
    # Coordinates of neighbors are the same, so their biases are.
    small, large = (m.get_layer("encoder_block_0").attention for m in (source, model))
    inner = np.asarray(large.position_bias()).reshape(1, 12, 12, 12, 12)[:, :6, :6, :6, :6]
    np.testing.assert_allclose(inner, np.asarray(small.position_bias()).reshape(inner.shape), atol=1e-5)
    own = from_checkpoint(path, image_size=96, window_size=12, pretrained_window_sizes=(6, 6))
    assert keras_vit.metadata(own).config == keras_vit.metadata(model).config
    with pytest.raises(ValueError, match=r"pretrained_window_sizes must be that of the weights.*trained with the wind"):
        from_checkpoint(path, image_size=96, window_size=12, pretrained_window_sizes=(12, 12))


def test_in_version_2_the_window_of_training_is_read_off_the_coordinates(swin):
    path, source = swin("microsoft", version=2, pretrained_window_sizes=(3, 5))
    config = keras_vit.metadata(from_checkpoint(path)).config
    assert (config.pretrained_window_sizes, config.image_size, config.window_size) == ((3, 5), (48, 48), (6, 6))
    assert keras_vit.metadata(from_checkpoint(path, window_size=3)).config.pretrained_window_sizes == (3, 5)
    with pytest.raises(ValueError, match="pretrained_window_sizes must be that of the weights"):
        load_weights(build_swin(keras_vit.metadata(source).config.replace(pretrained_window_sizes=None)), path)


@pytest.mark.parametrize("case", ["torchvision/vit_legacy_mlp_keys", "google/vit_token"])
@pytest.mark.parametrize("patch_size", [4, (16, 4)])
def test_another_patch_resamples_the_kernel_and_warns_once(case, patch_size):
    (path,) = (GOLDENS / case).glob("checkpoint.*")
    heads = {} if case.startswith("google") else {"num_heads": 8}
    checkpoint, pair = open_checkpoint(path), (4, 4) if patch_size == 4 else patch_size
    with pytest.warns(UserWarning, match="patch kernels") as caught:
        model = from_checkpoint(path, patch_size=patch_size, num_channels=1, **heads)
    (message,) = (str(warning.message) for warning in caught)
    assert f"patch kernels of (8, 8) are resampled to {pair}; patch kernels of 3 channels are adapted to 1" in message
    assert f"positions of the grid (4, 4) are resized to {(32 // pair[0], 32 // pair[1])}" in message
    kernel = checkpoint["embedding/kernel" if heads == {} else "conv_proj.weight"]
    kernel = kernel if heads == {} else kernel.transpose(2, 3, 1, 0)
    expected = resample_kernel(kernel, pair).sum(axis=2)
    ours = np.asarray(model.get_layer("patch_encoder").projection.kernel).reshape(expected.shape)
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_a_kernel_of_as_many_pixels_in_another_shape_is_resampled(tmp_path):
    path = _stripped(tiny_vit(image_size=(32, 27), patch_size=(16, 9)), tmp_path / "x.safetensors", "timm")
    model = tiny_vit(image_size=(24, 36), patch_size=12)  # of the same grid, and 24 is no multiple of 16
    with pytest.warns(UserWarning, match=r"^x.safetensors: patch kernels of \(16, 9\) are resampled to \(12, 12\)$"):
        load_weights(model, path)
    kernel = open_checkpoint(path)["patch_embed.proj.weight"].transpose(2, 3, 1, 0)
    expected = resample_kernel(kernel, (12, 12)).reshape(-1, 16)
    np.testing.assert_allclose(model.get_layer("patch_encoder").projection.kernel, expected, atol=1e-6)


NONSQUARE = {"image_size": (32, 72), "num_classes": 3}


@pytest.fixture(scope="module")
def table_of_36(tmp_path_factory):
    """A timm file of a 4 x 9 grid, whose 36 entries look like 6 x 6, and its position table."""
    model = tiny_vit(**NONSQUARE)
    path = tmp_path_factory.mktemp("grid") / "model.safetensors"
    return _stripped(model, path, "timm"), np.asarray(model.get_layer("patch_encoder").positions)


def test_a_grid_that_nothing_tells_is_taken_to_be_square_or_the_models(table_of_36):
    path, table = table_of_36
    model = from_checkpoint(path, num_heads=2)
    assert keras_vit.metadata(model).config.image_size == (48, 48)
    model = from_checkpoint(path, num_heads=2, image_size=(32, 72))
    np.testing.assert_array_equal(model.get_layer("patch_encoder").positions, table)


@pytest.mark.parametrize(
    "content",
    [
        {"image_size": [32, 72]},
        {"architecture": "vit", "model_args": {"img_size": [32, 72]}},
        {"architecture": "vit", "pretrained_cfg": {"input_size": [3, 32, 72], "mean": [0.5] * 3, "std": [0.5] * 3}},
    ],
    ids=["transformers", "timm model_args", "timm input_size"],
)
def test_a_grid_that_a_config_tells_is_believed(content, table_of_36, tmp_path):
    path, table = table_of_36
    (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(content))
    model = from_checkpoint(tmp_path / path.name, num_heads=2)
    assert keras_vit.metadata(model).config.image_size == (32, 72)
    # As many entries as the file's, but on another grid.
    with pytest.warns(UserWarning, match=r"positions of the grid \(4, 9\) are resized to \(6, 6\)"):
        model = from_checkpoint(tmp_path / path.name, num_heads=2, image_size=48)
    expected = resize_positions(table, (4, 9), (6, 6), 1)
    np.testing.assert_array_equal(model.get_layer("patch_encoder").positions, expected)
    with pytest.warns(UserWarning, match=r"positions of the grid \(4, 9\) are resized to \(6, 6\)"):
        load_weights(model, tmp_path / path.name)
    # A size that the entries do not fit is that of something else.
    (tmp_path / "config.json").write_text(json.dumps({"image_size": 224}))
    assert keras_vit.metadata(from_checkpoint(tmp_path / path.name, num_heads=2)).config.image_size == (48, 48)
