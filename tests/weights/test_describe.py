"""What arrays do not tell: written into our own files, or read from the files beside a checkpoint."""

import json

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from golden import GOLDENS
from tiny import CONFIG, tiny_vit

import keras_vit
from keras_vit.metadata import update_metadata
from keras_vit.models import VARIANTS, SwinConfig, build_swin
from keras_vit.preprocessing import InputSpec
from keras_vit.weights import from_checkpoint, load_variant, load_weights, save_weights
from keras_vit.weights.config.json_files import config_fields, timm_input_spec, transformers_input_spec

LEGACY = GOLDENS / "torchvision/vit_legacy_mlp_keys/checkpoint.safetensors"
UNTOLD = {"activation": "quick_gelu", "layer_norm_epsilon": 1e-3, "num_heads": 4, "position_resize": "bicubic"}


def _metadata(path):
    with safetensors.safe_open(path, framework="numpy") as file:
        return file.metadata()


def test_our_own_files_tell_config_preprocessing_and_labels(tmp_path):
    path, spec = tmp_path / "x.safetensors", InputSpec((16, 24), crop_fraction=0.9, mean=(0.1, 0.2, 0.3))
    model = tiny_vit(**UNTOLD, labels=["ä", "b", "c"])
    update_metadata(model, input_spec=spec)
    save_weights(model, path, "torchvision")
    assert _metadata(path)["format"] == "pt"
    loaded = from_checkpoint(path)
    content = keras_vit.metadata(loaded)
    assert (content.config, content.input_spec, content.labels) == (CONFIG.replace(**UNTOLD), spec, ("ä", "b", "c"))
    for ours, theirs in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.warns(UserWarning, match=r"resized to \(2, 2\) \(bicubic\)"):
        content = keras_vit.metadata(from_checkpoint(path, image_size=16, activation="gelu", num_classes=2))
    assert (content.config.activation, content.config.layer_norm_epsilon) == ("gelu", 1e-3)
    assert (content.input_spec, content.labels) == (spec.replace(size=16), None)
    explicit = InputSpec((16, 24))
    content = keras_vit.metadata(from_checkpoint(path, input_spec=explicit, labels=["d", "e", "f"]))
    assert (content.input_spec, content.labels) == (explicit, ("d", "e", "f"))


