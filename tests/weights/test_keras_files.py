"""Files of Keras as checkpoints: another head, another size, layers of one's own around the model."""

import json
import warnings
import zipfile

import keras
import numpy as np
import pytest
from tiny import CONFIG, IMAGES, randomize, tiny_vit

import keras_vit
from keras_vit.models import ConvNetConfig, HybridConfig, SwinConfig, build_model
from keras_vit.weights import from_checkpoint, load_weights, save_weights

FAMILIES = {
    "vit": CONFIG.replace(pre_logits_dim=8, distillation_token=False),
    "distilled": CONFIG.replace(distillation_token=True),
    "map": CONFIG.replace(pooling="map", class_token=False, position_on_prefix=False),
    "dinov2": CONFIG.replace(layer_scale_init=1.0, num_registers=2, activation="swiglu", num_classes=0),
    "sincos": CONFIG.replace(position_embedding="sincos2d", position_on_prefix=False, class_token=False, pooling="gap"),
    "qk_norm": CONFIG.replace(qk_norm=True, embedding_norm=True, patch_bias=False),
    "swin": SwinConfig(image_size=32, embed_dim=8, depths=(2, 1), num_heads=(1, 2), window_size=4, num_classes=3),
    "swin_v2": SwinConfig(
        image_size=32, embed_dim=8, depths=(2, 1), num_heads=(1, 2), window_size=4, num_classes=3, version=2
    ),
    "convnet": ConvNetConfig(image_size=16, depths=(1, 1), widths=(4, 8), num_classes=3),
    "hybrid": HybridConfig(
        image_size=32,
        patch_size=1,
        hidden_dim=16,
        num_layers=1,
        num_heads=2,
        mlp_dim=16,
        num_classes=3,
        stem_depths=(1, 1),
        stem_width=32,
    ),
}


def _assert_same(model, other, but=()):
    theirs = {weight.path: weight for weight in other.weights}
    for weight in model.weights:
        if not weight.path.startswith(tuple(but)) if but else True:
            np.testing.assert_array_equal(weight, theirs[weight.path], err_msg=weight.path)


