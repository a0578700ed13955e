"""Models as timm's folders and as repositories of the Hub."""

import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from tiny import CONFIG, IMAGES, tiny_vit
from weight_server import serving

import keras_vit
from keras_vit.models import VARIANTS, HybridConfig, SwinConfig
from keras_vit.weights.publish.push import save_pretrained
from keras_vit.weights.publish.timm_config import timm_config

MODELS = {
    "token": {},
    "gap": {"pooling": "gap", "pool_before_norm": True, "activation": "gelu_tanh"},
    "siglip": {"pooling": "map", "class_token": False, "position_on_prefix": False, "num_classes": 0},
    "distilled": {"distillation_token": True},
    "clip": {
        "embedding_norm": True,
        "patch_bias": False,
        "layer_norm_epsilon": 1e-5,
        "activation": "quick_gelu",
    },
    "registers": {
        "num_registers": 2,
        "position_on_prefix": False,
        "layer_scale_init": 0.1,
        "activation": "swiglu",
        "qk_norm": True,
    },
}


@pytest.mark.parametrize("name", MODELS)
def test_a_folder_gives_the_same_model(name, tmp_path):
    model = tiny_vit(**MODELS[name])
    save_pretrained(model, tmp_path / "m", license_id="mit")
    again = keras_vit.from_checkpoint(tmp_path / "m/model.safetensors")
    np.testing.assert_array_equal(again(IMAGES), model(IMAGES))
    card = (tmp_path / "m/README.md").read_text(encoding="utf-8")
    assert "license: mit" in card
    classifies = MODELS[name].get("num_classes") != 0
    for text in ("pipeline_tag: image-classification", "decode_predictions", "## Accuracy", "keras_vit evaluate"):
        assert (text in card) == classifies
    assert ("pipeline_tag: image-feature-extraction" in card) != classifies


@pytest.mark.parametrize(
    ("origin", "shown"),
    [
        (None, "trained from scratch"),
        ("hub:me/m@main", "hub:me/m@main"),
        ("hf://me/m/x.npz", "hf://me/m/x.npz"),
        ("vit_tiny_patch16_224.augreg_in21k", "vit_tiny_patch16_224.augreg_in21k"),
        ("https://me:secret@example.org/a/x.npz?token=secret", "https://example.org/a/x.npz"),
        ("/home/secret/x.npz", "x.npz"),
        ("secret\\x.npz", "x.npz"),
    ],
)
def test_the_card_tells_the_origin_but_no_secrets(origin, shown, tmp_path):
    save_pretrained(tiny_vit(origin=origin, num_layers=1), tmp_path)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert f"Origin of the weights: {shown}.\n" in card
    assert "secret" not in card
    if shown == "vit_tiny_patch16_224.augreg_in21k":  # published weights keep their license
        assert "license: apache-2.0" in card
        assert "| license | apache-2.0 |" in card
    else:  # Of an unknown license nothing is said to the Hub.
        assert "license:" not in card
        assert "| license | not given |" in card


def test_config_of_a_published_model_is_found_by_its_name():
    for name in ("deit_tiny_distilled_patch16_224", "vit_base_patch16_clip_quickgelu_224", "swinv2_base_window8_256"):
        config = VARIANTS[name]
        spec = keras_vit.InputSpec(config.image_size, None)
        content = timm_config(config.replace(num_classes=7, drop_path_rate=0.1), spec, list("abcdefg"), "mit")
        assert content["architecture"] == name
        assert content["num_classes"] == content["pretrained_cfg"]["num_classes"] == len(content["label_names"]) == 7
        assert (content["pretrained_cfg"]["crop_mode"], content["pretrained_cfg"]["license"]) == ("squash", "mit")
        json.dumps(content)


def test_a_model_without_biases_of_queries_keys_and_values_says_so():
    spec = keras_vit.InputSpec(CONFIG.image_size)
    assert timm_config(CONFIG.replace(qkv_bias=False), spec)["model_args"]["qkv_bias"] is False
    assert "qkv_bias" not in timm_config(CONFIG, spec)["model_args"]


def test_widths_survive_that_timm_truncates():
    for name in ("vit_so400m_patch14_siglip_224", "vit_giant_patch14_dinov2", "vit_giant_patch14_clip_224"):
        config = VARIANTS[name]
        arguments = timm_config(config, keras_vit.InputSpec(config.image_size))["model_args"]
        gates = 2 if config.activation == "swiglu" else 1
        assert int(config.hidden_dim * arguments["mlp_ratio"]) == gates * config.mlp_dim