def test_our_own_files_go_before_a_config_beside_them_and_npz_files_hold_arrays_alone(tmp_path):
    model = tiny_vit(**UNTOLD)
    save_weights(model, tmp_path / "x.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"num_attention_heads": 8, "hidden_act": "gelu"}))
    assert keras_vit.metadata(from_checkpoint(tmp_path / "x.safetensors")).config == CONFIG.replace(**UNTOLD)
    save_weights(model, tmp_path / "x.npz", "google")
    with np.load(tmp_path / "x.npz") as arrays:
        assert all("/" in name or name == "cls" for name in arrays)


def test_a_swin_of_ours_tells_its_windows(tmp_path):
    config = SwinConfig(
        image_size=(32, 48), embed_dim=8, depths=(1, 1), num_heads=(1, 2), window_size=(4, 3), version=2, num_classes=3
    )
    save_weights(build_swin(config), tmp_path / "x.safetensors")
    assert keras_vit.metadata(from_checkpoint(tmp_path / "x.safetensors")).config == config
    larger = from_checkpoint(tmp_path / "x.safetensors", window_size=3, pretrained_window_sizes=(4, 4))
    assert keras_vit.metadata(larger).config.windows == ((3, 3), (3, 3))
    with pytest.raises(ValueError, match="pretrained_window_sizes must be passed"):
        from_checkpoint(tmp_path / "x.safetensors", window_size=3)


GOOD = {
    "family": "ViTConfig",
    "config": {**CONFIG.get_config()},
    "input_spec": InputSpec((16, 24)).get_config(),
    "labels": None,
}
MALFORMED = {
    "no JSON": "{",
    "no object": "[1]",
    "deep": "[" * 100_000,
    "no family": json.dumps({**GOOD, "family": "os"}),
    "family of a list": json.dumps({**GOOD, "family": []}),
    "unknown field": json.dumps({**GOOD, "config": {**GOOD["config"], "x": 1}}),
    "wrong type": json.dumps({**GOOD, "config": {**GOOD["config"], "hidden_dim": "16"}}),
    "config of a list": json.dumps({**GOOD, "config": []}),
    "no spec": json.dumps({**GOOD, "input_spec": None}),
    "spec of another size": json.dumps({**GOOD, "input_spec": {**GOOD["input_spec"], "size": [1, 1]}}),
    "spec of lists": json.dumps({**GOOD, "input_spec": {**GOOD["input_spec"], "interpolation": [[]]}}),
    "labels of a number": json.dumps({**GOOD, "labels": 3}),
    "too few labels": json.dumps({**GOOD, "labels": ["a"]}),
}


@pytest.fixture(scope="module")
def tensors(tmp_path_factory):
    path = tmp_path_factory.mktemp("tensors") / "x.safetensors"
    save_weights(tiny_vit(), path)
    return safetensors.numpy.load_file(path)


@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_description_is_an_error_that_names_the_file(text, tensors, tmp_path):
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file(tensors, path, {"keras_vit": text})
    for load in (from_checkpoint, lambda path: load_weights(None, path)):
        with pytest.raises(
            ValueError, match=r"metadata 'keras_vit' of a checkpoint must be what keras_vit writes.*x.saf"
        ):
            load(path)


@pytest.mark.parametrize(
    "field", [{"num_layers": 1_000_000_000}, {"hidden_dim": 32}, {"num_channels": 3, "mlp_dim": 1}]
)
def test_a_description_of_other_arrays_is_refused_before_anything_is_built(field, tensors, tmp_path):
    path, text = tmp_path / "x.safetensors", json.dumps({**GOOD, "config": {**GOOD["config"], **field}})
    safetensors.numpy.save_file(tensors, path, {"keras_vit": text})
    with pytest.raises(ValueError, match=rf"must be that of its arrays. Received: .* with {list(field)[-1]}="):
        from_checkpoint(path)


TIMM = {
    "architecture": "vit_base_patch16_siglip_gap_224",
    "global_pool": "avg",
    "pretrained_cfg": {
        "input_size": [3, 32, 32],
        "crop_pct": 0.9,
        "crop_mode": "center",
        "interpolation": "bilinear",
        "mean": [0.1, 0.2, 0.3],
        "std": [0.4, 0.5, 0.6],
    },
    "label_names": [f"n{i}" for i in range(11)],
}


@pytest.fixture
def beside(tmp_path):
    """A callable that puts JSON files beside a torchvision checkpoint and gives its path."""

    def write(**contents):
        for name, content in contents.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
        (tmp_path / "model.safetensors").write_bytes(LEGACY.read_bytes())
        return tmp_path / "model.safetensors"

    return write


def test_preprocessing_labels_and_pooling_come_from_timms_config(beside):
    path = beside(config=TIMM)
    content = keras_vit.metadata(from_checkpoint(path, num_heads=8))
    assert content.input_spec == InputSpec(32, 0.9, "bilinear", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert (content.labels, content.config.pooling) == (tuple(TIMM["label_names"]), "gap")
    with pytest.warns(UserWarning, match="positions"):
        content = keras_vit.metadata(from_checkpoint(path, num_heads=8, image_size=16, pooling="token"))
    assert (content.input_spec.size, content.config.pooling) == ((16, 16), "token")
    with pytest.warns(UserWarning, match="channels"):
        content = keras_vit.metadata(from_checkpoint(path, num_heads=8, num_channels=1))
    assert content.input_spec == InputSpec.symmetric(32, 1)


def test_preprocessing_and_labels_come_from_hugging_faces_files(beside):
    names = {str(i): f"name {i}" for i in reversed(range(11))}
    preprocessor = {
        "size": {"height": 32, "width": 32},
        "resample": 2,
        "image_mean": [0.5] * 3,
        "image_std": [0.25] * 3,
    }
    path = beside(config={"num_attention_heads": 8, "id2label": names}, preprocessor_config=preprocessor)
    content = keras_vit.metadata(from_checkpoint(path))
    assert content.input_spec == InputSpec(32, None, "bilinear", (0.5,) * 3, (0.25,) * 3)
    assert content.labels == tuple(f"name {i}" for i in range(11))


@pytest.mark.parametrize(
    "names",
    [
        {"id2label": {str(i): f"LABEL_{i}" for i in range(11)}},
        {"id2label": {"0": "cat", "1": "dog"}},
        {"id2label": {str(2 * i): str(i) for i in range(11)}},
        {"id2label": {}},
    ],
    ids=["placeholders", "of another head", "with gaps", "none"],
)
def test_labels_that_name_nothing_are_left_away(names, beside):
    assert keras_vit.metadata(from_checkpoint(beside(config={**names, "num_attention_heads": 8}))).labels is None


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({}, None),
        ({"crop_pct": None, "mean": [0.5] * 3, "std": [1] * 3}, InputSpec(224, 0.875, mean=(0.5,) * 3, std=(1,) * 3)),
        ({"crop_mode": "squash", "crop_pct": 1.0, "mean": [0.5] * 3, "std": [0.5] * 3}, InputSpec(224, None)),
        ({"interpolation": "random"}, InputSpec(224, 0.875, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))),
    ],
)
def test_timms_preprocessing(told, expected):
    assert timm_input_spec({"pretrained_cfg": told}) == expected


