"""Checkpoints of any model in every layout: out and in again bit for bit, or refused with the reason."""

import json
import re
import warnings

import numpy as np
import pytest
from hypothesis import example, given
from random_configs import VITS, examples, swin, swin_configs, vit, vit_configs
from random_models import BUFFERS, assert_holds, error_of, fill, forget, known_fields_of, model_and_weights, read_config

import keras_vit
from keras_vit.models import HybridConfig, SwinConfig
from keras_vit.weights import LAYOUTS, from_checkpoint, load_weights, save_weights
from keras_vit.weights.files.checkpoint import open_checkpoint, write_checkpoint
from keras_vit.weights.layouts.detect import detect_layout
from keras_vit.weights.publish.timm_config import timm_config

# Fields that no layout tells.
UNTOLD = {
    "layer_norm_epsilon",
    "position_resize",
    "pre_logits_activation",
    "classifier_activation",
    "dropout_rate",
    "attention_dropout_rate",
    "drop_path_rate",
    "drop_path_schedule",
    "window_rule",
    "window_size",
    "stem_rule",
}
# What once did not come back.
MENDED = {
    "swin, a window beyond the grid": swin(
        image_size=(4, 8), patch_size=4, window_size=(1, 3), depths=(1,), num_heads=(1,)
    ),
    "swin, windows in no square": swin(image_size=(32, 64), patch_size=2, window_rule="microsoft"),
    "swin, no biases": swin(qkv_bias=False),
    "swin v2, no biases": swin(version=2, qkv_bias=False),
    "swin, swiglu": swin(activation="swiglu"),
    "swin, widths cut to whole numbers": swin(mlp_ratio=1.7),
    "pre_logits of twice the width": vit(pre_logits_dim=16),
    "attention pooling with a norm behind it": vit(pooling="map", pool_before_norm=True),
}
# Pairs of which the arrays of timm's files are the same: that which they are taken for comes first.
ALIKE = {
    "a norm behind the pooling": (vit(pooling="gap", pool_before_norm=True), vit(pool_before_norm=True)),
    "a norm in front of it": (vit(), vit(pooling="gap")),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("properties")


def _written(model, layout, folder, suffix=".safetensors"):
    """The path of the model in a layout, or `None` where it is refused: with the reason, and nothing is written."""
    path = folder / f"{layout}{suffix}"
    path.unlink(missing_ok=True)
    error = error_of(save_weights, model, path, layout)
    if error is None:
        return path
    reasons = [r"cannot hold this model. Received: '\w+'; \w+", "can be written as"]
    reasons += ["must determine the (pooling|image_size) by its arrays"] if suffix == ".npz" else []
    assert re.search("|".join(reasons), error)
    assert not path.exists()
    return None


def _arrays(path):
    checkpoint = open_checkpoint(path)
    return {key: checkpoint[key] for key in checkpoint}


def _told(config):
    """What keys and shapes tell of a config, as far as it changes the model."""
    fields = {name: value for name, value in config.get_config().items() if name not in UNTOLD}
    fields["activation"] = "swiglu" if config.activation == "swiglu" else "another"
    if isinstance(config, SwinConfig):
        # Windows are never larger than the grid, and widths are ints.
        fields["mlp_ratio"] = [int(width * config.mlp_ratio) for width in config.hidden_dims]
        return fields | {"windows": config.windows, "shifts": config.shifts}
    fields["layer_scale_init"] = config.layer_scale_init is not None
    fields["head_bias"] = config.head_bias or not config.num_classes
    # Of a hybrid it says nothing, and of others only where there is a rest.
    rest = any(side % patch for side, patch in zip(config.image_size, config.patch_size, strict=True))
    fields["drop_remainder"] = rest and not isinstance(config, HybridConfig)
    if config.position_embedding == "sincos2d" or not (config.class_token or config.distillation_token):
        fields["position_on_prefix"] = False  # no entry, or zeros
    return fields


def _check_arrays_alone(model, layout, folder):
    """A file without a description is read as the same architecture, or it is not written."""
    config = keras_vit.metadata(model).config
    path = _written(model, layout, folder, ".npz")
    if path is None:
        assert config.pooling == ("token" if config.pool_before_norm else "gap"), layout
    else:
        assert _told(read_config(path, **known_fields_of(config, layout))) == _told(config), layout


def _check_round_trips(config, folder):
    model, weights = model_and_weights(config)
    fill(model, weights)
    first = None
    for layout in LAYOUTS:
        path = _written(model, layout, folder)
        if path is None:
            assert _written(model, layout, folder, ".npz") is None
            continue
        # The first DeiT files have timm's keys.
        assert detect_layout(open_checkpoint(path)).name in (layout, "timm" if layout == "deit" else layout)
        _check_arrays_alone(model, layout, folder)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            forget(model)
            report = load_weights(model, path, layout)
            assert_holds(model, weights)
            assert read_config(path) == config
        assert report.new == report.skipped == report.replaced == report.notes == ()
        assert all(re.search(BUFFERS, key) for key in report.ignored)
        # Every further layout lies between two times of the first one.
        if first is None:
            first = layout, {key: value.tobytes() for key, value in _arrays(path).items()}
            again = from_checkpoint(path)
            assert_holds(again, weights)
            assert keras_vit.metadata(again).config == config
        else:
            back = _arrays(_written(model, first[0], folder))
            assert {key: value.tobytes() for key, value in back.items()} == first[1]


FAMILIES = {**{family: vit(**fields) for family, fields in VITS.items()}, **MENDED}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_comes_back_or_is_refused(folder, family):
    _check_round_trips(FAMILIES[family], folder)


@given(vit_configs())
@examples(10, 300)
def test_a_vit_in_every_layout_comes_back_or_is_refused(folder, config):
    _check_round_trips(config, folder)


_ONE_TOKEN_WINDOWS = SwinConfig(
    image_size=2,
    patch_size=1,
    embed_dim=4,
    depths=(1, 1, 1),
    num_heads=(1, 1, 1),
    window_size=2,
    num_classes=3,
    version=2,
    window_rule="huggingface",
    position_resize="geometric",
)


@given(swin_configs())
@example(_ONE_TOKEN_WINDOWS)
@examples(12, 150)
def test_a_swin_in_every_layout_comes_back_or_is_refused(folder, config):
    _check_round_trips(config, folder)


@pytest.mark.parametrize("pair", ALIKE)
@pytest.mark.parametrize("layout", ["timm", "deit", "dinov2"])
def test_poolings_of_the_same_arrays_are_told_by_what_describes_them(layout, pair, tmp_path):
    """By the file itself, by `config.json` or by arguments; else they are taken for the commoner one."""
    for config in ALIKE[pair]:
        model, weights = model_and_weights(config)
        path = _written(model, layout, tmp_path)
        assert read_config(path) == config
        write_checkpoint(path, _arrays(path))
        (tmp_path / "config.json").unlink(missing_ok=True)
        assert read_config(path, num_heads=2).pooling == ALIKE[pair][0].pooling
        assert read_config(path, num_heads=2, pooling=config.pooling).pooling == config.pooling
        content = timm_config(config, keras_vit.metadata(model).input_spec)
        (tmp_path / "config.json").write_text(json.dumps(content))
        assert _told(read_config(path)) == _told(config)
        assert (_written(model, layout, tmp_path, ".npz") is None) == (config == ALIKE[pair][1])
    fill(model, weights)
    save_weights(model, path, layout)
    assert_holds(from_checkpoint(path, config), weights)


@pytest.mark.parametrize(
    ("layout", "fields"),
    [("timm", {}), ("dinov2", VITS["dinov2"]), ("huggingface", {}), ("huggingface", VITS["dinov2"])],
)
def test_without_biases_of_queries_keys_and_values_a_model_is_one_of_zeros(layout, fields, tmp_path):
    model, _ = model_and_weights(vit(qkv_bias=False, **fields))
    loaded = keras_vit.from_checkpoint(_written(model, layout, tmp_path, ".npz"), num_heads=2)
    assert not loaded.count_params() - model.count_params()
    assert keras_vit.metadata(loaded).config.qkv_bias is False
    zeros, _ = model_and_weights(vit(**fields))
    ours = {variable.path: variable for variable in model.weights}
    for variable in zeros.weights:
        variable.assign(ours[variable.path] if variable.path in ours else np.zeros(variable.shape))
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype("float32")
    np.testing.assert_allclose(model.predict(images, verbose=0), zeros.predict(images, verbose=0), atol=1e-6)


def test_a_bias_that_lacks_in_one_block_is_named(tmp_path):
    model, _ = model_and_weights(vit())
    path = _written(model, "timm", tmp_path, ".npz")
    arrays = dict(np.load(path))
    del arrays["blocks.0.attn.qkv.bias"]
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=r"encoder_block_0/attention/qkv/bias|blocks\.0\.attn\.qkv\.bias"):
        keras_vit.from_checkpoint(path, num_heads=2)


