"""Checkpoints in every layout: exact both ways, and strict."""

import contextlib
import gc
import json
import re
import warnings

import keras
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from golden import CASES, GOLDENS, cases, load, read_case, swin_config
from tiny import CONFIG, tiny_vit

import keras_vit
from keras_vit.layers.core.resample import resize_positions
from keras_vit.weights import LAYOUTS, from_checkpoint, load_weights, save_weights
from keras_vit.weights import load as load_module
from keras_vit.weights.adapt import adapt_channels
from keras_vit.weights.files.checkpoint import open_checkpoint, write_checkpoint
from keras_vit.weights.key_selection import KeySelection
from keras_vit.weights.layouts.detect import detect_layout
from keras_vit.weights.save import to_tensors

LEGACY = GOLDENS / "torchvision/vit_legacy_mlp_keys/checkpoint.safetensors"


def _weights(model):
    return {variable.path: np.array(variable) for variable in model.weights}


def _checkpoint(case):
    (path,) = (GOLDENS / case).glob("checkpoint.*")
    return open_checkpoint(path)


@pytest.mark.parametrize("case", CASES)
def test_the_layout_is_detected(case):
    layout = detect_layout(_checkpoint(case))
    assert layout.name == case.split("/")[0]
    assert detect_layout(_checkpoint(case), layout.name) == layout


@pytest.mark.parametrize("case", [case for case in CASES if case != "dinov2/dinov2_interpolated"])
def test_same_layout_in_and_out_is_identical_bit_for_bit(case):
    checkpoint, (model, *_) = _checkpoint(case), load(case)
    layout = detect_layout(checkpoint)
    report = load_weights(model, checkpoint.path)
    written = to_tensors(model, layout)
    # A mask token is made anew; stacked blocks are used one by one but written as they came.
    constants = set(layout.constants(keras_vit.metadata(model).config))
    assert constants <= set(checkpoint)
    assert set(written) == set(checkpoint) - (set(report.ignored) - constants)
    for key, value in written.items():
        source = checkpoint[key]
        if key in constants:
            source = np.zeros_like(source)
        assert value.shape == source.shape, key
        np.testing.assert_array_equal(value.astype(source.dtype), source, err_msg=key)


def _swin(case):
    """The model of a Swin case, filled, and its checkpoint."""
    checkpoint = _checkpoint(case)
    return from_checkpoint(checkpoint.path, swin_config(read_case(case)[0], case.split("/")[0])), checkpoint


@pytest.mark.parametrize("case", cases(swin=True))
def test_swin_in_and_out_is_identical_and_its_buffers_are_made_anew(case):
    model, checkpoint = _swin(case)
    layout = detect_layout(checkpoint)
    assert layout.name == case.split("/")[0]
    written = to_tensors(model, layout)
    assert set(written) == set(checkpoint)
    for key, value in written.items():
        if key.endswith(("coords_table", "attn_mask")):
            np.testing.assert_allclose(value, checkpoint[key], atol=1e-6, err_msg=key)
        else:
            np.testing.assert_array_equal(value, checkpoint[key], err_msg=key)


@pytest.mark.parametrize("case", cases(swin=True))
def test_the_architecture_of_a_swin_is_read_off_the_file(case):
    model, checkpoint = _swin(case)
    config = keras_vit.metadata(model).config
    told = {"image_size": config.image_size, "window_size": config.window_size}
    if config.pretrained_window_sizes:
        told["pretrained_window_sizes"] = config.pretrained_window_sizes
    assert keras_vit.metadata(from_checkpoint(checkpoint.path, **told)).config == config


@pytest.mark.parametrize("layout", ["timm", "microsoft", "huggingface"])
@pytest.mark.parametrize("fields", [{}, {"version": 2}], ids=["v1", "v2"])
def test_a_swin_is_the_same_in_every_layout(fields, layout, tmp_path):
    config = keras_vit.models.SwinConfig(
        image_size=32, embed_dim=8, depths=(2, 1), num_heads=(1, 2), window_size=4, num_classes=3, **fields
    )
    model = keras_vit.models.build_swin(config)
    save_weights(model, tmp_path / "x.safetensors", layout)
    assert detect_layout(open_checkpoint(tmp_path / "x.safetensors")).name == layout
    loaded = from_checkpoint(tmp_path / "x.safetensors", config)
    for name, value in _weights(model).items():
        np.testing.assert_array_equal(_weights(loaded)[name], value, err_msg=name)