@pytest.mark.parametrize("told", [{"crop_mode": "border", "crop_pct": 1.0}, {"crop_mode": "squash", "crop_pct": 0.9}])
def test_preprocessing_that_no_input_spec_holds_is_said(told):
    with pytest.warns(UserWarning, match="has no InputSpec; pass input_spec="):
        assert timm_input_spec({"pretrained_cfg": told}) is None


EDGE = {"do_center_crop": True, "resample": 3}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"size": 224}, InputSpec(224, None, "bilinear")),
        ({**EDGE, "size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}, InputSpec(224, 0.875)),
        ({**EDGE, "size": {"shortest_edge": 224}, "crop_size": 224}, InputSpec(224)),
        ({"size": {"shortest_edge": 224}, "resample": 3}, InputSpec(224)),
        (
            {"size": {"height": 32, "width": 48}, "do_normalize": False},
            InputSpec((32, 48), None, "bilinear", (0,) * 3, (1,) * 3),
        ),
        (
            {"size": 8, "do_rescale": False, "image_mean": [51] * 3, "image_std": [255] * 3},
            InputSpec(8, None, "bilinear", (0.2,) * 3, (1,) * 3),
        ),
        ({"size": 8, "rescale_factor": 2 / 255}, InputSpec(8, None, "bilinear", (0.25,) * 3, (0.25,) * 3)),
        ({}, None),
    ],
)
def test_hugging_faces_preprocessing(content, expected):
    found = transformers_input_spec(content)
    assert (found and found.size) == (expected and expected.size)
    if expected:
        assert (found.crop_fraction, found.interpolation) == (expected.crop_fraction, expected.interpolation)
        np.testing.assert_allclose([found.mean, found.std], [expected.mean, expected.std])


@pytest.mark.parametrize("size", [224, 256, 384])
@pytest.mark.parametrize("larger", [232, 248, 256, 272, 292, 438])
def test_a_crop_of_hugging_face_cuts_from_the_size_that_it_names(size, larger):
    larger = max(size, larger)
    told = {"size": {"shortest_edge": larger}, "do_center_crop": True, "crop_size": size}
    assert transformers_input_spec(told).resized_size((1000, 1000)) == (larger, larger)


@pytest.mark.parametrize(
    ("files", "rule"),
    [
        ({"config": []}, "a config.json must hold an object"),
        ({"preprocessor_config": "x"}, "a preprocessor_config.json must hold an object"),
        ({"config": {"hidden_act": []}}, r"config.json.*an activation must be one of"),
        ({"config": {"image_size": "big"}}, r"config.json.*image_size must be a positive int"),
        ({"config": {"use_absolute_embeddings": True}}, r"config.json.*absolute positions"),
        ({"config": {"id2label": {"a": "b"}}}, r"a config.json must be as"),
        ({"config": {"architecture": 3}}, r"a config.json must be as"),
        ({"config": {**TIMM, "pretrained_cfg": {"mean": "x"}}}, r"a config.json must be as"),
        ({"preprocessor_config": {"size": {"edge": 3}}}, r"a preprocessor_config.json must be as"),
        ({"preprocessor_config": {"resample": 9}}, r"resample must be one of \[0, 1, 2, 3\]. Received: resample=9"),
    ],
)
def test_files_beside_a_checkpoint_that_are_malformed_are_named(files, rule, beside):
    with pytest.raises(ValueError, match=rule):
        from_checkpoint(beside(**files), num_heads=8)


