"""ViTConfig: every rule, JSON, and `replace`."""

import copy
import dataclasses
import json
import pickle

import keras
import pytest
from tiny import CONFIG

from keras_vit import ViTConfig
from keras_vit.models import swin_config, vit_config

EVERYTHING = ViTConfig(
    image_size=(32, 48),
    patch_size=(8, 16),
    num_channels=1,
    hidden_dim=24,
    num_layers=3,
    num_heads=4,
    mlp_dim=40,
    num_classes=7,
    class_token=False,
    distillation_token=True,
    num_registers=2,
    pooling="gap",
    pool_before_norm=True,
    pre_logits_dim=10,
    pre_logits_activation=None,
    classifier_activation="softmax",
    activation="swiglu",
    norm_placement="pre",
    embedding_norm=True,
    qk_norm=True,
    layer_norm_epsilon=1e-5,
    layer_scale_init=0.1,
    position_embedding="sincos2d",
    position_on_prefix=False,
    position_resize="bilinear_corners",
    dropout_rate=0.1,
    attention_dropout_rate=0.2,
    drop_path_rate=0.3,
    drop_path_schedule="constant",
)


@pytest.mark.parametrize(
    "config", [CONFIG, EVERYTHING, EVERYTHING.replace(pool_before_norm=False, norm_placement="post")]
)
def test_json_round_trip(config):
    assert ViTConfig.from_json(config.to_json()) == config
    # Absent where it is False, as in files from before there was one.
    written = {field.name for field in dataclasses.fields(ViTConfig)} - {"dynamic_image_size"}
    assert set(json.loads(config.to_json())) == written
    dynamic = config.replace(dynamic_image_size=True)
    assert ViTConfig.from_json(dynamic.to_json()) == dynamic


def test_keras_round_trip():
    serialized = json.loads(json.dumps(keras.saving.serialize_keras_object(EVERYTHING)))
    assert keras.saving.deserialize_keras_object(serialized) == EVERYTHING


def test_replace_changes_only_what_is_named():
    assert CONFIG.replace(num_layers=5).to_json() == CONFIG.to_json().replace('"num_layers": 2', '"num_layers": 5')
    assert CONFIG.num_layers == 2


def test_replace_checks_again():
    with pytest.raises(ValueError, match="image_size must be a multiple of patch_size"):
        CONFIG.replace(image_size=(16, 25))


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        CONFIG.num_layers = 3


def test_unknown_field_names_the_nearest():
    with pytest.raises(ValueError, match=r"unknown field of ViTConfig. Did you mean 'hidden_dim'.*hiden_dim=8"):
        CONFIG.replace(hiden_dim=8)


def test_a_missing_or_unknown_field_in_json_raises():
    with pytest.raises(TypeError, match="hidden_dim"):
        ViTConfig.from_json("{}")
    with pytest.raises(TypeError, match="width"):
        ViTConfig.from_config({**CONFIG.get_config(), "width": 3})