def test_a_swin_is_not_written_where_the_source_would_run_it_otherwise(tmp_path):
    model, _ = _swin("timm/swin_padded")
    for layout in ("microsoft", "huggingface"):
        with pytest.raises(ValueError, match="window_rule='timm' differs from"):
            save_weights(model, tmp_path / "x.safetensors", layout)
    with pytest.raises(ValueError, match=r"SwinConfig can be written as huggingface, microsoft, timm.*layout='google'"):
        save_weights(model, tmp_path / "x.npz", "google")
    with pytest.raises(ValueError, match=r"ViTConfig can be written as big_vision, .*layout='microsoft'"):
        save_weights(tiny_vit(), tmp_path / "x.safetensors", "microsoft")


def test_what_is_not_modeled_is_listed():
    report = load_weights(load("huggingface/clip_vision")[0], _checkpoint("huggingface/clip_vision").path)
    assert set(report.ignored) == {
        "logit_scale",
        "text_model.final_layer_norm.bias",
        "text_model.final_layer_norm.weight",
        "text_projection.weight",
        "vision_model.embeddings.position_ids",
        "visual_projection.weight",
    }
    assert load_weights(load("dinov2/dinov2_reg4")[0], _checkpoint("dinov2/dinov2_reg4").path).ignored == (
        "mask_token",
    )


MODELS = {
    "token": {},
    "gap": {"pooling": "gap", "class_token": False, "position_on_prefix": False},
    "map": {"pooling": "map", "class_token": False, "position_on_prefix": False, "num_classes": 0},
    "fc_norm": {"pooling": "gap", "pool_before_norm": True},
    "distilled": {"distillation_token": True},
    "deit3": {"layer_scale_init": 1.0, "position_on_prefix": False},
    "dinov2": {"layer_scale_init": 1.0, "num_registers": 2, "activation": "swiglu", "num_classes": 0},
    "timm_registers": {"layer_scale_init": 1.0, "num_registers": 2, "position_on_prefix": False},
    "dinov2_classifier": {"layer_scale_init": 1.0, "pooling": "token_gap"},
    "clip": {"embedding_norm": True, "patch_bias": False, "num_classes": 0, "layer_norm_epsilon": 1e-5},
    "qk_norm": {"qk_norm": True},
}
HOLDS = {
    "token": {"timm", "deit", "dinov2", "huggingface", "google", "torchvision"},
    "gap": {"timm", "deit", "dinov2", "huggingface", "google", "big_vision"},
    "map": {"timm", "deit", "dinov2", "huggingface", "google", "big_vision"},
    "fc_norm": {"timm", "deit", "dinov2"},
    "distilled": {"timm", "deit", "dinov2", "huggingface"},
    "deit3": {"timm", "deit", "dinov2"},
    "dinov2": {"dinov2", "huggingface"},
    "timm_registers": {"timm", "deit", "dinov2"},
    "dinov2_classifier": {"huggingface"},
    "clip": {"timm", "deit", "dinov2", "huggingface"},
    "qk_norm": {"timm", "deit", "dinov2"},
}


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout != "microsoft"])
@pytest.mark.parametrize("kind", MODELS)
def test_across_layouts_weights_are_identical_or_refused_with_the_reason(kind, layout, tmp_path):
    model = tiny_vit(**MODELS[kind])
    path = tmp_path / ("x.npz" if layout in ("google", "big_vision") else "x.safetensors")
    if layout not in HOLDS[kind]:
        with pytest.raises(ValueError, match=f"layout '{layout}' cannot hold this model. Received: 'vit'; ."):
            save_weights(model, path, layout)
        assert not path.exists()
        return
    save_weights(model, path, layout)
    config = keras_vit.metadata(model).config
    for loaded in (from_checkpoint(path, config), tiny_vit(**MODELS[kind])):
        for variable in loaded.weights:
            variable.assign(variable * 0 + 7)
        load_weights(loaded, path)
        for name, value in _weights(model).items():
            np.testing.assert_array_equal(_weights(loaded)[name], value, err_msg=name)


@pytest.fixture
def tampered(tmp_path):
    """A model and a callable that writes its checkpoint with changes: key to array, or to `None` to drop it."""
    model = load("torchvision/vit_legacy_mlp_keys")[0]
    tensors = safetensors.numpy.load_file(LEGACY)

    def write(**changes):
        content = {key: value for key, value in {**tensors, **changes}.items() if value is not None}
        path = tmp_path / "x.safetensors"
        safetensors.numpy.save_file(content, path)
        return path

    return model, write


