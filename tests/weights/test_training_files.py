"""Files that training programs leave: prefixes, containers, averages, and whatever lies beside the weights."""

import argparse
import collections
import dataclasses
import datetime
import json
import pathlib
import sys
import warnings

import h5py
import keras
import numpy as np
import pytest
import safetensors.numpy
import torch_pickles
from golden import GOLDENS, cases
from tiny import CONFIG, IMAGES, tiny_vit
from torch_pickles import Unknown

import keras_vit
from keras_vit.models import VARIANTS, SwinConfig, build_model
from keras_vit.weights import from_checkpoint, load_weights, save_weights
from keras_vit.weights.files.checkpoint import Checkpoint, open_checkpoint
from keras_vit.weights.layouts.detect import find_model
from keras_vit.weights.layouts.swin import TIMM as SWIN_TIMM
from keras_vit.weights.layouts.timm import TIMM
from keras_vit.weights.save import to_tensors

# What timm's, DeiT's, DINO's and Lightning's programs put beside the weights.
ARGUMENTS = argparse.Namespace(lr=1e-3, output=pathlib.PurePosixPath("runs"), since=datetime.datetime(2026, 1, 1))
BESIDE = {
    "args": ARGUMENTS,
    "epoch": np.int64(3),
    "metric": np.float32(0.5),
    "hyper_parameters": collections.OrderedDict(model=Unknown(name="vit", layers=[1, {2}]), seed=np.bool_(True)),
    "names": np.array(["a", None], dtype=object),
    "optimizer": {"state": {0: {"step": np.ones(1, "float32"), "exp_avg": np.ones((3, 2), "float32")}}},
}


def _tensors(model, layout=TIMM):
    return {key: np.ascontiguousarray(value) for key, value in to_tensors(model, layout).items()}


@pytest.fixture(scope="module")
def model():
    return tiny_vit()


@pytest.fixture(scope="module")
def tensors(model):
    return _tensors(model)


def _under(prefix, tensors):
    return {prefix + key: value for key, value in tensors.items()}


def _assert_same(model, other):
    for ours, theirs in zip(model.weights, other.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=ours.path)