def test_fixed_positions_do_not_tell_the_size_of_the_image(tmp_path):
    model, _ = model_and_weights(vit(**VITS["sincos2d"]))
    path = _written(model, "big_vision", tmp_path, ".npz")
    with pytest.raises(ValueError, match=r"image_size cannot be inferred .* pass image_size=. Received: hidden_dim=8"):
        read_config(path)
    assert read_config(path, image_size=(8, 24)).image_size == (8, 24)


@pytest.mark.parametrize(
    ("layout", "config", "reason"),
    [
        ("google", vit(pooling="gap"), "a model with pooling='gap' has no class token"),
        ("google", vit(**VITS["sincos2d"]), "position_embedding='sincos2d' cannot be written"),
        ("huggingface", vit(**{**VITS["dinov2, classifier"], "num_classes": 0}), "is that of DINOv2's classifier"),
        ("huggingface", vit(layer_scale_init=1.0), "is that of DINOv2's classifier, which has no other"),
        ("timm", vit(patch_bias=False), "patch_bias=False cannot be written"),
        ("timm", vit(**VITS["clip, projection"]), "head_bias=False cannot be written"),
    ],
)
def test_what_a_source_cannot_build_is_refused(layout, config, reason, tmp_path):
    for suffix in (".safetensors", ".npz"):
        with pytest.raises(ValueError, match=rf"layout '{layout}' cannot hold this model. .*; .*{reason}"):
            save_weights(model_and_weights(config)[0], tmp_path / f"x{suffix}", layout)