KEYS = sorted(open_checkpoint(LEGACY))


@pytest.mark.parametrize("key", KEYS)
def test_a_dropped_renamed_misshapen_or_broken_array_is_named(key, tampered):
    model, write = tampered
    before, array = _weights(model), open_checkpoint(LEGACY)[key]
    broken = array.copy()
    broken.flat[0] = np.nan
    changes = [
        ({key: None}, rf"(?s)\+ .*needs .*{re.escape(key)}"),
        ({key: None, f"{key}x": array}, rf"- {re.escape(key)}x "),
        ({key: np.concatenate([array, array])}, f"{re.escape(key)} "),
        ({key: broken}, f"weights must be finite. Received: '{re.escape(key)}' with 1 NaN"),
    ]
    for change, rule in changes:
        path = write(**change)
        if "conv_proj.weight" not in open_checkpoint(path):
            rule = "the keys of a checkpoint must be of one of the layouts"
        with pytest.raises(ValueError, match=rule):
            load_weights(model, path)
    # The finite arrays of a broken file are those of the good one.
    for name, value in before.items():
        np.testing.assert_array_equal(_weights(model)[name], value, err_msg=name)


def test_all_differences_are_told_at_once(tampered):
    model, write = tampered
    path = write(**{"encoder.ln.bias": None, "extra": np.zeros(2, "float32"), "heads.head.bias": None})
    with pytest.raises(ValueError, match="a checkpoint must fit the model") as error:
        load_weights(model, path)
    assert "- extra " in str(error.value)
    assert "+ encoder_norm/beta  (in the model, needs encoder.ln.bias)" in str(error.value)
    assert "+ head/bias" in str(error.value)


def test_skip_leaves_out_what_it_names(tampered):
    model, write = tampered
    path = write(extra=np.zeros(2, "float32"))
    for variable in model.get_layer("encoder_norm").weights:
        variable.assign(variable * 0 + 3)
    report = load_weights(model, path, skip=["extra", r"encoder\.ln\."])
    assert report.skipped == ("encoder.ln.bias", "encoder.ln.weight", "extra")
    assert report.new == ("encoder_norm/beta", "encoder_norm/gamma")
    assert np.unique(model.get_layer("encoder_norm").weights[0]) == 3
    with pytest.raises(ValueError, match=r"skip= must match a key of the file. Received: 'misspelt'"):
        load_weights(model, path, skip=["misspelt"])
    load_weights(model, LEGACY)


def test_another_number_of_classes_gets_a_new_head_and_says_so():
    with pytest.warns(UserWarning, match="the head is new: 3 classes instead of the file's"):
        model = from_checkpoint(LEGACY, num_heads=8, num_classes=3)
    assert model.output_shape == (None, 3)
    with pytest.warns(UserWarning, match="the head is new"):
        report = load_weights(model, LEGACY)
    assert report.replaced == ("heads.head.bias", "heads.head.weight")
    assert report.new == ("head/bias", "head/kernel")


def test_no_head_is_what_was_asked_for():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = from_checkpoint(LEGACY, num_heads=8, num_classes=0)
        report = load_weights(model, LEGACY)
    assert model.output_shape == (None, 48)
    assert (report.replaced, report.notes) == (("heads.head.bias", "heads.head.weight"), ())


def test_a_warning_names_the_line_of_the_caller():
    with pytest.warns(UserWarning, match="the head is new") as of_a_model:
        model = from_checkpoint(LEGACY, num_heads=8, num_classes=3)
    with pytest.warns(UserWarning, match="the head is new") as of_weights:
        load_weights(model, LEGACY)
    assert [caught[0].filename for caught in (of_a_model, of_weights)] == [__file__, __file__]


def test_another_image_size_resizes_the_positions_by_the_sources_method_and_warns():
    with pytest.warns(UserWarning, match=r"positions of the grid \(4, 4\) are resized to \(6, 3\) \(bicubic\)"):
        model = from_checkpoint(LEGACY, num_heads=8, image_size=(48, 24))
    table = open_checkpoint(LEGACY)["encoder.pos_embedding"]
    expected = resize_positions(table, (4, 4), (6, 3), 1, "bicubic")
    np.testing.assert_array_equal(model.get_layer("patch_encoder").positions, expected)


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
def test_other_channels_are_summed_or_tiled_as_timm_does(channels):
    with pytest.warns(UserWarning, match=f"patch kernels of 3 channels are adapted to {channels}"):
        model = from_checkpoint(LEGACY, num_heads=8, num_channels=channels)
    kernel = open_checkpoint(LEGACY)["conv_proj.weight"].transpose(2, 3, 1, 0)
    if channels == 1:
        expected = kernel.sum(axis=2, keepdims=True)
    else:
        expected = np.stack([kernel[:, :, c % 3] for c in range(channels)], axis=2) * 3 / channels
    np.testing.assert_allclose(adapt_channels(kernel, channels), expected, rtol=1e-6)
    ours = np.array(model.get_layer("patch_encoder").projection.kernel).reshape(8, 8, channels, -1)
    np.testing.assert_allclose(ours, expected, rtol=1e-6)