@pytest.mark.parametrize("family", FAMILIES)
def test_files_of_keras_are_read_as_what_was_saved(family, tmp_path):
    model = build_model(FAMILIES[family])
    randomize(model)
    model.save(tmp_path / "x.keras")
    model.save_weights(tmp_path / "x.weights.h5")
    read = from_checkpoint(tmp_path / "x.keras")
    assert keras_vit.metadata(read).config == FAMILIES[family]
    _assert_same(read, model)
    for name in ("x.keras", "x.weights.h5"):
        other = build_model(FAMILIES[family])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            report = load_weights(other, tmp_path / name)
        assert (report.layout, report.new, report.outside) == ("keras", (), ())
        _assert_same(other, model)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model of three classes, and the folder of its files."""
    folder = tmp_path_factory.mktemp("saved")
    model = tiny_vit(labels=["ant", "bee", "cat"], origin="somewhere")
    model.compile("adamw", "mse")
    model.save(folder / "x.keras")
    model.save_weights(folder / "x.weights.h5")
    save_weights(model, folder / "x.safetensors")
    return model, folder


def test_what_the_model_says_of_itself_is_read(saved):
    model, folder = saved
    read = from_checkpoint(folder / "x.keras")
    assert keras_vit.metadata(read) == keras_vit.metadata(model)
    np.testing.assert_array_equal(read(IMAGES), model(IMAGES))


def test_another_head_and_another_size_are_as_in_other_checkpoints(saved):
    model, folder = saved
    changes = {"num_classes": 5, "image_size": (32, 16), "patch_size": 4, "num_channels": 1}
    read = {}
    for name in ("x.safetensors", "x.keras"):
        with pytest.warns(UserWarning, match=r"resampled to \(4, 4\).*of 3 channels.*the head is new: 5 classes"):
            read[name] = from_checkpoint(folder / name, **changes)
    _assert_same(read["x.keras"], read["x.safetensors"], but=["head/"])
    assert keras_vit.metadata(read["x.keras"]).labels is None
    for name in ("x.keras", "x.weights.h5"):
        other = tiny_vit(num_classes=5, image_size=(32, 16))
        with pytest.warns(UserWarning, match=r"\(2, 3\) are resized to \(4, 2\).*the head is new: 5 classes"):
            report = load_weights(other, folder / name)
        assert report.replaced == ("head/0", "head/1")
        assert report.new == ("head/bias", "head/kernel")
        np.testing.assert_array_equal(
            other.get_layer("encoder_norm").weights[0], model.get_layer("encoder_norm").weights[0]
        )


def test_names_take_files_of_keras(tmp_path):
    small = {"image_size": 32, "num_layers": 1, "hidden_dim": 24, "mlp_dim": 8}
    model = keras_vit.create_model("vit_tiny_patch16_224", num_classes=2, **small)
    randomize(model)
    model.save(tmp_path / "x.keras")
    model.save_weights(tmp_path / "x.weights.h5")
    for name in ("x.keras", "x.weights.h5"):
        same = keras_vit.create_model("vit_tiny_patch16_224", weights=tmp_path / name, **small)
        _assert_same(same, model)
        with pytest.warns(UserWarning, match="the head is new: 7 classes"):
            other = keras_vit.create_model("vit_tiny_patch16_224", weights=tmp_path / name, num_classes=7, **small)
        _assert_same(other, model, but=["head/"])


def test_weights_alone_do_not_tell_the_architecture(saved):
    with pytest.raises(ValueError, match=r"name it: keras_vit.create_model\(name, weights=path\)"):
        from_checkpoint(saved[1] / "x.weights.h5")
    model = from_checkpoint(saved[1] / "x.weights.h5", CONFIG)
    _assert_same(model, saved[0])


def test_skip_new_and_strictness(saved):
    folder = saved[1]
    with pytest.raises(ValueError, match=r"(?s)\+ encoder_block_2/attention_norm/beta"):
        load_weights(tiny_vit(num_layers=3), folder / "x.keras")
    with pytest.raises(ValueError, match=r"- encoder_block_1/attention/projection/0 "):
        load_weights(tiny_vit(num_layers=1), folder / "x.weights.h5")
    other = tiny_vit(num_layers=1)
    report = load_weights(other, folder / "x.keras", skip=["encoder_block_1/"])
    assert len(report.skipped) == 12
    with pytest.warns(UserWarning, match="by new=: encoder_norm/gamma"):
        report = load_weights(tiny_vit(), folder / "x.weights.h5", new=["^encoder_norm/gamma"])
    assert report.new == ("encoder_norm/gamma",)


def test_layers_of_ones_own_are_named_and_left_out(tmp_path):
    body = tiny_vit(num_classes=0)
    around = keras.Sequential([keras.layers.RandomFlip(), body, keras.layers.Dense(4, name="mine")])
    around.build((None, 16, 24, 3))
    on_top = keras.Model(body.input, keras.layers.Dense(4, name="head")(body.output))
    for model, prefix, name in ((around, "vit/", "mine"), (on_top, "", "head")):
        model.save(tmp_path / "x.keras")
        with pytest.warns(UserWarning, match=rf"beside them: {name}/\* \(2\)"):
            read = from_checkpoint(tmp_path / "x.keras")
        assert read.output_shape == (None, 16)
        _assert_same(read, body)
        with pytest.warns(UserWarning, match="not read beside"):
            report = load_weights(tiny_vit(num_classes=0), tmp_path / "x.keras")
        assert (report.prefix, report.outside) == (prefix, (f"{name}/0", f"{name}/1"))


def test_half_precision_is_read(tmp_path):
    for dtype in ("bfloat16", "float16"):
        model = tiny_vit(dtype=dtype)
        model.save(tmp_path / "x.keras")
        read = from_checkpoint(tmp_path / "x.keras")
        np.testing.assert_array_equal(
            read.get_layer("head").kernel, np.asarray(model.get_layer("head").kernel, "float32")
        )


def test_nothing_of_a_hostile_config_is_built(saved, tmp_path):
    with zipfile.ZipFile(saved[1] / "x.keras") as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(content["config.json"])
    bomb = {"module": "builtins", "class_name": "eval", "config": "1/0", "registered_name": "builtins>eval"}
    config["config"]["layers"].append({"module": "keras.layers", "class_name": "Lambda", "config": {"function": bomb}})
    layer = next(layer for layer in config["config"]["layers"] if layer["class_name"] == "Metadata")
    config["config"]["layers"] += [3, {"config": 4, "registered_name": "keras_vit>X"}]
    for change, rule in (({}, None), ({"class_name": "eval"}, "must be what keras_vit writes")):
        layer["config"]["config"] |= change
        content["config.json"] = json.dumps(config).encode()
        with zipfile.ZipFile(tmp_path / "x.keras", "w") as archive:
            for name, value in content.items():
                archive.writestr(name, value)
        if rule is None:
            _assert_same(from_checkpoint(tmp_path / "x.keras"), saved[0])
        else:
            with pytest.raises(ValueError, match=rule):
                from_checkpoint(tmp_path / "x.keras")


def test_a_damaged_file_is_noticed(saved, tmp_path):
    content = bytearray((saved[1] / "x.keras").read_bytes())
    for place in np.random.default_rng(0).integers(len(content), size=20):
        damaged = bytearray(content)
        damaged[place] ^= 16
        (tmp_path / "x.keras").write_bytes(damaged)
        try:
            read = from_checkpoint(tmp_path / "x.keras")
        except ValueError:
            continue
        _assert_same(read, saved[0])


def test_an_hdf5_file_of_something_else_is_refused(tmp_path):
    import h5py

    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a"] = np.ones(3)
    with pytest.raises(ValueError, match="an HDF5 file must be one of Keras 3"):
        from_checkpoint(tmp_path / "x.h5")
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save_weights(tmp_path / "y.weights.h5")
    with pytest.raises(ValueError, match="must be of one of the layouts"):
        load_weights(tiny_vit(), tmp_path / "y.weights.h5")
