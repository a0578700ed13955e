"""SwinConfig: every rule, JSON, `replace`, and the windows of every stage."""

import dataclasses
import json

import keras
import pytest

from keras_vit import SwinConfig
from keras_vit.models import build_model

CONFIG = SwinConfig(image_size=(32, 48), embed_dim=8, depths=(2, 2), num_heads=(2, 4), window_size=4, num_classes=3)
EVERYTHING = SwinConfig(
    image_size=(32, 64),
    patch_size=(4, 8),
    num_channels=1,
    embed_dim=12,
    depths=[1, 2, 3],
    num_heads=[2, 3, 4],
    window_size=(2, 2),
    mlp_ratio=2.5,
    num_classes=7,
    version=2,
    pretrained_window_sizes=[3, 0, 2],
    qkv_bias=False,
    activation="gelu_tanh",
    layer_norm_epsilon=1e-6,
    window_rule="huggingface",
    position_resize="bicubic",
    dropout_rate=0.1,
    attention_dropout_rate=0.2,
    drop_path_rate=0.3,
    classifier_activation="softmax",
)


@pytest.mark.parametrize("config", [CONFIG, EVERYTHING])
def test_json_round_trip(config):
    assert SwinConfig.from_json(config.to_json()) == config
    assert hash(SwinConfig.from_json(config.to_json())) == hash(config)
    assert set(json.loads(config.to_json())) == {field.name for field in dataclasses.fields(SwinConfig)}


def test_keras_round_trip():
    serialized = json.loads(json.dumps(keras.saving.serialize_keras_object(EVERYTHING)))
    assert keras.saving.deserialize_keras_object(serialized) == EVERYTHING


def test_everything_differs_from_its_default():
    for field in dataclasses.fields(SwinConfig):
        assert getattr(EVERYTHING, field.name) != field.default, field.name


def test_replace_changes_only_what_is_named():
    assert CONFIG.replace(num_classes=5).replace(num_classes=3) == CONFIG
    with pytest.raises(ValueError, match=r"unknown field of SwinConfig. Did you mean 'num_classes'"):
        CONFIG.replace(num_clases=5)


def test_sizes_of_every_stage():
    config = CONFIG.replace(image_size=(56, 72), depths=(2, 2, 6, 2), num_heads=(1, 2, 4, 4))
    assert config.hidden_dims == (8, 16, 32, 64)
    assert config.resolutions == ((14, 18), (7, 9), (4, 5), (2, 3))
    assert config.windows == ((4, 4), (4, 4), (4, 4), (2, 3))
    assert config.shifts == ((2, 2), (2, 2), (0, 2), (0, 0))
    other = config.replace(window_rule="huggingface")
    assert other.windows == ((4, 4), (4, 4), (4, 4), (2, 2))
    assert other.shifts == ((2, 2), (2, 2), (0, 0), (0, 0))


def test_transformers_decides_on_the_height_of_version_2():
    """And on that of the grid without the odd rows: 14, 7, 3, 1 where there are 14, 7, 4, 2."""
    tall = {"depths": (2, 2, 6, 2), "num_heads": (1, 2, 4, 4), "window_rule": "huggingface", "version": 2}
    config = CONFIG.replace(image_size=(56, 24), **tall)
    assert config.resolutions == ((14, 6), (7, 3), (4, 2), (2, 1))
    assert config.windows == ((4, 4), (4, 4), (3, 3), (1, 1))
    assert config.shifts == ((2, 2), (2, 2), (0, 0), (0, 0))
    wide = config.replace(image_size=(16, 56))
    assert (wide.windows[0], wide.shifts[0]) == ((4, 4), (0, 0))
    assert config.replace(version=1).windows == ((4, 4), (3, 3), (2, 2), (1, 1))
    # Even a grid that is gone by its floor keeps a token.
    assert config.replace(image_size=4).windows == ((1, 1),) * 4