def test_what_no_file_tells_comes_from_a_config_beside_it_or_is_asked_for(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(LEGACY.read_bytes())
    with pytest.raises(ValueError, match="attention heads cannot be inferred from this file; pass num_heads="):
        from_checkpoint(tmp_path / "model.safetensors")
    content = {"num_attention_heads": 8, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-3}
    (tmp_path / "config.json").write_text(json.dumps(content))
    config = keras_vit.metadata(from_checkpoint(tmp_path / "model.safetensors")).config
    assert (config.num_heads, config.activation, config.layer_norm_epsilon) == (8, "quick_gelu", 1e-3)
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "vit_small_patch16_224"}))
    assert keras_vit.metadata(from_checkpoint(tmp_path / "model.safetensors")).config.num_heads == 6
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"a config.json must be JSON"):
        from_checkpoint(tmp_path / "model.safetensors")


def test_published_sizes_need_no_heads(tmp_path):
    model = keras_vit.create_model("vit_tiny_patch16_224", image_size=32, num_classes=2)
    save_weights(model, tmp_path / "x.safetensors")
    loaded = from_checkpoint(tmp_path / "x.safetensors")
    assert keras_vit.metadata(loaded).config.num_heads == 3
    assert keras_vit.metadata(loaded).origin == str(tmp_path / "x.safetensors")
    again = keras_vit.create_model(
        "vit_tiny_patch16_224", image_size=32, num_classes=2, weights=tmp_path / "x.safetensors"
    )
    images = np.zeros((1, 32, 32, 3), "float32")
    np.testing.assert_array_equal(loaded(images), model(images))
    np.testing.assert_array_equal(again(images), model(images))


@pytest.mark.parametrize(
    ("name", "content", "rule"),
    [
        ("x.safetensors", b"no safetensors", "a checkpoint must be readable. Received: .*x.safetensors"),
        ("x.npz", b"no npz", "a checkpoint must be readable. Received: .*x.npz"),
        ("x.onnx", b"", "a checkpoint must be readable. Received: .*x.onnx.*it is empty"),
        ("x.onnx", b"onnx", "a checkpoint must be readable. Received: .*x.onnx.*begins with b'onnx'"),
        ("x.pth", b"version https://git-lfs.github.com/spec/v1", "Received: .*x.pth.*git lfs pull"),
        ("x.bin", b"<!doctype html>", "Received: .*x.bin.*a web page"),
    ],
)
def test_unreadable_files(name, content, rule, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rule):
        from_checkpoint(tmp_path / name)