SIGLIP = {"pooling": "map", "class_token": False, "position_on_prefix": False, "num_classes": 0}
RESTS = {
    "huggingface": {"vision_config": {"image_size": [30, 22], "num_attention_heads": 2}},
    "timm": {"architecture": "vit_x", "model_args": {"num_heads": 2}, "pretrained_cfg": {"input_size": [3, 30, 22]}},
    "big_vision": {},
}


@pytest.mark.parametrize("layout", RESTS)
def test_pixels_beyond_the_last_whole_patch_are_told_by_the_size_of_the_image(layout, tmp_path):
    """As SigLIP So400m/14 at 384, whose 27 x 27 patches leave 6 pixels out; here 3 x 2 of 8 of 30 x 22."""
    path = tmp_path / "x.safetensors"
    model = tiny_vit(**SIGLIP, image_size=(30, 22), drop_remainder=True)
    save_weights(model, path, layout)
    safetensors.numpy.save_file(safetensors.numpy.load_file(path), path)
    (tmp_path / "config.json").write_text(json.dumps(RESTS[layout]))
    told = {} if RESTS[layout] else {"image_size": (30, 22)}
    config = keras_vit.metadata(from_checkpoint(path, **told)).config
    assert (config.image_size, config.drop_remainder, config.grid_size) == ((30, 22), True, (3, 2))
    variant = VARIANT.replace(**SIGLIP, image_size=(30, 22), drop_remainder=True)
    config = keras_vit.metadata(load_variant(path, variant)).config
    assert (config.image_size, config.drop_remainder) == ((30, 22), True)
    # The same table is that of an image without a rest, where it is said so.
    config = keras_vit.metadata(from_checkpoint(path, image_size=(24, 16), drop_remainder=False, num_heads=2)).config
    assert (config.image_size, config.drop_remainder) == ((24, 16), False)
    if told:
        return
    with pytest.warns(UserWarning, match=r"positions of the grid \(3, 2\) are resized to \(2, 3\)"):
        load_weights(tiny_vit(**SIGLIP), path)


TINY = {"hidden_dim": 16, "num_layers": 2, "num_heads": 2, "mlp_dim": 24, "patch_size": 8, "image_size": (16, 24)}
VARIANT = VARIANTS["vit_tiny_patch16_224"].replace(**TINY)


def test_a_model_by_name_takes_what_the_weights_tell_and_keeps_its_size(tmp_path):
    gap = {"pooling": "gap", "class_token": False, "position_on_prefix": False}
    save_weights(tiny_vit(**gap), tmp_path / "x.npz", "google")
    created = keras_vit.create_model("vit_tiny_patch16_224", tmp_path / "x.npz", **TINY)
    told = {"activation": "gelu_tanh", "position_resize": "bilinear_corners", "num_classes": 3, **gap}
    assert keras_vit.metadata(created).config == VARIANT.replace(**told)
    created = keras_vit.create_model("vit_tiny_patch16_224", tmp_path / "x.npz", **TINY, activation="gelu")
    assert keras_vit.metadata(created).config == VARIANT.replace(**{**told, "activation": "gelu"})
    assert (created.name, keras_vit.metadata(created).origin) == ("vit_tiny_patch16_224", str(tmp_path / "x.npz"))
    # What the arrays do not tell is the variant's, here the number of heads.
    save_weights(tiny_vit(), tmp_path / "x.safetensors", "huggingface")
    safetensors.numpy.save_file(safetensors.numpy.load_file(tmp_path / "x.safetensors"), tmp_path / "y.safetensors")
    config = keras_vit.metadata(load_variant(tmp_path / "y.safetensors", VARIANT)).config
    assert config == VARIANT.replace(layer_norm_epsilon=1e-12, position_resize="bicubic", num_classes=3)