@pytest.mark.parametrize(
    "fields",
    [
        {"layer_norm_epsilon": 1e-12},
        {"position_embedding": "sincos2d"},
        {"pre_logits_dim": 8},
        {"pooling": "token_gap"},
        {"embedding_norm": True, "patch_bias": False, "layer_norm_epsilon": 1e-5, "activation": "swiglu"},
        {"distillation_token": True, "num_registers": 1},
        {"distillation_token": True, "pooling": "gap"},
        {"distillation_token": True, "pool_before_norm": True},
        {"distillation_token": True, "num_classes": 0},
        {"pooling": "map", "activation": "swiglu"},
        {"num_registers": 1},
        {"classifier_activation": "softmax"},
        {"classifier_activation": "sigmoid"},
    ],
)
def test_what_timm_has_not_is_refused_before_anything_is_written(fields, tmp_path):
    with pytest.raises(ValueError, match=r"timm has no model of this config.*Received: "):
        save_pretrained(tiny_vit(**fields), tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_an_activation_that_is_none_or_not_there_is_no_matter():
    for fields in ({"classifier_activation": "linear"}, {"classifier_activation": "softmax", "num_classes": 0}):
        timm_config(CONFIG.replace(**fields), keras_vit.InputSpec(CONFIG.image_size))


@pytest.mark.parametrize(
    ("fields", "no_embed_class"),
    [
        ({}, False),
        ({"position_on_prefix": False}, True),
        ({"num_registers": 2, "position_on_prefix": False}, True),
        # Without a class token a table is of the patches alone, whatever was asked for.
        ({"class_token": False, "pooling": "gap", "num_registers": 2, "position_on_prefix": False}, True),
        ({"class_token": False, "pooling": "gap", "num_registers": 2}, True),
    ],
)
def test_positions_of_prefix_tokens(fields, no_embed_class):
    config = CONFIG.replace(**fields)
    arguments = timm_config(config, keras_vit.InputSpec(config.image_size))["model_args"]
    assert arguments["no_embed_class"] is no_embed_class


def test_hybrids_are_built_on_the_published_one_with_their_resnet():
    for name, first in (("vit_tiny_r_s16_p8_224", "backbone.conv"), ("vit_base_r50_s16_224", "backbone.stem.conv")):
        for changes in ({}, {"image_size": (64, 96)}, {"num_layers": 2, "hidden_dim": 48, "num_heads": 3}):
            config = VARIANTS[name].replace(**changes)
            content = timm_config(config, keras_vit.InputSpec(config.image_size))
            assert VARIANTS[content["architecture"]].stem_depths == config.stem_depths
            assert (content["architecture"] == name) or changes
            assert content["model_args"]["patch_size"] == list(config.patch_size)
            assert content["pretrained_cfg"]["first_conv"] == f"patch_embed.{first}"


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"stem_rule": "google"}, "stem_rule='google' instead of 'timm'"),
        ({"stem_width": 32}, "stem_width=32 instead of 64"),
        ({"stem_depths": (1, 1)}, r"stem_depths=\(1, 1\) instead of one of \[\(\), "),
        ({"activation": "swiglu"}, "a model that is swiglu and hybrid"),
        ({"distillation_token": True}, "a model that is distilled and hybrid"),
    ],
)
def test_hybrids_that_timm_has_not(fields, problem):
    config = HybridConfig(image_size=64, hidden_dim=48, num_layers=1, num_heads=3, mlp_dim=48).replace(**fields)
    with pytest.raises(ValueError, match=f"timm has no model of this config.*Received: {problem}"):
        timm_config(config, keras_vit.InputSpec(64))


def test_swin_that_timm_has_not():
    config = SwinConfig(image_size=32, embed_dim=8, depths=(2,), num_heads=(2,), window_size=4, qkv_bias=False)
    with pytest.raises(ValueError, match=r"Received: qkv_bias=False"):
        timm_config(config, keras_vit.InputSpec(32))
    with pytest.raises(ValueError, match=r"Received: classifier_activation='softmax'"):
        timm_config(config.replace(qkv_bias=True, classifier_activation="softmax"), keras_vit.InputSpec(32))


def test_push_and_fetch(tmp_path):
    """In a process of its own: `huggingface_hub` reads its endpoint when it is imported."""
    model = tiny_vit(labels=["a", "b", "c"])
    model.save(tmp_path / "m.keras")
    code = (
        "import sys, keras, keras_vit\n"
        "model = keras.models.load_model(sys.argv[1])\n"
        "for _ in range(2):\n"
        "    print(keras_vit.push_to_hub(model, 'me/tiny', license_id='mit', token='hf_x'))\n"
        "keras_vit.from_checkpoint('hub:me/tiny').save(sys.argv[2])\n"
    )
    with serving({}) as server:
        home = {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
        done = subprocess.run(
            [sys.executable, "-c", code, tmp_path / "m.keras", tmp_path / "again.keras"],
            env={**os.environ, **home},
            cwd=pathlib.Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert sorted(server.files) == [f"me/tiny/{n}" for n in ("README.md", "config.json", "model.safetensors")]
        assert "/me/tiny/commit/" in done.stdout
        # The card of the first push stays.
        pushed = [request for request in server.requests if "/preupload/" in request[1]]
        assert len(pushed) == 2
    again = keras.models.load_model(tmp_path / "again.keras")
    np.testing.assert_array_equal(again(IMAGES), model(IMAGES))
    assert keras_vit.metadata(again).labels == ("a", "b", "c")
