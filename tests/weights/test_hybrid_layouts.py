"""Checkpoints of hybrids in timm's layout and in Google's: exact both ways, read off the file, and strict."""

import numpy as np
import pytest
from golden import GOLDENS, load
from tiny import tiny_vit
from tiny_hybrids import OPTIONS, tiny_hybrid

import keras_vit
from keras_vit.weights import LAYOUTS, from_checkpoint, load_weights, save_weights
from keras_vit.weights.files.checkpoint import open_checkpoint, write_checkpoint
from keras_vit.weights.layouts.detect import detect_layout

CASE = "timm/vit_hybrid"
# How the sources compute, which a file does not tell.
GOOGLE = {"activation": "gelu_tanh", "position_resize": "bilinear_corners", "stem_rule": "google"}


def _assert_same(model, other):
    assert [w.path for w in model.weights] == [w.path for w in other.weights]
    for ours, theirs in zip(model.weights, other.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=ours.path)


def _arrays(path):
    checkpoint = open_checkpoint(path)
    return {key: np.array(checkpoint[key]) for key in checkpoint}


@pytest.fixture
def google(tmp_path):
    """The model of the golden case and its file in Google's layout."""
    model = load(CASE)[0]
    save_weights(model, tmp_path / "x.npz", "google")
    return model, tmp_path / "x.npz"


@pytest.mark.parametrize("fields", OPTIONS)
@pytest.mark.parametrize("layout", ["google", "timm"])
def test_in_and_out_is_identical_and_the_architecture_is_read_off_the_file(layout, fields, tmp_path):
    if fields.get("pooling") == "gap":
        no_token = {"class_token": False, "position_on_prefix": False}
        fields = {**fields, **(no_token if layout == "google" else {"pool_before_norm": True})}
    model = tiny_hybrid(**fields)
    config = keras_vit.metadata(model).config
    save_weights(model, tmp_path / "x.npz", layout)
    assert detect_layout(open_checkpoint(tmp_path / "x.npz")).name == layout
    told = {"image_size": config.image_size} | ({"num_heads": 2} if layout == "timm" else {})
    loaded = from_checkpoint(tmp_path / "x.npz", **told)
    source = GOOGLE if layout == "google" else {"stem_rule": "timm"}
    assert keras_vit.metadata(loaded).config == config.replace(**source)
    _assert_same(loaded, model)
    save_weights(loaded, tmp_path / "y.npz", layout)
    before, after = _arrays(tmp_path / "x.npz"), _arrays(tmp_path / "y.npz")
    assert set(before) == set(after)
    for key, value in before.items():
        np.testing.assert_array_equal(after[key], value, err_msg=key)


def test_from_timm_to_google_and_back(google, tmp_path):
    model, path = google
    save_weights(from_checkpoint(path, keras_vit.metadata(model).config), tmp_path / "y.safetensors", "timm")
    source, back = _arrays(GOLDENS / CASE / "checkpoint.safetensors"), _arrays(tmp_path / "y.safetensors")
    assert set(source) == set(back)
    for key, value in source.items():
        np.testing.assert_array_equal(back[key], value.astype("float32"), err_msg=key)


def test_keys_and_shapes_are_those_of_the_public_files(google):
    shapes = open_checkpoint(google[1]).shapes
    stem = {k: s for k, s in shapes.items() if k.startswith(("conv", "gn", "block2/"))}
    assert stem == {
        "conv_root/kernel": (7, 7, 3, 32),
        "gn_root/scale": (1, 1, 1, 32),
        "gn_root/bias": (1, 1, 1, 32),
        "block2/unit1/conv1/kernel": (1, 1, 128, 64),
        "block2/unit1/gn1/scale": (1, 1, 1, 64),
        "block2/unit1/gn1/bias": (1, 1, 1, 64),
        "block2/unit1/conv2/kernel": (3, 3, 64, 64),
        "block2/unit1/gn2/scale": (1, 1, 1, 64),
        "block2/unit1/gn2/bias": (1, 1, 1, 64),
        "block2/unit1/conv3/kernel": (1, 1, 64, 256),
        "block2/unit1/gn3/scale": (1, 1, 1, 256),
        "block2/unit1/gn3/bias": (1, 1, 1, 256),
        "block2/unit1/conv_proj/kernel": (1, 1, 128, 256),
        "block2/unit1/gn_proj/scale": (1, 1, 1, 256),
        "block2/unit1/gn_proj/bias": (1, 1, 1, 256),
    }
    assert {key.split("/")[1] for key in shapes if key.startswith("block1/")} == {"unit1", "unit2"}
    assert "block1/unit2/conv_proj/kernel" not in shapes
    assert shapes["embedding/kernel"] == (1, 1, 256, 8)


def test_vectors_of_newer_versions_of_flax_are_read(google, tmp_path):
    model, path = google
    arrays = {key: value.squeeze() if "/gn" in f"/{key}" else value for key, value in _arrays(path).items()}
    write_checkpoint(tmp_path / "y.npz", arrays)
    assert open_checkpoint(tmp_path / "y.npz").shapes["gn_root/scale"] == (32,)
    _assert_same(from_checkpoint(tmp_path / "y.npz", keras_vit.metadata(model).config), model)


