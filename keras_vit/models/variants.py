"""The published sizes and models of every family: one row each.

A model has timm's name. The sources of the sizes stand beside them, those of the models above each table.
"""

from keras_vit.models.config import ViTConfig
from keras_vit.models.hybrid import HybridConfig
from keras_vit.models.swin import SwinConfig

# name: (hidden_dim, num_layers, num_heads, mlp_dim)
SIZES = {
    "tiny": (192, 12, 3, 768),  # Steiner et al., arXiv:2106.10270, table 2
    "small": (384, 12, 6, 1536),  # the same
    "medium": (512, 12, 8, 2048),  # Touvron et al., "DeiT III", arXiv:2204.07118; timm
    "base": (768, 12, 12, 3072),  # Dosovitskiy et al., arXiv:2010.11929, table 1
    "large": (1024, 24, 16, 4096),  # the same
    "huge": (1280, 32, 16, 5120),  # the same
    "so400m": (1152, 27, 16, 4304),  # Alabdulmohsin et al., arXiv:2305.13035; big_vision `models/vit.py`
    "giant": (1408, 40, 16, 6144),  # Zhai et al., arXiv:2106.04560, table 2
    "giant_dinov2": (1536, 40, 24, 4096),  # Oquab et al., "DINOv2", arXiv:2304.07193, appendix
    "giantopt": (1536, 40, 16, 6144),  # Tschannen et al., "SigLIP 2", arXiv:2502.14786
    "gigantic": (1664, 48, 16, 8192),  # OpenCLIP `ViT-bigG-14`
}