def test_transformers_masks_version_2_twice():
    fields = {"image_size": 32, "window_size": 4, "window_rule": "huggingface", "depths": (2,), "num_heads": (1,)}
    masked = {v: build_model(CONFIG.replace(version=v, **fields)).get_layer("encoder_block_1").masked for v in (1, 2)}
    assert masked == {1: -100, 2: -200}
    assert build_model(CONFIG.replace(version=2, image_size=32)).get_layer("encoder_block_1").masked == -100


def test_drop_path_rates_are_linear_over_all_blocks():
    assert CONFIG.replace(drop_path_rate=0.3).drop_path_rates() == pytest.approx([0, 0.1, 0.2, 0.3])
    assert CONFIG.replace(drop_path_rate=0.3, depths=(1,), num_heads=(2,)).drop_path_rates() == [0]


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"image_size": 30}, r"image_size must be a multiple of patch_size. Received: image_size=\(30, 30\)"),
        ({"embed_dim": 0}, "embed_dim must be a positive int. Received: embed_dim=0"),
        ({"depths": ()}, r"depths must hold one int of at least 1 a stage. Received: depths=\(\)"),
        ({"depths": (2, 0)}, r"depths must hold one int of at least 1 a stage. Received: depths=\(2, 0\)"),
        ({"num_heads": (2, 4, 8)}, r"num_heads must be as long as depths. Received: num_heads=\(2, 4, 8\)"),
        ({"num_heads": (3, 4)}, "hidden_dim must be a multiple of num_heads. Received: hidden_dim=8, num_heads=3"),
        ({"window_size": 0}, "window_size must be a positive int or a pair"),
        ({"mlp_ratio": 0.1}, "mlp_ratio must give a width of at least 1. Received: mlp_ratio=0.1"),
        ({"num_classes": -1}, "num_classes must be an int of at least 0. Received: num_classes=-1"),
        ({"version": 3}, r"version must be one of \[1, 2\]. Received: version=3"),
        ({"pretrained_window_sizes": (3, 3)}, r"pretrained_window_sizes needs version=2. Received: version=1"),
        ({"version": 2, "pretrained_window_sizes": (3, -1)}, "must hold one int of at least 0 a stage"),
        ({"version": 2, "pretrained_window_sizes": (3,)}, "pretrained_window_sizes must be as long as depths"),
        ({"qkv_bias": 1}, "qkv_bias must be True or False. Received: qkv_bias=1"),
        ({"activation": "relu"}, "activation must be one of"),
        ({"layer_norm_epsilon": 0}, r"layer_norm_epsilon must be in \(0, 1\). Received: layer_norm_epsilon=0"),
        ({"position_resize": "bilinear"}, "position_resize must be one of .'bicubic', 'geometric'."),
        ({"window_rule": "tim"}, "window_rule must be one of .* Did you mean 'timm'"),
        ({"drop_path_rate": 1.0}, r"drop_path_rate must be a rate in \[0, 1\)"),
        ({"classifier_activation": "relu"}, "classifier_activation must be one of"),
        ({"window_rule": "microsoft", "window_size": (4, 2)}, r"'microsoft' needs a square window. Received: window_"),
        (
            {"window_rule": "microsoft", "image_size": (32, 56)},
            r"needs a grid that is a multiple of the window.*image_size=\(32, 56\), stage 0 with the grid \(8, 14\)",
        ),
        (
            {"window_rule": "microsoft", "image_size": 20, "window_size": 5},
            r"even where patches are merged.*stage 0 with the grid \(5, 5\) and the window \(5, 5\)",
        ),
    ],
)
def test_rules(changes, rule):
    with pytest.raises(ValueError, match=rule):
        CONFIG.replace(**changes)


def test_a_model_is_built_of_configs_only():
    assert build_model(CONFIG).output_shape == (None, 3)
    with pytest.raises(
        ValueError,
        match=r"config must be one of ConvNetConfig, HybridConfig, SwinConfig, ViTConfig. Received: config='swin'",
    ):
        build_model("swin")