@pytest.mark.parametrize(("name", "prefix"), [("checkpoint", "model.module."), ("legacy", "state_dict.model.")])
def test_a_file_that_pytorch_saved_is_read_without_pytorch(name, prefix, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    path = GOLDENS / "torch_files" / name
    with pytest.warns(UserWarning, match=f"the keys after '{prefix}'"):
        model = from_checkpoint(path, num_heads=2)
    images = np.linspace(-1, 1, 64, dtype="float32").reshape(1, 8, 8, 1)
    np.testing.assert_allclose(model(images), [[-0.5841, 0.0070]], atol=1e-4)


@pytest.mark.parametrize("save", [torch_pickles.save, torch_pickles.save_legacy], ids=["archive", "legacy"])
@pytest.mark.parametrize("prefix", ["model", "state_dict", "module", "net", "a.b.c", "0"])
def test_what_lies_beside_the_weights_does_not_matter(prefix, save, model, tensors, tmp_path):
    tree = dict(BESIDE)
    place = tree
    for part in prefix.split("."):
        inner = place[part] = {}
        place = inner
    place.update(tensors)
    save(tmp_path / "checkpoint", tree)
    other = tiny_vit()
    for variable in other.weights:
        variable.assign(variable * 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the only model of a file, in a container of its own
        report = load_weights(other, tmp_path / "checkpoint")
    assert (report.layout, report.prefix) == ("timm", f"{prefix}.")
    assert set(report.outside) == {"optimizer.state.0.step", "optimizer.state.0.exp_avg"}
    _assert_same(other, model)


@pytest.mark.parametrize(
    "prefix",
    [
        *("module.", "_orig_mod.", "model.", "backbone.", "encoder.", "visual.trunk.", "teacher.backbone."),
        *("model._orig_mod.", "module._orig_mod.backbone.", "net.vit.encoder.model.", "base_model.model.vit_model."),
    ],
)
@pytest.mark.parametrize("write", ["safetensors", "npz", "torch"])
def test_the_layout_is_found_behind_any_prefix_and_told(prefix, write, model, tensors, tmp_path):
    path, content = tmp_path / "weights", _under(prefix, tensors)
    if write == "npz":
        np.savez(tmp_path / "weights.npz", **content)
        path = tmp_path / "weights.npz"
    elif write == "torch":
        torch_pickles.save(path, {"state_dict": content})
    else:
        safetensors.numpy.save_file(content, path)
    with pytest.warns(UserWarning, match=f"weights.*: the keys after '.*{prefix}'"):
        report = load_weights(model, path)
    assert report.prefix.endswith(prefix)
    assert report.outside == ()


def test_wrappers_inside_the_keys_are_left_out(model, tensors, tmp_path):
    content = {key.replace("blocks.0.", "blocks.0._checkpoint_wrapped_module."): v for key, v in tensors.items()}
    content = {key.replace("blocks.1.attn.", "blocks.1.attn._orig_mod."): v for key, v in content.items()}
    safetensors.numpy.save_file(content, tmp_path / "x")
    assert set(find_model(open_checkpoint(tmp_path / "x"))[0]) == set(tensors)
    load_weights(model, tmp_path / "x")


def test_the_chunks_of_dinov2s_training_are_taken_apart(model, tensors, tmp_path):
    content = {
        key.replace("blocks.0.", "blocks.0.0.").replace("blocks.1.", "blocks.1.1."): v for key, v in tensors.items()
    }
    torch_pickles.save(tmp_path / "x", {"teacher": _under("backbone.", content)})
    with pytest.warns(UserWarning, match=r"after 'teacher\.backbone\.'"):
        load_weights(model, tmp_path / "x")


def test_a_layout_with_a_prefix_of_its_own_is_found_behind_another(tmp_path):
    model = tiny_vit(layer_norm_epsilon=1e-12)
    save_weights(model, tmp_path / "x.safetensors", "huggingface")
    content = _under("model.", safetensors.numpy.load_file(tmp_path / "x.safetensors"))
    assert "model.vit.embeddings.cls_token" in content
    torch_pickles.save(tmp_path / "x.ckpt", {"state_dict": content})
    with pytest.warns(UserWarning, match=r"after 'state_dict\.model\.'"):
        _assert_same(from_checkpoint(tmp_path / "x.ckpt", num_heads=2, image_size=(16, 24)), model)


@pytest.mark.parametrize(
    ("raw", "average"),
    [
        ("model", "model_ema"),
        ("state_dict", "state_dict_ema"),
        ("student", "teacher"),
        ("student.module.backbone", "teacher.backbone"),
        ("encoder", "target_encoder"),
        ("model", "ema_model.module"),
        ("net", "averaged"),
    ],
)
def test_of_a_model_and_its_average_the_average_is_read_unless_asked(raw, average, model, tensors, tmp_path):
    torch_pickles.save(
        tmp_path / "x",
        {**BESIDE, **_under(f"{raw}.", {k: v + 1 for k, v in tensors.items()}), **_under(f"{average}.", tensors)},
    )
    with pytest.warns(UserWarning, match=rf"after '{average}\.' .*, not those after '{raw}\.' \(prefix= chooses\)"):
        read = from_checkpoint(tmp_path / "x", num_heads=2, image_size=(16, 24))
    _assert_same(read, model)
    for asked in (raw, f"{raw}.", raw.split(".")[0]):
        with pytest.warns(UserWarning, match=rf"after '{raw}\.' .*, not those"):
            load_weights(read, tmp_path / "x", prefix=asked)
        np.testing.assert_array_equal(read.get_layer("encoder_norm").weights[0], tensors["norm.weight"] + 1)


def test_of_models_that_are_no_copies_one_must_be_chosen(model, tensors, tmp_path):
    wide = _tensors(tiny_vit(hidden_dim=32))
    for content in (
        _under("student.", tensors) | _under("teacher.", wide),
        _under("left.", tensors) | _under("right.", tensors),
    ):
        safetensors.numpy.save_file(content, tmp_path / "x")
        first, second = sorted({key.split(".")[0] for key in content})
        with pytest.raises(ValueError, match=rf"prefix= must choose one of .*'{first}\.', '{second}\.'"):
            load_weights(model, tmp_path / "x")
        with pytest.warns(UserWarning, match="prefix= chooses"):
            load_weights(model, tmp_path / "x", prefix="student" if first == "student" else "left")
        with pytest.raises(ValueError, match=r"prefix= must stand in front of .* Received: prefix='nobody'"):
            load_weights(model, tmp_path / "x", prefix="nobody")


def test_keys_beside_a_prefix_are_named_and_keys_behind_it_are_strict(model, tensors, tmp_path):
    beside = {
        "criterion.weight": np.ones(3, "float32"),
        "fc.weight": np.ones((3, 16), "float32"),
        "text.a.b": np.ones(1),
    }
    safetensors.numpy.save_file(_under("visual.trunk.", tensors) | beside, tmp_path / "x")
    with pytest.warns(UserWarning, match=r"beside them: criterion\.\* \(1\), fc\.\* \(1\), text\.\* \(1\)"):
        report = load_weights(model, tmp_path / "x")
    assert set(report.outside) == set(beside)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_weights(model, tmp_path / "x", skip=["criterion", "^fc", "^text"])
    assert "left out" not in str(caught[0].message)
    extra = _under("visual.trunk.", {**tensors, "extra": np.ones(1, "float32")})
    safetensors.numpy.save_file(extra, tmp_path / "y")
    with pytest.raises(ValueError, match=r"(?s)prefix 'visual\.trunk\.':\n  - extra "):
        load_weights(model, tmp_path / "y")
    for pattern in ("^extra$", r"^visual\.trunk\.extra$"):
        with pytest.warns(UserWarning, match="the keys .* are read"):
            assert load_weights(model, tmp_path / "y", skip=[pattern]).skipped == ("extra",)


@pytest.mark.parametrize(
    "name",
    ["weights.bin", "checkpoint", "model.ckpt", "ckpt.pt", "model_best.pth.tar", "a.b", "x.npz", "x.safetensors"],
)
def test_the_name_of_a_file_plays_no_part(name, model, tensors, tmp_path):
    path = tmp_path / name
    np.savez(tmp_path / "whatever.npz", **tensors)
    writers = {
        "safetensors": lambda: safetensors.numpy.save_file(tensors, path),
        "npz": lambda: path.write_bytes((tmp_path / "whatever.npz").read_bytes()),
        "torch": lambda: torch_pickles.save(path, tensors),
        "legacy": lambda: torch_pickles.save_legacy(path, tensors),
    }
    for kind, write in writers.items():
        write()
        assert load_weights(model, path).layout == "timm", kind
        assert keras_vit.create_model  # the names are those of files, not of models


def test_a_decoder_of_mae_is_left_aside(model, tensors, tmp_path):
    decoder = {"mask_token": np.ones((1, 1, 8), "float32"), "decoder_embed.weight": np.ones((8, 16), "float32")}
    decoder |= {
        "decoder_blocks.0.norm1.weight": np.ones(8, "float32"),
        "decoder_pos_embed": np.ones((1, 7, 8), "float32"),
    }
    body = {key: value for key, value in tensors.items() if not key.startswith("head.")}
    torch_pickles.save(tmp_path / "mae.pth", {"model": {**body, **decoder}, "args": ARGUMENTS})
    read = from_checkpoint(tmp_path / "mae.pth", num_heads=2, image_size=(16, 24))
    config = keras_vit.metadata(read).config
    assert (config.num_classes, config.position_resize) == (0, "bicubic")
    assert set(load_weights(read, tmp_path / "mae.pth").ignored) == set(decoder)


@pytest.mark.parametrize("key", ["decoder.decoder_embed.weight", "decoder.mask_token", "decoder.0.weight"])
def test_a_decoder_of_pretraining_by_hugging_face_is_left_aside(key, tmp_path):
    path = tmp_path / "model.safetensors"
    written = tiny_vit(num_classes=0)
    save_weights(written, path, "huggingface")
    tensors = {f"vit.{key.removeprefix('vit.')}": value for key, value in safetensors.numpy.load_file(path).items()}
    safetensors.numpy.save_file({**tensors, key: np.ones((8, 16), "float32")}, path)
    assert load_weights(tiny_vit(num_classes=0), path).ignored == (key,)
    safetensors.numpy.save_file({**tensors, "encoder_of_another": np.ones((8, 16), "float32")}, path)
    with pytest.raises(ValueError, match="encoder_of_another"):
        load_weights(tiny_vit(num_classes=0), path)


MAE = {"pooling": "gap", "pool_before_norm": True, "num_classes": 5, "num_heads": 2, "image_size": (16, 24)}


def test_what_pretraining_has_not_stays_new(model, tensors, tmp_path):
    body = {key: value for key, value in tensors.items() if not key.startswith("head.")}
    torch_pickles.save(tmp_path / "mae.pth", {"model": body})
    with pytest.raises(ValueError, match=r"(?s)skip=.*new=.*- norm.bias.*\+ encoder_norm/beta"):
        from_checkpoint(tmp_path / "mae.pth", **MAE)
    with pytest.warns(UserWarning, match="left as in the model, by new=: encoder_norm/beta, encoder_norm/gamma"):
        tuned = from_checkpoint(tmp_path / "mae.pth", skip=[r"^norm\."], new=["^encoder_norm/"], **MAE)
    np.testing.assert_array_equal(tuned.get_layer("encoder_norm").weights[0], np.ones(16))
    assert tuned(IMAGES).shape == (2, 5)
    torch_pickles.save(tmp_path / "tuned.pth", {"model": _tensors(tuned)})
    config = keras_vit.metadata(from_checkpoint(tmp_path / "tuned.pth", num_heads=2, image_size=(16, 24))).config
    assert (config.pooling, config.pool_before_norm, config.num_classes) == ("gap", True, 5)


def test_new_leaves_variables_as_they_are_and_what_would_fill_them_out(model, tensors, tmp_path):
    safetensors.numpy.save_file(tensors, tmp_path / "x")
    other = tiny_vit()
    for variable in other.weights:
        variable.assign(variable * 0 + 7)
    with pytest.warns(UserWarning, match="left as in the model, by new=: encoder_block_1/mlp_norm/beta"):
        report = load_weights(other, tmp_path / "x", new=["block_1/mlp_norm/beta", "^head/kernel"])
    assert report.new == ("encoder_block_1/mlp_norm/beta", "head/kernel")
    assert report.skipped == ("blocks.1.norm2.bias", "head.weight")
    changed = {v.path for v in other.weights if np.unique(v).tolist() == [7]}
    assert changed == set(report.new)
    with pytest.raises(ValueError, match=r"new= must match the path of a variable .*Received: 'misspelt'"):
        load_weights(other, tmp_path / "x", new=["misspelt"])
    for name in ("skip", "new"):
        with pytest.raises(ValueError, match=rf"{name}= must be a list of regular expressions.*'a\('"):
            load_weights(other, tmp_path / "x", **{name: ["a("]})
        with pytest.raises(ValueError, match=f"{name}= must be a list of regular expressions"):
            load_weights(other, tmp_path / "x", **{name: "head"})


def test_new_of_one_of_two_variables_in_one_array(tmp_path):
    siglip = {"pooling": "map", "class_token": False, "position_on_prefix": False, "num_classes": 0}
    model, other = tiny_vit(**siglip), tiny_vit(**siglip)
    save_weights(model, tmp_path / "x.safetensors", "huggingface")
    query = other.get_layer("representation").query.kernel
    query.assign(query * 0)
    with pytest.warns(UserWarning, match="by new=: representation/query/kernel"):
        load_weights(other, tmp_path / "x.safetensors", new=["representation/query/kernel"])
    assert not np.any(query)
    query.assign(model.get_layer("representation").query.kernel)
    _assert_same(other, model)


def test_skip_decides_what_the_architecture_is_read_off(model, tensors, tmp_path):
    safetensors.numpy.save_file({**tensors, "fc_norm.weight": np.ones(16, "float32")}, tmp_path / "x")
    options = {"num_heads": 2, "image_size": (16, 24)}
    read = from_checkpoint(tmp_path / "x", skip=["^fc_norm", r"^head\."], **options)
    assert keras_vit.metadata(read).config.num_classes == 0
    assert not keras_vit.metadata(read).config.pool_before_norm


def test_names_take_skip_new_and_prefix_too(tmp_path):
    small = {"image_size": 32, "num_layers": 1}
    model = keras_vit.create_model("vit_tiny_patch16_224", num_classes=3, **small)
    content = _under("student.", _tensors(model)) | {"student.extra": np.ones(1, "float32")}
    safetensors.numpy.save_file(content, tmp_path / "x")
    options = {"skip": ["^extra"], "new": ["^head/"], "prefix": "student"}
    with pytest.warns(UserWarning, match=r"after 'student\.'.*by new=: head/bias, head/kernel"):
        keras_vit.create_model("vit_tiny_patch16_224", weights=tmp_path / "x", **options, **small)
    with pytest.raises(ValueError, match="skip=, new= and prefix= are of weights"):
        keras_vit.create_model("vit_tiny_patch16_224", skip=["head"], **small)


def _shards(folder, tensors, name, save):
    """Writes arrays into two files, as Hugging Face does."""
    keys = sorted(tensors)
    places = {}
    for number, part in enumerate((keys[::2], keys[1::2]), 1):
        stem, _, suffix = name.rpartition(".")
        file = f"{stem}-{number:05}-of-00002.{suffix}"
        save(folder / file, {key: tensors[key] for key in part})
        places |= dict.fromkeys(part, file)
    index = folder / f"{name}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    return index


def _save_safetensors(path, tensors):
    safetensors.numpy.save_file(tensors, path)


FOLDERS = {
    "model.safetensors": _save_safetensors,
    "pytorch_model.bin": torch_pickles.save,
    "open_clip_pytorch_model.bin": torch_pickles.save_legacy,
    "model_best.pth.tar": torch_pickles.save,
    "last_checkpoint": torch_pickles.save,
}


@pytest.mark.parametrize("name", FOLDERS)
def test_the_file_of_a_folder_is_found(name, tensors, model, tmp_path):
    FOLDERS[name](tmp_path / name, tensors)
    (tmp_path / "config.json").write_text('{"num_attention_heads": 2, "image_size": [16, 24]}')
    (tmp_path / "notes.txt").write_text("weights")
    if name != "last_checkpoint":
        torch_pickles.save(tmp_path / "optimizer.pt", BESIDE)
    _assert_same(from_checkpoint(tmp_path), model)


@pytest.mark.parametrize(
    ("name", "save"), [("model.safetensors", _save_safetensors), ("pytorch_model.bin", torch_pickles.save)]
)
def test_shards_are_read_as_one(name, save, tensors, model, tmp_path):
    index = _shards(tmp_path, tensors, name, save)
    (tmp_path / "config.json").write_text('{"num_attention_heads": 2, "image_size": [16, 24]}')
    _assert_same(from_checkpoint(tmp_path), model)
    _assert_same(from_checkpoint(index), model)
    first, second = sorted(tmp_path.glob(f"*-of-*.{name.rpartition('.')[2]}"))
    content = json.loads(index.read_text())
    for change, rule in (
        ({"extra": first.name}, r"hold what it says, and no more. Received: \['extra'\]"),
        ({"cls_token": second.name if content["weight_map"]["cls_token"] == first.name else first.name}, "cls_token"),
        ({"cls_token": "../x"}, r"must lie beside it. Received: '../x'"),
        ({"cls_token": 3}, "must be the index of a checkpoint"),
    ):
        index.write_text(json.dumps({"weight_map": {**content["weight_map"], **change}}))
        with pytest.raises(ValueError, match=rule):
            from_checkpoint(tmp_path)
    index.write_text(json.dumps(content))
    second.unlink()
    with pytest.raises(FileNotFoundError, match=f"must lie beside it.*without '{second.name}'"):
        from_checkpoint(tmp_path)


def test_a_folder_with_none_or_several_says_so(tensors, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"must hold a checkpoint, such as model.safetensors"):
        from_checkpoint(tmp_path)
    for name in ("a.pth", "b.pth"):
        torch_pickles.save(tmp_path / name, tensors)
    with pytest.raises(ValueError, match=r"pass the path of a file. Received: .* with a.pth, b.pth"):
        from_checkpoint(tmp_path)


def test_openclip_tells_the_preprocessing_of_its_tower(tmp_path):
    model = keras_vit.create_model("vit_base_patch32_clip_224", image_size=64, num_layers=1, num_classes=0)
    content = _under("visual.trunk.", _tensors(model)) | {"logit_scale": np.ones((), "float32")}
    torch_pickles.save(tmp_path / "open_clip_pytorch_model.bin", content)
    tower = {"timm_model_name": "vit_base_patch32_clip_224", "image_size": 64, "timm_pool": "token"}
    told = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.1], "interpolation": "bilinear", "resize_mode": "squash"}
    written = {"model_cfg": {"embed_dim": 8, "vision_cfg": tower}, "preprocess_cfg": told}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(written))
    with pytest.warns(UserWarning, match=r"after 'visual\.trunk\.'.*beside them: logit_scale"):
        read = from_checkpoint(tmp_path)
    spec = keras_vit.metadata(read).input_spec
    assert (spec.mean, spec.std, spec.size) == ((0.5, 0.4, 0.3), (0.2, 0.2, 0.1), (64, 64))
    assert (spec.interpolation, spec.crop_fraction) == ("bilinear", None)
    _assert_same(read, model)
    for text in ("[]", '{"model_cfg": 3}', '{"model_cfg": {"vision_cfg": {"timm_model_name": 3}}}'):
        (tmp_path / "open_clip_config.json").write_text(text)
        with pytest.raises(ValueError, match=r"open_clip_config\.json"):
            from_checkpoint(tmp_path, num_heads=12)