@pytest.mark.parametrize(("sizes", "expected"), [([0] * 4, None), ([2, 3, 9, 9], (2, 3)), ([0, 0, 5, 5], None)])
@pytest.mark.parametrize("writer", ["timm", "huggingface"])
def test_windows_of_training_beyond_the_last_stage_are_left_out(writer, sizes, expected, tmp_path):
    fields = {"image_size": 32, "embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2), "window_size": 4}
    model = build_swin(SwinConfig(**fields, version=2, num_classes=3, window_rule=writer))
    save_weights(model, tmp_path / "x.npz", writer)
    arrays = {key: value for key, value in np.load(tmp_path / "x.npz").items() if "coords_table" not in key}
    np.savez(tmp_path / "y.npz", **arrays)
    told = {"window_size": 4, "pretrained_window_sizes": sizes, "image_size": 32, "img_size": 32}
    content = {"architecture": "swinv2_tiny_window8_256", "model_args": told} if writer == "timm" else told
    (tmp_path / "config.json").write_text(json.dumps(content))
    found = keras_vit.metadata(from_checkpoint(tmp_path / "y.npz")).config
    assert found.pretrained_window_sizes == expected


@pytest.mark.parametrize(
    ("content", "heads"),
    [
        ({"model_type": "vit", "hidden_size": 384}, 12),
        ({"model_type": "vit", "num_attention_heads": 6}, 6),
        ({"model_type": "dinov2_with_registers"}, 12),
        ({"model_type": "siglip", "vision_config": {"hidden_size": 384}}, 12),
        ({"model_type": "clip", "vision_config": {"model_type": "clip_vision_model"}}, 12),
        ({"model_type": "another", "hidden_size": 384}, None),
        ({"model_type": []}, None),
        ({}, None),
    ],
)
def test_what_a_config_of_transformers_leaves_out_is_its_default(content, heads):
    assert config_fields(content).get("num_heads") == heads


def test_heads_that_a_config_leaves_out_are_not_those_of_the_published_size(tmp_path):
    save_weights(tiny_vit(hidden_dim=192, mlp_dim=768, num_layers=12), tmp_path / "x.npz", "huggingface")
    assert keras_vit.metadata(from_checkpoint(tmp_path / "x.npz", image_size=(16, 24))).config.num_heads == 3
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit", "hidden_size": 192}))
    assert keras_vit.metadata(from_checkpoint(tmp_path / "x.npz", image_size=(16, 24))).config.num_heads == 12


ACTIVATIONS = {
    "vit_so400m_patch16_siglip_256": "gelu_tanh",
    "vit_so400m_patch16_siglip_gap_256": "gelu_tanh",
    "vit_so400m_patch14_siglip_384.webli": "gelu",
    "vit_giantopt_patch16_siglip_256": "gelu_tanh",
    "vit_base_patch16_siglip_224": "gelu",
    "vit_base_patch16_clip_quickgelu_224.openai": "quick_gelu",
    "vit_huge_patch14_clip_quickgelu_378": "quick_gelu",
    "vit_base_patch16_clip_224": "gelu",
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_names_of_timm_stand_for_an_activation(name):
    assert config_fields({"architecture": name}).get("activation") == ACTIVATIONS[name]
    assert config_fields({"architecture": name, "model_args": {"act_layer": "gelu"}})["activation"] == "gelu"


def test_a_classifier_of_siglip_stands_on_the_mean_and_leaves_the_pooling_aside(tmp_path):
    fields = {**SIGLIP, "image_size": (16, 16), "drop_remainder": False, "activation": "gelu_tanh"}
    model = tiny_vit(**fields | {"pooling": "gap", "num_classes": 3})
    save_weights(model, tmp_path / "x.npz", "huggingface")
    save_weights(tiny_vit(**fields | {"pooling": "map", "num_classes": 0}), tmp_path / "map.npz", "huggingface")
    # SiglipForImageClassification writes both, and uses the classifier alone.
    pooling = {key: value for key, value in np.load(tmp_path / "map.npz").items() if ".head." in key}
    assert len(pooling) == 11
    np.savez(tmp_path / "y.npz", **pooling, **np.load(tmp_path / "x.npz"))
    again = from_checkpoint(tmp_path / "y.npz", num_heads=2)
    found = keras_vit.metadata(again).config
    assert (found.pooling, found.num_classes, found.class_token) == ("gap", 3, False)
    images = np.random.default_rng(0).uniform(-1, 1, (1, 16, 16, 3)).astype("float32")
    np.testing.assert_array_equal(again(images), model(images))
    report = load_weights(again, tmp_path / "y.npz")
    assert set(report.ignored) == set(pooling)


GIANT = {"architecture": "vit_giant_patch14_dinov2"}


def test_whether_an_mlp_is_gated_its_arrays_tell(tmp_path):
    assert "activation" not in config_fields(GIANT)
    (tmp_path / "config.json").write_text(json.dumps({**GIANT, "model_args": {"num_heads": 2}}))
    for activation in ("swiglu", "gelu"):
        save_weights(tiny_vit(activation=activation), tmp_path / "model.safetensors")
        tensors = safetensors.numpy.load_file(tmp_path / "model.safetensors")
        safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
        found = from_checkpoint(tmp_path / "model.safetensors", num_heads=2, image_size=(16, 24))
        assert keras_vit.metadata(found).config.activation == activation


@pytest.mark.parametrize("layout", ["timm", "dinov2", "deit"])
def test_a_model_by_name_has_the_names_activation_in_timms_keys(layout, tmp_path):
    fields = {"layer_scale_init": 0.1} if layout == "deit" else {}
    save_weights(tiny_vit(**fields), tmp_path / "x.safetensors", layout)
    safetensors.numpy.save_file(safetensors.numpy.load_file(tmp_path / "x.safetensors"), tmp_path / "x.safetensors")
    variant = VARIANT.replace(activation="quick_gelu", **fields)
    for asked, expected in (({}, "quick_gelu"), ({"activation": "gelu"}, "gelu")):
        model = load_variant(tmp_path / "x.safetensors", variant, **asked)
        assert keras_vit.metadata(model).config.activation == expected


def test_a_model_by_name_keeps_its_image_and_may_be_asked_for_another_patch(tensors, tmp_path):
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file(tensors, path)
    (tmp_path / "config.json").write_text(json.dumps({"image_size": [16, 24]}))
    with pytest.warns(UserWarning, match=r"positions of the grid \(2, 3\) are resized to \(4, 6\)"):
        model = load_variant(path, VARIANT.replace(image_size=(32, 48)), patch_size=8)
    assert keras_vit.metadata(model).config.image_size == (32, 48)
    with pytest.warns(UserWarning, match=r"patch kernels of \(8, 8\) are resampled to \(4, 4\)"):
        model = load_variant(path, VARIANT, patch_size=4)
    assert keras_vit.metadata(model).config.grid_size == (4, 6)


def test_weights_of_another_size_or_family_name_the_fields_that_differ(tensors, tmp_path):
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file(tensors, path)
    with pytest.raises(
        ValueError, match=r"of the model's size. Received: .*mlp_dim=24 for 32, patch_size=\(8, 8\) for \(4"
    ):
        load_variant(path, VARIANT.replace(patch_size=4), mlp_dim=32)
    (tmp_path / "config.json").write_text(json.dumps({"image_size": [16, 24]}))
    with pytest.raises(ValueError, match=r"family, SwinConfig. Received: .*x.safetensors' of a ViTConfig"):
        keras_vit.create_model("swin_tiny_patch4_window7_224", path, num_classes=3)


def test_a_swin_by_name_takes_its_windows_of_training_from_its_name(tmp_path):
    fields = {"embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2), "version": 2, "num_classes": 3}
    variant = SwinConfig(image_size=32, window_size=4, **fields)
    path = tmp_path / "x.safetensors"
    save_weights(build_swin(variant), path)
    safetensors.numpy.save_file(safetensors.numpy.load_file(path), path)
    assert keras_vit.metadata(load_variant(path, variant)).config == variant
    larger = keras_vit.metadata(load_variant(path, variant, window_size=8, image_size=64)).config
    assert larger == variant.replace(window_size=8, image_size=64, pretrained_window_sizes=(4, 4))


def test_an_unknown_field_names_the_nearest():
    with pytest.raises(ValueError, match=r"unknown field of ViTConfig. Did you mean 'num_classes'.*num_clases=3"):
        from_checkpoint(LEGACY, num_heads=8, num_clases=3)