def test_google_files_run_as_google_does(google):
    """Epsilons and the kind of GELU move the outputs of this case, whose filters are tiny, far beyond rounding."""
    model, path = google
    images, expected = load(CASE)[1:]
    logits = from_checkpoint(path, image_size=(22, 36))(images)
    assert np.abs(np.array(logits) - expected["logits"]).max() > 0.1
    again = from_checkpoint(path, image_size=(22, 36), stem_rule="timm", activation="gelu")
    np.testing.assert_array_equal(again(images), model(images))


@pytest.mark.parametrize("layout", sorted(set(LAYOUTS) - {"google", "timm"}))
def test_other_layouts_are_refused(layout, tmp_path):
    with pytest.raises(ValueError, match=rf"HybridConfig can be written as google, timm\..*layout=\'{layout}\'"):
        save_weights(tiny_hybrid(), tmp_path / "x.safetensors", layout)
    with pytest.raises(ValueError, match="distillation_token=True cannot be written"):
        save_weights(tiny_hybrid(distillation_token=True), tmp_path / "x.npz", "google")


@pytest.mark.parametrize("key", ["block1/unit2/conv2/kernel", "gn_root/scale", "block2/unit1/gn_proj/bias"])
def test_a_dropped_or_misshapen_array_is_named(key, google, tmp_path):
    model, path = google
    arrays = _arrays(path)
    write_checkpoint(tmp_path / "y.npz", {k: v for k, v in arrays.items() if k != key})
    with pytest.raises(ValueError, match=rf"(?s)\+ .*needs {key}"):
        load_weights(model, tmp_path / "y.npz")
    write_checkpoint(tmp_path / "y.npz", {**arrays, key: np.concatenate([arrays[key]] * 2)})
    with pytest.raises(ValueError, match=f"{key} "):
        load_weights(model, tmp_path / "y.npz")


@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels_change_the_root(channels, google):
    with pytest.warns(UserWarning, match=f"kernels of the stem of 3 channels are adapted to {channels}"):
        model = from_checkpoint(google[1], image_size=(22, 36), num_channels=channels)
    kernel = _arrays(google[1])["conv_root/kernel"]
    expected = kernel.sum(axis=2, keepdims=True) if channels == 1 else kernel[:, :, [0, 1, 2, 0]] * 3 / 4
    np.testing.assert_allclose(model.get_layer("stem_root").convolution.kernel, expected, rtol=1e-6)


def test_features_of_another_width_are_no_channels_of_images(google, tmp_path):
    model, path = google
    arrays = _arrays(path)
    write_checkpoint(tmp_path / "y.npz", {**arrays, "embedding/kernel": arrays["embedding/kernel"][:, :, :128]})
    with pytest.raises(ValueError, match=r"embedding/kernel  \(file \(1, 1, 128, 8\)"):
        load_weights(model, tmp_path / "y.npz")


def test_hybrids_and_others_do_not_fit_each_other(google, tmp_path):
    save_weights(tiny_vit(), tmp_path / "vit.safetensors")
    with pytest.raises(ValueError, match=r"(?s)\+ stem_root/convolution/kernel"):
        load_weights(google[0], tmp_path / "vit.safetensors")
    with pytest.raises(ValueError, match=r"(?s)- block1/unit1/conv1/kernel"):
        load_weights(tiny_vit(), google[1])


def test_another_backbone_is_refused(tmp_path):
    source = _arrays(GOLDENS / CASE / "checkpoint.safetensors")
    arrays = {key.replace("backbone.stem.conv", "backbone.conv1.0"): value for key, value in source.items()}
    write_checkpoint(tmp_path / "x.safetensors", arrays)
    with pytest.raises(
        ValueError, match=r"must be timm's ResNetV2 with a plain stem. Received: 'patch_embed\.backbone"
    ):
        from_checkpoint(tmp_path / "x.safetensors", num_heads=2, image_size=(22, 36))


def test_another_image_size_resizes_the_positions(tmp_path):
    save_weights(tiny_hybrid(image_size=32), tmp_path / "x.npz", "google")
    with pytest.warns(UserWarning, match=r"positions of the grid \(4, 4\) are resized to \(3, 5\) \(bilinear_corners"):
        model = from_checkpoint(tmp_path / "x.npz", image_size=(22, 36))
    assert model.get_layer("patch_encoder").positions.shape == (1, 16, 16)


def test_published_sizes_need_no_heads(tmp_path):
    model = keras_vit.create_model("vit_tiny_r_s16_p8_224", num_classes=2)
    save_weights(model, tmp_path / "x.safetensors")
    loaded = from_checkpoint(tmp_path / "x.safetensors")
    assert keras_vit.metadata(loaded).config == keras_vit.metadata(model).config
    _assert_same(loaded, model)
