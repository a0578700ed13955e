"""Every layer through `check_layer`, with non-default arguments."""

import inspect

import pytest
from check_layer import check_layer

from keras_vit import layers
from keras_vit.calibration import Calibration
from keras_vit.metadata import Metadata
from keras_vit.models import ViTConfig
from keras_vit.preprocessing import InputSpec

TOKENS = (6, 16)
RATES = {"dropout_rate": 0.2, "attention_dropout_rate": 0.3}
# The norm's offset adds the same number to a whole row of logits, which the softmax takes out again.
NO_KEY_OFFSET = ("key_norm/beta",)
WINDOW = {"window_size": (2, 3), **RATES}
COSINE = {"version": 2, "pretrained_window_size": (3, 2)}


def _metadata(**kwargs):
    config = ViTConfig(image_size=8, patch_size=4, hidden_dim=8, num_layers=1, num_heads=2, mlp_dim=8, num_classes=2)
    spec = InputSpec((8, 8), 0.9, "bilinear", (0.4, 0.5, 0.6), (0.2, 0.2, 0.2))
    calibration = Calibration(2.0, "softmax", 2)
    return Metadata(
        config, spec, labels=("cat", "dog"), origin="a test", license="MIT", calibration=calibration, **kwargs
    )


def _encoder(**kwargs):
    arguments = {
        "num_heads": 4,
        "mlp_dim": 24,
        "activation": "gelu_tanh",
        "drop_path_rate": 0.1,
        "layer_scale_init": 0.5,
        "qk_norm": True,
        "layer_norm_epsilon": 1e-5,
        **RATES,
    }
    return layers.TransformerEncoder(**{**arguments, **kwargs})


def _patch_encoder(**kwargs):
    arguments = {
        "class_token": True,
        "distillation_token": True,
        "num_registers": 2,
        "position_on_prefix": False,
        "position_resize": "bicubic",
        "dropout_rate": 0.2,
    }
    return layers.PatchEncoder(16, (2, 3), **{**arguments, **kwargs})


def _swin_block(**kwargs):
    arguments = {
        "shift": (1, 2),
        "activation": "gelu_tanh",
        "drop_path_rate": 0.1,
        "layer_norm_epsilon": 1e-4,
        **WINDOW,
    }
    return layers.SwinBlock(4, 24, (3, 5), **{**arguments, **kwargs})