POSITIVE = [
    ({name: value}, f"{name} must be a positive int. Received: {name}={value!r}")
    for name in ("num_channels", "hidden_dim", "num_layers", "num_heads", "mlp_dim", "pre_logits_dim")
    for value in (0, -1, 1.5, "2", True)
]
COUNTS = [
    ({name: value}, f"{name} must be an int of at least 0. Received: {name}={value!r}")
    for name in ("num_classes", "num_registers")
    for value in (-1, 1.0, False)
]
RATES = [
    ({name: value}, rf"{name} must be a rate in \[0, 1\). Received: {name}={value!r}")
    for name in ("dropout_rate", "attention_dropout_rate", "drop_path_rate")
    for value in (1, -0.1, "0.1", True)
]
FLAGS = [
    ({field.name: value}, f"{field.name} must be True or False. Received: {field.name}={value!r}")
    for field in dataclasses.fields(ViTConfig)
    if field.type is bool
    for value in (1, "yes", None)
]
CHOICES = [
    ({"pooling": "gab"}, "pooling must be one of.*Did you mean 'gap'"),
    ({"activation": "gelu_tan"}, "activation must be one of.*Did you mean 'gelu_tanh'"),
    ({"pre_logits_activation": "tan"}, "pre_logits_activation must be one of.*Did you mean 'tanh'"),
    ({"classifier_activation": "softmx"}, "classifier_activation must be one of.*Did you mean 'softmax'"),
    ({"norm_placement": "past"}, "norm_placement must be one of.*Did you mean 'post'"),
    ({"position_embedding": "sincos"}, "position_embedding must be one of.*Did you mean 'sincos2d'"),
    ({"position_resize": "bilinear"}, "position_resize must be one of.*Did you mean 'bilinear_corners'"),
    ({"drop_path_schedule": "const"}, "drop_path_schedule must be one of.*Did you mean 'constant'"),
]
SIZES = [
    ({"image_size": 0}, "image_size must be a positive int or a pair"),
    ({"patch_size": (8, 8, 3)}, "patch_size must be a positive int or a pair"),
    (
        {"image_size": (225, 224), "patch_size": 16},
        r"image_size must be a multiple of patch_size. Received: image_size=\(225, 224\), patch_size=\(16, 16\)",
    ),
    ({"num_heads": 3}, "hidden_dim must be a multiple of num_heads. Received: hidden_dim=16, num_heads=3"),
]
TOGETHER = [
    ({"class_token": False}, "pooling='token' needs class_token=True"),
    (
        {"hidden_dim": 18, "position_embedding": "sincos2d"},
        "needs a hidden_dim that is a multiple of 4. Received: hidden_dim=18",
    ),
    ({"pool_before_norm": True, "norm_placement": "post"}, "pool_before_norm needs norm_placement='pre'"),
    *[({"layer_norm_epsilon": v}, r"layer_norm_epsilon must be in \(0, 1\)") for v in (0, 1, -1e-6, "1e-6", True)],
    *[({"layer_scale_init": v}, "layer_scale_init must be a number or None") for v in ("1e-5", True)],
]


@pytest.mark.parametrize(
    ("fields", "rule"), POSITIVE + COUNTS + RATES + FLAGS + CHOICES + SIZES + TOGETHER, ids=lambda v: str(v)[:40]
)
def test_rule(fields, rule):
    with pytest.raises(ValueError, match=rule):
        CONFIG.replace(**fields)


def test_sizes_become_pairs():
    config = ViTConfig(image_size=32, patch_size=[8, 16], hidden_dim=8, num_layers=1, num_heads=1, mlp_dim=8)
    assert (config.image_size, config.patch_size, config.grid_size) == ((32, 32), (8, 16), (4, 2))


def test_prefix_counts_class_distillation_and_registers():
    assert CONFIG.num_prefix_tokens == 1
    assert CONFIG.replace(distillation_token=True, num_registers=4).num_prefix_tokens == 6


@pytest.mark.parametrize(
    ("fields", "rates"),
    [
        ({"num_layers": 4}, [0, 0.1, 0.2, 0.3]),
        ({"num_layers": 1}, [0.3]),
        ({"num_layers": 3, "drop_path_schedule": "constant"}, [0.3, 0.3, 0.3]),
    ],
)
def test_drop_path_rates(fields, rates):
    assert CONFIG.replace(drop_path_rate=0.3, **fields).drop_path_rates() == pytest.approx(rates)


@pytest.mark.parametrize(
    ("word", "value", "advice"),
    [
        ("img_size", 32, "image_size=32"),
        ("in_chans", 1, "num_channels=1"),
        ("classes", 10, "num_classes=10"),
        ("input_shape", (32, 24, 1), r"image_size=\(32, 24\), num_channels=1"),
        ("include_top", False, "num_classes=0"),
        ("drop_path", 0.1, "'drop_path_rate'"),
        ("Image_Size", 32, "'image_size'"),
    ],
)
def test_words_of_other_libraries_name_the_field(word, value, advice):
    for make in (lambda **fields: vit_config("tiny", **fields), lambda **fields: swin_config("tiny", **fields)):
        with pytest.raises(TypeError, match=rf"{advice}.*Received: {word}="):
            make(**{word: value})


@pytest.mark.parametrize(
    ("word", "advice"), [("mlp_ratio", "mlp_dim="), ("pretrained", "weights="), ("fc_norm", "norm=")]
)
def test_words_that_mean_something_else_say_what_to_do(word, advice):
    with pytest.raises(ValueError, match=f"{advice}.*Received: {word}=4"):
        vit_config("tiny", **{word: 4})


def test_configs_are_copied_and_pickled():
    config = vit_config("tiny", image_size=32)
    assert copy.deepcopy(config) == pickle.loads(pickle.dumps(config)) == config
