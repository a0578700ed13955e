"""The variants' sizes, told by their number of parameters."""

import pytest
from parameter_counts import GOLDEN, count, count_swin

from keras_vit import create_model
from keras_vit.models import (
    VARIANTS,
    HybridConfig,
    SwinConfig,
    build_model,
    build_swin,
    build_vit,
    swin_config,
    vit_config,
)


def test_the_official_register_model_has_a_position_of_its_class_token():
    """384 numbers more than in timm's layout, which folds them into the token."""
    config = VARIANTS["vit_small_patch14_reg4_dinov2"].replace(position_on_prefix=True)
    assert build_vit(config).count_params() == 22_057_728


def test_every_variant_has_a_golden_count():
    assert set(GOLDEN) == set(VARIANTS)


@pytest.mark.parametrize("name", VARIANTS)
def test_count_by_hand(name):
    by_hand = count_swin if isinstance(VARIANTS[name], SwinConfig) else count
    assert by_hand(VARIANTS[name]) == GOLDEN[name]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"num_classes": 0},
        {"distillation_token": True, "num_registers": 3, "position_on_prefix": False},
        {"pooling": "map", "class_token": False, "activation": "swiglu"},
        {"pooling": "gap", "position_embedding": "sincos2d", "pre_logits_dim": 10, "pool_before_norm": True},
        {"pooling": "token_gap"},
        {"qk_norm": True, "layer_scale_init": 0.1, "embedding_norm": True},
        {"norm_placement": "post", "num_channels": 5, "patch_size": (4, 8)},
        {"qkv_bias": False, "patch_bias": False, "head_bias": False, "drop_remainder": True, "image_size": (20, 31)},
    ],
)
def test_count_by_hand_is_that_of_the_model(fields):
    config = vit_config("tiny", image_size=(16, 24), patch_size=8, num_layers=2, hidden_dim=24, mlp_dim=40)
    config = config.replace(**fields)
    assert build_vit(config).count_params() == count(config)


@pytest.mark.parametrize("fields", [{}, {"stem_depths": (), "patch_size": (4, 2), "num_channels": 1}])
def test_count_by_hand_is_that_of_the_hybrid_model(fields):
    config = HybridConfig(
        image_size=(32, 48), stem_depths=(1, 2), stem_width=32, hidden_dim=24, num_layers=1, num_heads=3, mlp_dim=40
    )
    config = config.replace(**fields)
    assert build_model(config).count_params() == count(config)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"num_classes": 0, "image_size": (20, 36)},
        {"version": 2, "qkv_bias": False, "num_channels": 1},
        {"version": 2, "pretrained_window_sizes": (3, 3), "mlp_ratio": 1.5},
        {"qkv_bias": False, "window_size": (2, 4)},
    ],
)
def test_count_by_hand_is_that_of_the_swin_model(fields):
    config = swin_config("tiny", image_size=32, embed_dim=8, depths=(2, 1), num_heads=(2, 4), window_size=4)
    config = config.replace(**fields)
    assert build_swin(config).count_params() == count_swin(config)


@pytest.mark.parametrize(
    "name",
    [
        "vit_tiny_patch16_224",
        "vit_small_patch16_224",
        "vit_base_patch16_224",
        "vit_tiny_r_s16_p8_224",
        "vit_small_r26_s32_384",
        pytest.param("vit_base_r50_s16_224", marks=pytest.mark.long),
        "swin_tiny_patch4_window7_224",
        "swinv2_tiny_window8_256",
        pytest.param("swin_base_patch4_window12_384", marks=pytest.mark.long),
        pytest.param("swinv2_large_window12to16_192to256", marks=pytest.mark.long),
        pytest.param("vit_large_patch16_224", marks=pytest.mark.long),
        pytest.param("vit_huge_patch14_224", marks=pytest.mark.long),
    ],
)
def test_count_of_the_built_model(name):
    assert create_model(name).count_params() == GOLDEN[name]