@pytest.mark.parametrize(
    ("layout", "config"),
    [
        ("deit", vit()),
        ("timm", vit()),
        ("microsoft", swin()),
        ("dinov2", vit(layer_scale_init=1.0)),
        ("big_vision", vit(**VITS["sincos2d"])),
        ("microsoft", swin(depths=(2,), num_heads=(2,), num_classes=0, image_size=16)),
        ("timm", swin(depths=(2,), num_heads=(2,), num_classes=0, image_size=16)),
    ],
)
def test_a_file_is_taken_for_the_layout_that_wrote_it(layout, config, folder):
    model, weights = model_and_weights(config)
    fill(model, weights)
    path = _written(model, layout, folder)
    forget(model)
    load_weights(model, path, layout)
    assert_holds(model, weights)


def test_the_mask_of_a_swin_tells_the_size_of_a_square_image_alone(tmp_path):
    for size, windows in ((64, (8, 8)), ((32, 64), (4, 8))):
        config = swin(image_size=size, patch_size=2, window_rule="microsoft")
        assert tuple(side // 4 for side in config.resolutions[0]) == windows
        path = _written(model_and_weights(config)[0], "microsoft", tmp_path, ".npz")
        if windows[0] == windows[1]:
            assert read_config(path).image_size == (64, 64)
    with pytest.raises(ValueError, match=r"image_size cannot be inferred from this file .*; pass image_size="):
        read_config(path)
    assert read_config(path, image_size=(32, 64)).image_size == (32, 64)