def test_filling_a_model_asks_for_no_preprocessing(model, tensors, tmp_path):
    safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
    told = {"input_size": [3, 16, 24], "crop_mode": "border", "crop_pct": 0.9}
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "vit", "pretrained_cfg": told}))
    with pytest.warns(UserWarning, match=r"pass input_spec="):
        from_checkpoint(tmp_path, num_heads=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_weights(model, tmp_path)


@pytest.mark.parametrize("prefix", ["model.", "net.encoder.", "teacher.backbone.", "_orig_mod.module."])
@pytest.mark.parametrize("case", sorted({*cases(swin=True), *cases(swin=False)}))
def test_every_layout_is_found_behind_a_prefix(case, prefix):
    (path,) = (GOLDENS / case).glob("checkpoint.*")
    plain, layout = find_model(open_checkpoint(path))
    source = open_checkpoint(path)
    content = dataclasses.replace(
        source.content,
        shapes={prefix + key: shape for key, shape in source.shapes.items()} | {"step": (), "optimizer.x": (3,)},
        read=lambda key: source[key.removeprefix(prefix)],
    )
    found, same = find_model(Checkpoint(path, content.shapes, content.read, content=content))
    assert same == layout
    assert found.shapes == plain.shapes
    assert (found.subtree.prefix, set(found.subtree.outside)) == (prefix, {"step", "optimizer.x"})
    key = min(found)
    np.testing.assert_array_equal(found[key], plain[key])


def test_an_index_is_told_from_a_safetensors_file_whatever_its_spaces(tensors, model, tmp_path):
    index = _shards(tmp_path, tensors, "model.safetensors", _save_safetensors)
    places = json.loads(index.read_text())["weight_map"]
    text = json.dumps({"meta": {}, "weight_map": places}, separators=(",", ":"))
    assert text[8] == "{"
    index.write_text(text)
    load_weights(model, index)


def _empty_files(folder):
    """Files of every kind that hold no arrays, by name."""
    np.savez(folder / "x.npz")
    safetensors.numpy.save_file({}, folder / "x.safetensors")
    torch_pickles.save(folder / "x.pth", {})
    torch_pickles.save(folder / "nested.pth", {"model": {}, "epoch": 3})
    torch_pickles.save_legacy(folder / "legacy.pth", {})
    h5py.File(folder / "x.weights.h5", "w").close()
    keras.Sequential([keras.Input((2,)), keras.layers.Flatten()]).save(folder / "x.keras")
    (folder / "x.index.json").write_text('{"weight_map": {}}')
    (folder / "empty.pth").write_bytes(b"")


def test_files_without_arrays_say_so(tmp_path):
    _empty_files(tmp_path)
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(ValueError, match=r"holds? (no )?arrays|its arrays|is empty") as error:
            from_checkpoint(path)
        assert path.name in str(error.value)
        assert "0 keys" not in str(error.value)


SWIN = SwinConfig(
    image_size=32, patch_size=4, embed_dim=8, depths=(1, 2), num_heads=(1, 2), window_size=4, num_classes=3, version=2,
    pretrained_window_sizes=(2, 2), window_rule="timm",
)  # fmt: skip
NAMED_VIT = CONFIG.replace(image_size=16, num_heads=4, activation="quick_gelu")


@pytest.fixture
def named(monkeypatch):
    """Two tiny models that have names of timm's kind, as built by these names."""
    monkeypatch.setitem(VARIANTS, "swinv2_pico_window4_32", SWIN)
    monkeypatch.setitem(VARIANTS, "vit_pico_patch8_16", NAMED_VIT)
    return {"swin": _tensors(build_model(SWIN), SWIN_TIMM), "vit": _tensors(build_model(NAMED_VIT))}


def _read_config(path, **options):
    return keras_vit.metadata(from_checkpoint(path, **options)).config


@pytest.mark.parametrize("save", [torch_pickles.save, torch_pickles.save_legacy], ids=["archive", "legacy"])
@pytest.mark.parametrize(
    "beside",
    [
        {"arch": "swinv2_pico_window4_32"},
        {"arch": "timm/swinv2_pico_window4_32.in1k", "args": ARGUMENTS},
        {"arch": "swintransformerv2", "args": argparse.Namespace(model="swinv2_pico_window4_32", img_size=None)},
        {"args": {"model": "swinv2_pico_window4_32", "input_size": [3, 32, 32], "img_size": 64}},
        {"hyper_parameters": Unknown(model_name="swinv2_pico_window4_32")},
        {"arch": 3, "config": {"arch": "swinv2_pico_window4_32", "img_size": True}},
    ],
)
def test_the_name_that_a_training_program_wrote_tells_what_arrays_do_not(beside, save, named, tmp_path):
    save(tmp_path / "x", {**beside, "state_dict": named["swin"]})
    assert _read_config(tmp_path / "x") == SWIN
    save(tmp_path / "x", {**beside, "arch": None, "args": None, "hyper_parameters": None, "config": None,
                          "state_dict": named["swin"]})  # fmt: skip
    with pytest.raises(ValueError, match=r"window_size cannot be inferred .*; pass window_size="):
        from_checkpoint(tmp_path / "x")


def test_a_name_gives_heads_and_activation_and_arguments_beside_it_win(named, tmp_path):
    torch_pickles.save(tmp_path / "x", {"arch": "vit_pico_patch8_16", "state_dict": named["vit"]})
    assert _read_config(tmp_path / "x") == NAMED_VIT
    assert _read_config(tmp_path / "x", num_heads=2, activation="gelu").num_heads == 2
    arguments = argparse.Namespace(model="vit_pico_patch8_16", model_kwargs={"num_heads": 8, "drop": object}, lr=1)
    torch_pickles.save(tmp_path / "x", {"args": arguments, "model": named["vit"]})
    assert _read_config(tmp_path / "x").num_heads == 8
    larger = SWIN.replace(image_size=64)
    arguments = argparse.Namespace(model="swinv2_pico_window4_32", img_size=64)
    torch_pickles.save(tmp_path / "x", {"args": arguments, "model": _tensors(build_model(larger), SWIN_TIMM)})
    assert _read_config(tmp_path / "x") == larger
    # What lies beside the file was written for it, and says more.
    told = {"architecture": "swinv2_pico_window4_32", "model_args": {"img_size": 32, "window_size": 4}}
    (tmp_path / "config.json").write_text(json.dumps(told))
    assert _read_config(tmp_path / "x") == SWIN


def test_a_name_that_contradicts_the_arrays_is_an_error_unless_the_caller_knows_better(named, tmp_path):
    tensors = {key: value for key, value in named["vit"].items() if "blocks.1." not in key}
    torch_pickles.save(tmp_path / "x", {"arch": "vit_pico_patch8_16", "state_dict": tensors})
    with pytest.raises(ValueError, match=r"pass config=.* Received: .*'vit_pico_patch8_16' with num_layers=1 for 2$"):
        from_checkpoint(tmp_path / "x")
    confirmed = _read_config(tmp_path / "x", num_layers=1)
    assert confirmed == NAMED_VIT.replace(num_layers=1)
    assert _read_config(tmp_path / "x", config=CONFIG.replace(image_size=16, num_layers=1)).num_heads == 2
    model = keras_vit.create_model("vit_pico_patch8_16", weights=tmp_path / "x", num_layers=1)
    assert keras_vit.metadata(model).config == confirmed
    arguments = argparse.Namespace(model="vit_pico_patch8_16", model_kwargs={"depth": 1, "qkv_bias": True})
    torch_pickles.save(tmp_path / "x", {"args": arguments, "model": tensors})
    assert _read_config(tmp_path / "x") == confirmed
    torch_pickles.save(tmp_path / "x", {"arch": "swinv2_pico_window4_32", "model": tensors})
    with pytest.raises(ValueError, match=r"'swinv2_pico_window4_32' with family='ViTConfig' for 'SwinConfig'$"):
        from_checkpoint(tmp_path / "x", num_heads=4)
    model = keras_vit.create_model("vit_pico_patch8_16", weights=tmp_path / "x", num_layers=1)
    assert keras_vit.metadata(model).config == confirmed


@pytest.mark.parametrize("arch", ["visiontransformer", "resnet50", "", "mae_vit_base_patch16", ["vit"], None])
def test_a_name_of_no_model_here_says_nothing(arch, model, tensors, tmp_path):
    torch_pickles.save(tmp_path / "x", {"arch": arch, "state_dict": tensors})
    _assert_same(from_checkpoint(tmp_path / "x", num_heads=2, image_size=(16, 24)), model)
