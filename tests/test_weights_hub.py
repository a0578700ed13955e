"""Models as timm's folders and as repositories of the Hub."""

import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from tiny import IMAGES, tiny_vit
from weight_server import serving

import keras_vit
from keras_vit.models import VARIANTS, SwinConfig
from keras_vit.weights.hub import save_pretrained
from keras_vit.weights.timm_config import timm_config

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
    assert "license: mit" in (tmp_path / "m/README.md").read_text()


def test_config_of_a_published_model_is_found_by_its_name():
    for name in ("deit_tiny_distilled_patch16_224", "vit_base_patch16_clip_quickgelu_224", "swinv2_base_window8_256"):
        config = VARIANTS[name]
        spec = keras_vit.InputSpec(config.image_size, None)
        content = timm_config(config.replace(num_classes=7, drop_path_rate=0.1), spec, list("abcdefg"), "mit")
        assert content["architecture"] == name
        assert content["num_classes"] == content["pretrained_cfg"]["num_classes"] == len(content["label_names"]) == 7
        assert (content["pretrained_cfg"]["crop_mode"], content["pretrained_cfg"]["license"]) == ("squash", "mit")
        json.dumps(content)


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
    ],
)
def test_what_timm_has_not_is_refused_before_anything_is_written(fields, tmp_path):
    with pytest.raises(ValueError, match=r"timm has no model of this config.*Received: "):
        save_pretrained(tiny_vit(**fields), tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_swin_that_timm_has_not():
    config = SwinConfig(image_size=32, embed_dim=8, depths=(2,), num_heads=(2,), window_size=4, qkv_bias=False)
    with pytest.raises(ValueError, match=r"Received: qkv_bias=False"):
        timm_config(config, keras_vit.InputSpec(32))


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
            cwd=pathlib.Path(__file__).parents[1],
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