@pytest.mark.parametrize("case", ["torchvision/vit_legacy_mlp_keys", "big_vision/tok_old_layout"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_truncated_files(case, part, tmp_path):
    source = _checkpoint(case).path
    content = source.read_bytes()
    path = tmp_path / source.name
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(ValueError, match=r"a checkpoint must be readable. Received: .*checkpoint\."):
        from_checkpoint(path, num_heads=8)


def test_a_changed_byte_in_an_npz_is_noticed(tmp_path):
    content = bytearray(_checkpoint("big_vision/tok_old_layout").path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(ValueError, match="a checkpoint must be readable"):
        from_checkpoint(tmp_path / "x.npz")


def test_a_missing_file():
    with pytest.raises(FileNotFoundError, match=r"a checkpoint must be a file. Received: 'nowhere.npz'"):
        from_checkpoint("nowhere.npz")


def test_unknown_keys_and_the_wrong_layout(tmp_path):
    write_checkpoint(tmp_path / "x.npz", {"a": np.zeros(2)})
    with pytest.raises(ValueError, match=r"must be of one of the layouts .* with 1 keys: a"):
        from_checkpoint(tmp_path / "x.npz")
    with pytest.raises(ValueError, match=r"Received: layout='timm' for .* keys are those of 'torchvision'"):
        from_checkpoint(LEGACY, layout="timm")
    with pytest.raises(ValueError, match="layout must be one of"):
        from_checkpoint(LEGACY, layout="keras")
    (tmp_path / "y.safetensors").touch()
    with pytest.raises(ValueError, match=r"weights are written as '.safetensors' or '.npz'"):
        save_weights(tiny_vit(), tmp_path / "x.h5")


def test_bfloat16_is_read_from_safetensors(tmp_path):
    tensors = {"a": np.arange(4).astype(ml_dtypes.bfloat16)}
    write_checkpoint(tmp_path / "x.safetensors", tensors)
    array = open_checkpoint(tmp_path / "x.safetensors")["a"]
    assert array.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(array, tensors["a"])


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    model, path = tiny_vit(), tmp_path / "x.safetensors"
    save_weights(model, path)
    before = path.read_bytes()

    def fail(*arguments, **keywords):
        raise OSError("no space left on device")

    monkeypatch.setattr(safetensors.numpy, "save_file", fail)
    with pytest.raises(OSError, match="no space left"):
        save_weights(model, path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["x.safetensors"]


def test_a_load_says_nothing_where_all_fits():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = load_weights(load("torchvision/vit_legacy_mlp_keys")[0], LEGACY)
    assert report.layout == "torchvision"
    assert sorted(report.used) == KEYS
    assert (report.skipped, report.new, report.notes) == ((), (), ())


def test_the_command_converts(tmp_path, capsys):
    from keras_vit_cli import main

    target = tmp_path / "out.npz"
    assert main(["convert", str(LEGACY), str(target), "--layout", "google", "--num-heads", "8"]) == 0
    model = from_checkpoint(target, activation="gelu")
    images = load("torchvision/vit_legacy_mlp_keys")[1]
    np.testing.assert_array_equal(model(images), load("torchvision/vit_legacy_mlp_keys")[0](images))
    assert main(["convert", str(LEGACY), str(target), "--layout", "big_vision", "--num-heads", "8"]) == 1
    assert "position_on_prefix=True cannot be written" in capsys.readouterr().err


def test_another_number_of_heads_is_refused_where_the_file_tells():
    path = _checkpoint("google/vit_token").path
    with pytest.raises(ValueError, match="attention/qkv/kernel"):
        from_checkpoint(path, num_heads=8)


def test_a_model_with_a_head_loads_a_file_without_one():
    path = _checkpoint("dinov2/dinov2_reg4").path
    with pytest.warns(UserWarning, match="the head is new: the file has none"):
        model = from_checkpoint(path, num_heads=4, num_classes=5, labels=list("abcde"))
    assert model.output_shape == (None, 5)
    assert keras_vit.metadata(model).labels == tuple("abcde")


def test_bfloat16_infinities_and_integers_are_refused(tmp_path):
    checkpoint = _checkpoint("big_vision/map_bfloat16")
    tensors = {key: checkpoint[key] for key in checkpoint}
    for value, rule in ((np.inf, "with 1 NaN or infinite"), (None, "weights must be floating-point")):
        bad = tensors["params/img/embedding/bias"].copy()
        if value is None:
            bad = bad.astype("int8")
        else:
            bad[0] = value
        write_checkpoint(tmp_path / "x.safetensors", {**tensors, "params/img/embedding/bias": bad})
        with pytest.raises(ValueError, match=rule):
            from_checkpoint(tmp_path / "x.safetensors", num_classes=0)


def test_a_changed_byte_in_a_compressed_npz_is_noticed(tmp_path):
    checkpoint = _checkpoint("big_vision/tok_old_layout")
    np.savez_compressed(tmp_path / "x.npz", **{key: checkpoint[key] for key in checkpoint})
    content = bytearray((tmp_path / "x.npz").read_bytes())
    for place in range(len(content) // 3, len(content) // 3 + 40):
        content[place] ^= 0xFF
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(ValueError, match="a checkpoint must be readable"):
        from_checkpoint(tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("content", "activation"),
    [
        ({"architecture": "vit_base_patch32_clip_quickgelu_224", "model_args": None}, "quick_gelu"),
        ({"architecture": "vit_small_patch16_224", "model_args": {"act_layer": "gelu_tanh"}}, "gelu_tanh"),
        ({"architectures": ["X"], "vision_config": None, "hidden_act": "gelu_pytorch_tanh"}, "gelu_tanh"),
    ],
)
def test_the_kind_of_gelu_comes_from_the_config_beside_the_file(content, activation, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(LEGACY.read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(content))
    model = from_checkpoint(tmp_path / "model.safetensors", num_heads=8)
    assert keras_vit.metadata(model).config.activation == activation


def test_what_a_file_leaves_new_is_random_and_clones_are_too(tmp_path):
    """A model that weights follow is built without drawing numbers; nothing of that may be seen."""
    save_weights(tiny_vit(), tmp_path / "x.safetensors")
    with pytest.warns(UserWarning, match="the head is new"):
        model = from_checkpoint(tmp_path / "x.safetensors", num_classes=7)
    assert np.std(model.get_layer("head").kernel) > 0
    clone = keras.models.clone_model(model)
    kernels = [weight for weight in clone.weights if weight.path.endswith("kernel")]
    assert all(np.std(kernel) > 0 for kernel in kernels)


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_waits_while_a_model_is_loaded(enabled, fails, monkeypatch):
    inside = []

    def assign(*arguments):
        inside.append(gc.isenabled())
        if fails:
            raise ValueError("it fails")

    monkeypatch.setattr(load_module, "assign_weights", assign)
    if not enabled:
        gc.disable()
    try:
        with pytest.raises(ValueError, match="it fails") if fails else contextlib.nullcontext():
            from_checkpoint(LEGACY, num_heads=2)
        assert inside == [False]
        assert gc.isenabled() == enabled
    finally:
        gc.enable()


def test_of_a_model_around_ours_the_inner_one_is_written(tmp_path):
    inner = tiny_vit(num_classes=0)
    head = keras.layers.Dense(2, name="own_head")
    for number, model in enumerate(
        [
            keras.Sequential([keras.Input(inner.input_shape[1:]), keras.layers.RandomFlip(), inner, head]),
            keras.Model(inner.input, head(inner(inner.input))),
        ]
    ):
        path = tmp_path / f"{number}.safetensors"
        with pytest.warns(UserWarning, match=r"only the inner model '.*' is written; left out: .*own_head/bias, "):
            save_weights(model, path)
        loaded = from_checkpoint(path)
        assert all(np.array_equal(a, b) for a, b in zip(loaded.weights, inner.weights, strict=True))


@pytest.mark.parametrize(
    ("name", "value", "received"),
    [
        ("skip", "head", "skip='head'"),
        ("skip", [1], "skip=(1,)"),
        ("skip", ["("], "'('"),
        ("new", "head", "new='head'"),
        ("new", 3, "new=3"),
        ("new", ["head", "["], "'['"),
        ("prefix", 3, "prefix=3"),
        ("prefix", ["student"], "prefix=['student']"),
    ],
)
def test_a_choice_of_keys_is_checked_before_the_file_is_opened_and_named_as_it_is_passed(name, value, received):
    calls = [
        lambda **choice: load_weights(tiny_vit(), "no such file", **choice),
        lambda **choice: from_checkpoint("no such file", **choice),
        lambda **choice: keras_vit.create_model("vit_tiny_patch16_224", weights="no/such/file.pth", **choice),
        lambda **choice: keras_vit.create_model("vit_tiny_patch16_224", **choice),
        lambda **choice: keras_vit.create_model("vit_tiny_patch16_224.augreg_in21k", **choice),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=rf"^{name}= must be a .*Received: {re.escape(received)}"):
            call(**{name: value})
    with pytest.raises(ValueError, match=rf"^weights_{name}= must be a .*Received: .*{re.escape(received)}"):
        KeySelection(**{name: value}, argument_prefix="weights_")


def test_a_choice_of_keys_may_be_of_any_sequence():
    assert KeySelection(skip=iter(["a", "b"])) == KeySelection(skip=["a", "b"]) == KeySelection(skip=("a", "b"))
    assert [bool(KeySelection(**choice)) for choice in ({}, {"skip": []}, {"new": ["a"]}, {"prefix": ""})] == [
        *(False, False, True, True)
    ]


def test_arrays_of_float64_are_loaded(tmp_path):
    model, path = tiny_vit(), tmp_path / "model.npz"
    save_weights(model, tmp_path / "model.safetensors", layout="timm")
    arrays = open_checkpoint(tmp_path / "model.safetensors")
    np.savez(path, **{key: np.asarray(arrays[key], "float64") for key in arrays})
    loaded = from_checkpoint(path, num_heads=CONFIG.num_heads, image_size=CONFIG.image_size)
    for ours, expected in zip(loaded.weights, model.weights, strict=True):
        np.testing.assert_array_equal(ours, expected)