# name: (embed_dim, depths, num_heads)
SWIN_SIZES = {
    # Liu et al., arXiv:2103.14030, section 3.3
    "tiny": (96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "small": (96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "base": (128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "large": (192, (2, 2, 18, 2), (6, 12, 24, 48)),
}


def _shape(size):
    return dict(zip(("hidden_dim", "num_layers", "num_heads", "mlp_dim"), SIZES[size], strict=True))


def vit_config(size, **fields):
    """Returns the config of a published size.

    Args:
        size: a key of `SIZES`.
        **fields: fields of `ViTConfig`.

    Returns:
        A `ViTConfig`.
    """
    return ViTConfig(**{**_shape(size), **fields})


def swin_config(size, **fields):
    """Returns the config of a published size.

    Args:
        size: a key of `SWIN_SIZES`.
        **fields: fields of `SwinConfig`.

    Returns:
        A `SwinConfig`.
    """
    embed_dim, depths, num_heads = SWIN_SIZES[size]
    return SwinConfig(**{"embed_dim": embed_dim, "depths": depths, "num_heads": num_heads, **fields})


def _hybrid_config(size, **fields):
    return HybridConfig(**_shape(size), **fields)


def _deit3_config(size, **fields):
    """With LayerScale, and without a position of the class token."""
    return vit_config(size, layer_scale_init=1e-6, position_on_prefix=False, **fields)


def _dinov2_config(size, num_registers, activation="gelu"):
    """Without a classifier, at the 518 pixels of the positions. With registers the class token has no position."""
    return vit_config(
        size,
        image_size=518,
        patch_size=14,
        num_classes=0,
        num_registers=num_registers,
        position_on_prefix=not num_registers,
        layer_scale_init=1e-5,
        activation=activation,
    )


def _siglip_config(size, patch_size, image_size, activation):
    """Without a class token and a classifier: attention pooling of the patch tokens."""
    return vit_config(
        size,
        image_size=image_size,
        patch_size=patch_size,
        drop_remainder=image_size % patch_size > 0,
        num_classes=0,
        class_token=False,
        position_on_prefix=False,
        pooling="map",
        activation=activation,
    )


def _clip_config(size, **fields):
    """With a norm after the positions; the head is a classifier or the projection to the space of the texts."""
    return vit_config(size, patch_bias=False, embedding_norm=True, layer_norm_epsilon=1e-5, **fields)


# Steiner et al., arXiv:2106.10270; Dosovitskiy et al., arXiv:2010.11929: pretrained at 224 pixels, fine-tuned at 384.
# Sizes without a published model are those of the papers above, with every patch size.
_VIT = {
    "vit_tiny_patch8_224": vit_config("tiny", patch_size=8, image_size=224),
    "vit_tiny_patch14_224": vit_config("tiny", patch_size=14, image_size=224),
    "vit_tiny_patch16_224": vit_config("tiny", patch_size=16, image_size=224),
    "vit_tiny_patch32_224": vit_config("tiny", patch_size=32, image_size=224),
    "vit_small_patch8_224": vit_config("small", patch_size=8, image_size=224),
    "vit_small_patch14_224": vit_config("small", patch_size=14, image_size=224),
    "vit_small_patch16_224": vit_config("small", patch_size=16, image_size=224),
    "vit_small_patch32_224": vit_config("small", patch_size=32, image_size=224),
    "vit_base_patch8_224": vit_config("base", patch_size=8, image_size=224),
    "vit_base_patch14_224": vit_config("base", patch_size=14, image_size=224),
    "vit_base_patch16_224": vit_config("base", patch_size=16, image_size=224),
    "vit_base_patch32_224": vit_config("base", patch_size=32, image_size=224),
    "vit_large_patch8_224": vit_config("large", patch_size=8, image_size=224),
    "vit_large_patch14_224": vit_config("large", patch_size=14, image_size=224),
    "vit_large_patch16_224": vit_config("large", patch_size=16, image_size=224),
    "vit_large_patch32_224": vit_config("large", patch_size=32, image_size=224),
    "vit_huge_patch8_224": vit_config("huge", patch_size=8, image_size=224),
    "vit_huge_patch14_224": vit_config("huge", patch_size=14, image_size=224),
    "vit_huge_patch16_224": vit_config("huge", patch_size=16, image_size=224),
    "vit_huge_patch32_224": vit_config("huge", patch_size=32, image_size=224),
    "vit_so400m_patch8_224": vit_config("so400m", patch_size=8, image_size=224),
    "vit_so400m_patch14_224": vit_config("so400m", patch_size=14, image_size=224),
    "vit_so400m_patch16_224": vit_config("so400m", patch_size=16, image_size=224),
    "vit_so400m_patch32_224": vit_config("so400m", patch_size=32, image_size=224),
    "vit_giant_patch8_224": vit_config("giant", patch_size=8, image_size=224),
    "vit_giant_patch14_224": vit_config("giant", patch_size=14, image_size=224),
    "vit_giant_patch16_224": vit_config("giant", patch_size=16, image_size=224),
    "vit_giant_patch32_224": vit_config("giant", patch_size=32, image_size=224),
    "vit_tiny_patch16_384": vit_config("tiny", patch_size=16, image_size=384),
    "vit_small_patch16_384": vit_config("small", patch_size=16, image_size=384),
    "vit_small_patch32_384": vit_config("small", patch_size=32, image_size=384),
    "vit_base_patch16_384": vit_config("base", patch_size=16, image_size=384),
    "vit_base_patch32_384": vit_config("base", patch_size=32, image_size=384),
    "vit_large_patch16_384": vit_config("large", patch_size=16, image_size=384),
    "vit_large_patch32_384": vit_config("large", patch_size=32, image_size=384),
}

# Steiner et al., arXiv:2106.10270, table 2; Dosovitskiy et al., arXiv:2010.11929, section 3.1.
_HYBRIDS = {
    "vit_tiny_r_s16_p8_224": _hybrid_config("tiny", stem_depths=(), patch_size=8, image_size=224),
    "vit_tiny_r_s16_p8_384": _hybrid_config("tiny", stem_depths=(), patch_size=8, image_size=384),
    "vit_small_r26_s32_224": _hybrid_config("small", stem_depths=(2, 2, 2, 2), patch_size=1, image_size=224),
    "vit_small_r26_s32_384": _hybrid_config("small", stem_depths=(2, 2, 2, 2), patch_size=1, image_size=384),
    "vit_base_r26_s32_224": _hybrid_config("base", stem_depths=(2, 2, 2, 2), patch_size=1, image_size=224),
    "vit_base_r50_s16_224": _hybrid_config("base", stem_depths=(3, 4, 9), patch_size=1, image_size=224),
    "vit_base_r50_s16_384": _hybrid_config("base", stem_depths=(3, 4, 9), patch_size=1, image_size=384),
    "vit_large_r50_s32_224": _hybrid_config("large", stem_depths=(3, 4, 6, 3), patch_size=1, image_size=224),
    "vit_large_r50_s32_384": _hybrid_config("large", stem_depths=(3, 4, 6, 3), patch_size=1, image_size=384),
}

# Touvron et al., "Training data-efficient image transformers", arXiv:2012.12877, table 1.
_DEIT = {
    "deit_tiny_patch16_224": vit_config("tiny", patch_size=16, image_size=224),
    "deit_small_patch16_224": vit_config("small", patch_size=16, image_size=224),
    "deit_base_patch16_224": vit_config("base", patch_size=16, image_size=224),
    "deit_base_patch16_384": vit_config("base", patch_size=16, image_size=384),
    "deit_tiny_distilled_patch16_224": vit_config("tiny", patch_size=16, image_size=224, distillation_token=True),
    "deit_small_distilled_patch16_224": vit_config("small", patch_size=16, image_size=224, distillation_token=True),
    "deit_base_distilled_patch16_224": vit_config("base", patch_size=16, image_size=224, distillation_token=True),
    "deit_base_distilled_patch16_384": vit_config("base", patch_size=16, image_size=384, distillation_token=True),
}

# Touvron et al., "DeiT III", arXiv:2204.07118.
_DEIT3 = {
    "deit3_small_patch16_224": _deit3_config("small", patch_size=16, image_size=224),
    "deit3_small_patch16_384": _deit3_config("small", patch_size=16, image_size=384),
    "deit3_medium_patch16_224": _deit3_config("medium", patch_size=16, image_size=224),
    "deit3_base_patch16_224": _deit3_config("base", patch_size=16, image_size=224),
    "deit3_base_patch16_384": _deit3_config("base", patch_size=16, image_size=384),
    "deit3_large_patch16_224": _deit3_config("large", patch_size=16, image_size=224),
    "deit3_large_patch16_384": _deit3_config("large", patch_size=16, image_size=384),
    "deit3_huge_patch14_224": _deit3_config("huge", patch_size=14, image_size=224),
}

# Oquab et al., "DINOv2", arXiv:2304.07193; with registers: Darcet et al., arXiv:2309.16588.
_DINOV2 = {
    "vit_small_patch14_dinov2": _dinov2_config("small", num_registers=0),
    "vit_small_patch14_reg4_dinov2": _dinov2_config("small", num_registers=4),
    "vit_base_patch14_dinov2": _dinov2_config("base", num_registers=0),
    "vit_base_patch14_reg4_dinov2": _dinov2_config("base", num_registers=4),
    "vit_large_patch14_dinov2": _dinov2_config("large", num_registers=0),
    "vit_large_patch14_reg4_dinov2": _dinov2_config("large", num_registers=4),
    "vit_giant_patch14_dinov2": _dinov2_config("giant_dinov2", num_registers=0, activation="swiglu"),
    "vit_giant_patch14_reg4_dinov2": _dinov2_config("giant_dinov2", num_registers=4, activation="swiglu"),
}

# Zhai et al., "SigLIP", arXiv:2303.15343; Tschannen et al., "SigLIP 2", arXiv:2502.14786.
_SIGLIP = {
    "vit_base_patch16_siglip_224": _siglip_config("base", patch_size=16, image_size=224, activation="gelu"),
    "vit_base_patch16_siglip_256": _siglip_config("base", patch_size=16, image_size=256, activation="gelu"),
    "vit_base_patch16_siglip_384": _siglip_config("base", patch_size=16, image_size=384, activation="gelu"),
    "vit_base_patch16_siglip_512": _siglip_config("base", patch_size=16, image_size=512, activation="gelu"),
    "vit_base_patch32_siglip_256": _siglip_config("base", patch_size=32, image_size=256, activation="gelu_tanh"),
    "vit_large_patch16_siglip_256": _siglip_config("large", patch_size=16, image_size=256, activation="gelu"),
    "vit_large_patch16_siglip_384": _siglip_config("large", patch_size=16, image_size=384, activation="gelu"),
    "vit_large_patch16_siglip_512": _siglip_config("large", patch_size=16, image_size=512, activation="gelu_tanh"),
    "vit_so400m_patch14_siglip_224": _siglip_config("so400m", patch_size=14, image_size=224, activation="gelu"),
    "vit_so400m_patch14_siglip_378": _siglip_config("so400m", patch_size=14, image_size=378, activation="gelu"),
    "vit_so400m_patch14_siglip_384": _siglip_config("so400m", patch_size=14, image_size=384, activation="gelu"),
    "vit_so400m_patch16_siglip_256": _siglip_config("so400m", patch_size=16, image_size=256, activation="gelu_tanh"),
    "vit_so400m_patch16_siglip_384": _siglip_config("so400m", patch_size=16, image_size=384, activation="gelu_tanh"),
    "vit_so400m_patch16_siglip_512": _siglip_config("so400m", patch_size=16, image_size=512, activation="gelu_tanh"),
    "vit_giantopt_patch16_siglip_256": _siglip_config(
        "giantopt", patch_size=16, image_size=256, activation="gelu_tanh"
    ),
    "vit_giantopt_patch16_siglip_384": _siglip_config(
        "giantopt", patch_size=16, image_size=384, activation="gelu_tanh"
    ),
}

# Radford et al., "CLIP", arXiv:2103.00020 (QuickGELU); OpenCLIP `model_configs`.
_CLIP = {
    "vit_base_patch32_clip_224": _clip_config("base", patch_size=32, image_size=224),
    "vit_base_patch32_clip_256": _clip_config("base", patch_size=32, image_size=256),
    "vit_base_patch32_clip_384": _clip_config("base", patch_size=32, image_size=384),
    "vit_base_patch32_clip_448": _clip_config("base", patch_size=32, image_size=448),
    "vit_base_patch32_clip_quickgelu_224": _clip_config("base", patch_size=32, image_size=224, activation="quick_gelu"),
    "vit_base_patch16_clip_224": _clip_config("base", patch_size=16, image_size=224),
    "vit_base_patch16_clip_384": _clip_config("base", patch_size=16, image_size=384),
    "vit_base_patch16_clip_quickgelu_224": _clip_config("base", patch_size=16, image_size=224, activation="quick_gelu"),
    "vit_large_patch14_clip_224": _clip_config("large", patch_size=14, image_size=224),
    "vit_large_patch14_clip_336": _clip_config("large", patch_size=14, image_size=336),
    "vit_large_patch14_clip_quickgelu_224": _clip_config(
        "large", patch_size=14, image_size=224, activation="quick_gelu"
    ),
    "vit_large_patch14_clip_quickgelu_336": _clip_config(
        "large", patch_size=14, image_size=336, activation="quick_gelu"
    ),
    "vit_huge_patch14_clip_224": _clip_config("huge", patch_size=14, image_size=224),
    "vit_huge_patch14_clip_336": _clip_config("huge", patch_size=14, image_size=336),
    "vit_huge_patch14_clip_quickgelu_224": _clip_config("huge", patch_size=14, image_size=224, activation="quick_gelu"),
    "vit_giant_patch14_clip_224": _clip_config("giant", patch_size=14, image_size=224),
    "vit_gigantic_patch14_clip_224": _clip_config("gigantic", patch_size=14, image_size=224),
}

# Liu et al., "Swin Transformer", arXiv:2103.14030.
_SWIN = {
    "swin_tiny_patch4_window7_224": swin_config("tiny", image_size=224, window_size=7),
    "swin_small_patch4_window7_224": swin_config("small", image_size=224, window_size=7),
    "swin_base_patch4_window7_224": swin_config("base", image_size=224, window_size=7),
    "swin_large_patch4_window7_224": swin_config("large", image_size=224, window_size=7),
    "swin_base_patch4_window12_384": swin_config("base", image_size=384, window_size=12),
    "swin_large_patch4_window12_384": swin_config("large", image_size=384, window_size=12),
}

# Liu et al., "Swin Transformer V2", arXiv:2111.09883.
_SWIN_V2 = {
    "swinv2_tiny_window8_256": swin_config("tiny", image_size=256, window_size=8, version=2),
    "swinv2_small_window8_256": swin_config("small", image_size=256, window_size=8, version=2),
    "swinv2_base_window8_256": swin_config("base", image_size=256, window_size=8, version=2),
    "swinv2_tiny_window16_256": swin_config("tiny", image_size=256, window_size=16, version=2),
    "swinv2_small_window16_256": swin_config("small", image_size=256, window_size=16, version=2),
    "swinv2_base_window16_256": swin_config("base", image_size=256, window_size=16, version=2),
    "swinv2_base_window12_192": swin_config("base", image_size=192, window_size=12, version=2),
    "swinv2_large_window12_192": swin_config("large", image_size=192, window_size=12, version=2),
    "swinv2_base_window12to16_192to256": swin_config(
        "base", image_size=256, window_size=16, version=2, pretrained_window_sizes=(12, 12, 12, 6)
    ),
    "swinv2_large_window12to16_192to256": swin_config(
        "large", image_size=256, window_size=16, version=2, pretrained_window_sizes=(12, 12, 12, 6)
    ),
    "swinv2_base_window12to24_192to384": swin_config(
        "base", image_size=384, window_size=24, version=2, pretrained_window_sizes=(12, 12, 12, 6)
    ),
    "swinv2_large_window12to24_192to384": swin_config(
        "large", image_size=384, window_size=24, version=2, pretrained_window_sizes=(12, 12, 12, 6)
    ),
}

VARIANTS = {
    **_VIT,
    **_HYBRIDS,
    **_DEIT,
    **_DEIT3,
    **_DINOV2,
    **_SIGLIP,
    **_CLIP,
    **_SWIN,
    **_SWIN_V2,
}


def find_variant(architecture):
    """Finds the config of a timm model by its name, with or without tag and organization; else `None`."""
    name = architecture.rpartition("/")[2].partition(".")[0]
    # Names with `_gap` differ only in the pooling, which is an argument.
    return VARIANTS.get(name.replace("_siglip_gap_", "_siglip_"))