# name: (make, input shape without batch, number of weights, endings of weights without a gradient)
CASES = {
    "Patches": (lambda **k: layers.Patches((2, 4), drop_remainder=True, **k), (5, 12, 3), 0, ()),
    "Patches_grid": (lambda **k: layers.Patches((2, 4), keep_grid=True, **k), (4, 12, 3), 0, ()),
    "PatchEncoder": (_patch_encoder, (6, 12), 6, ()),
    "PatchEncoder_dynamic": (lambda **k: _patch_encoder(dynamic_grid_size=True, **k), (3, 2, 12), 6, ()),
    "PatchEncoder_sincos2d_no_class": (
        lambda **k: _patch_encoder(class_token=False, position_embedding="sincos2d", patch_bias=False, **k),
        (6, 12),
        3,
        (),
    ),
    "MultiHeadSelfAttention": (
        lambda **k: layers.MultiHeadSelfAttention(4, qk_norm=True, layer_norm_epsilon=1e-5, **RATES, **k),
        TOKENS,
        8,
        NO_KEY_OFFSET,
    ),
    "MultiHeadSelfAttention_no_bias": (
        lambda **k: layers.MultiHeadSelfAttention(4, qkv_bias=False, **RATES, **k),
        TOKENS,
        3,
        (),
    ),
    "MLP": (lambda **k: layers.MLP(24, "quick_gelu", 0.2, **k), TOKENS, 4, ()),
    "MLP_swiglu": (lambda **k: layers.MLP(24, "swiglu", 0.2, **k), TOKENS, 4, ()),
    "TransformerEncoder": (_encoder, TOKENS, 18, NO_KEY_OFFSET),
    "TransformerEncoder_post": (
        lambda **k: _encoder(norm_placement="post", qk_norm=False, qkv_bias=False, layer_scale_init=None, **k),
        TOKENS,
        11,
        (),
    ),
    "WindowAttention": (lambda **k: layers.WindowAttention(4, qkv_bias=False, **WINDOW, **k), TOKENS, 4, ()),
    "WindowAttention_2": (lambda **k: layers.WindowAttention(4, **COSINE, **WINDOW, **k), TOKENS, 9, ()),
    "SwinBlock": (lambda **k: _swin_block(pad_first=True, masked=-50.0, **k), (15, 16), 13, ()),
    "SwinBlock_2": (lambda **k: _swin_block(qkv_bias=False, **COSINE, **k), (15, 16), 15, ()),
    "PatchEmbedding": (
        lambda **k: layers.PatchEmbedding(16, dropout_rate=0.2, layer_norm_epsilon=1e-4, **k),
        (6, 12),
        4,
        (),
    ),
    "PatchMerging": (lambda **k: layers.PatchMerging((3, 5), layer_norm_epsilon=1e-4, **k), (15, 8), 3, ()),
    "PatchMerging_2": (lambda **k: layers.PatchMerging((3, 5), version=2, **k), (15, 8), 3, ()),
    "AttentionPooling": (
        lambda **k: layers.AttentionPooling(4, 24, "gelu_tanh", layer_norm_epsilon=1e-5, num_prefix_tokens=2, **k),
        TOKENS,
        13,
        (),
    ),
    "LayerNormalization": (lambda **k: layers.LayerNormalization(epsilon=1e-3, **k), TOKENS, 2, ()),
    "LayerScale": (lambda **k: layers.LayerScale(0.3, **k), TOKENS, 1, ()),
    "Dropout": (lambda **k: layers.Dropout(0.4, noise_shape=(None, 1, 16), seed=7, **k), TOKENS, 0, ()),
    "TokenMap": (lambda **k: layers.TokenMap((1, 5), 1, **k), TOKENS, 0, ()),
    "TokenPooling_token": (lambda **k: layers.TokenPooling("token", index=2, **k), TOKENS, 0, ()),
    "TokenPooling_gap": (lambda **k: layers.TokenPooling("gap", num_prefix_tokens=2, **k), TOKENS, 0, ()),
    "TokenPooling_both": (lambda **k: layers.TokenPooling("token_gap", num_prefix_tokens=1, **k), TOKENS, 0, ()),
    "StandardizedConv2D": (lambda **k: layers.StandardizedConv2D(4, (3, 2), 2, "google", **k), (6, 5, 3), 1, ()),
    "GroupNormalization": (lambda **k: layers.GroupNormalization(4, 1e-3, **k), (3, 5, 8), 2, ()),
    "ResNetRoot": (lambda **k: layers.ResNetRoot(32, "google", **k), (14, 9, 3), 3, ()),
    "Bottleneck": (lambda **k: layers.Bottleneck(32, 2, "google", **k), (6, 5, 8), 12, ()),
    "ResNetStage": (lambda **k: layers.ResNetStage(32, 2, 2, "google", **k), (6, 5, 8), 21, ()),
    "Metadata": (_metadata, (8, 8, 3), 0, ()),
}


@pytest.mark.parametrize("name", CASES)
def test_layer(name, tmp_path):
    make, input_shape, expected_weights, zero_gradients = CASES[name]
    check_layer(make, input_shape, expected_weights, tmp_path, zero_gradients)


@pytest.mark.parametrize("name", layers.__all__)
def test_every_layer_is_checked_with_every_argument(name):
    made = [make() for make, *_ in CASES.values()]
    mine = [layer for layer in made if type(layer) is getattr(layers, name)]
    assert mine, f"{name} needs a case in CASES"
    for argument in inspect.signature(getattr(layers, name)).parameters.values():
        if argument.default is not argument.empty:
            values = [layer.get_config()[argument.name] for layer in mine]
            assert any(v != argument.default for v in values), f"no case of {name} changes {argument.name}"
