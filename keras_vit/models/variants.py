"""The published sizes of Vision Transformers.

Ti, S, B, L, H: Steiner et al., "How to train your ViT?" (arXiv:2106.10270), table 2, and Dosovitskiy et al.
(arXiv:2010.11929), table 1. M: Touvron et al., "DeiT III" (arXiv:2204.07118), and timm. So400m: Alabdulmohsin et al.
(arXiv:2305.13035), shape-optimized, as in big_vision `models/vit.py` `decode_variant`. g: Zhai et al., "Scaling Vision
Transformers" (arXiv:2106.04560), table 2; DINOv2's (arXiv:2304.07193, appendix) and SigLIP 2's (arXiv:2502.14786) are
others. bigG: OpenCLIP's `ViT-bigG-14`.
"""

from keras_vit.models.config import ViTConfig
from keras_vit.models.hybrid import HybridConfig
from keras_vit.models.swin import SwinConfig

# name: (hidden_dim, num_layers, num_heads, mlp_dim)
SIZES = {
    "tiny": (192, 12, 3, 768),
    "small": (384, 12, 6, 1536),
    "medium": (512, 12, 8, 2048),
    "base": (768, 12, 12, 3072),
    "large": (1024, 24, 16, 4096),
    "huge": (1280, 32, 16, 5120),
    "so400m": (1152, 27, 16, 4304),
    "giant": (1408, 40, 16, 6144),
    "giant_dinov2": (1536, 40, 24, 4096),
    "giantopt": (1536, 40, 16, 6144),
    "gigantic": (1664, 48, 16, 8192),
}


def vit_config(size, **fields):
    """The config of a published size.

    Args:
        size: a key of `SIZES`.
        **fields: fields of `ViTConfig`.

    Returns:
        A `ViTConfig`.
    """
    hidden_dim, num_layers, num_heads, mlp_dim = SIZES[size]
    shape = {"hidden_dim": hidden_dim, "num_layers": num_layers, "num_heads": num_heads, "mlp_dim": mlp_dim}
    return ViTConfig(**{**shape, **fields})


# size, patch_size, image sizes
_DEIT = (("tiny", 16, (224,)), ("small", 16, (224,)), ("base", 16, (224, 384)))
_DEIT_3 = (
    ("small", 16, (224, 384)),
    ("medium", 16, (224,)),
    ("base", 16, (224, 384)),
    ("large", 16, (224, 384)),
    ("huge", 14, (224,)),
)


def _deit_variants():
    """Every published model under timm's name."""
    for middle, distilled in (("", False), ("_distilled", True)):
        for size, patch, image_sizes in _DEIT:
            for image_size in image_sizes:
                config = vit_config(size, image_size=image_size, patch_size=patch, distillation_token=distilled)
                yield f"deit_{size}{middle}_patch{patch}_{image_size}", config
    for size, patch, image_sizes in _DEIT_3:
        for image_size in image_sizes:
            config = vit_config(
                size, image_size=image_size, patch_size=patch, layer_scale_init=1e-6, position_on_prefix=False
            )
            yield f"deit3_{size}_patch{patch}_{image_size}", config


DEIT_VARIANTS = dict(_deit_variants())


_DINOV2 = {"small": "small", "base": "base", "large": "large", "giant": "giant_dinov2"}
# size, patch_size, image sizes, activation
_SIGLIP = (
    ("base", 16, (224, 256, 384, 512), "gelu"),
    ("base", 32, (256,), "gelu_tanh"),
    ("large", 16, (256, 384), "gelu"),
    ("large", 16, (512,), "gelu_tanh"),
    ("so400m", 14, (224, 378, 384), "gelu"),
    ("so400m", 16, (256, 384, 512), "gelu_tanh"),
    ("giantopt", 16, (256, 384), "gelu_tanh"),
)
# size, patch_size, image sizes, image sizes with QuickGELU
_CLIP = (
    ("base", 32, (224, 256, 384, 448), (224,)),
    ("base", 16, (224, 384), (224,)),
    ("large", 14, (224, 336), (224, 336)),
    ("huge", 14, (224, 336), (224,)),
    ("giant", 14, (224,), ()),
    ("gigantic", 14, (224,), ()),
)


def _dinov2():
    """Without classifier, at the 518 pixels of their positions. Register models fold the class position into it."""
    for name, size in _DINOV2.items():
        activation = "swiglu" if size == "giant_dinov2" else "gelu"
        for middle, registers in (("", 0), ("_reg4", 4)):
            yield (
                f"vit_{name}_patch14{middle}_dinov2",
                vit_config(
                    size,
                    image_size=518,
                    patch_size=14,
                    num_classes=0,
                    num_registers=registers,
                    position_on_prefix=not registers,
                    layer_scale_init=1e-5,
                    activation=activation,
                ),
            )


def _siglip():
    """Attention pooling of patch tokens alone, no classifier."""
    for size, patch, image_sizes, activation in _SIGLIP:
        for image_size in image_sizes:
            yield (
                f"vit_{size}_patch{patch}_siglip_{image_size}",
                vit_config(
                    size,
                    image_size=image_size,
                    patch_size=patch,
                    drop_remainder=image_size % patch > 0,
                    num_classes=0,
                    class_token=False,
                    position_on_prefix=False,
                    pooling="map",
                    activation=activation,
                ),
            )


def _clip():
    """A norm behind the positions, patches without bias; the head is a classifier or the projection to the texts."""
    for size, patch, *image_sizes in _CLIP:
        for middle, activation, sides in zip(("", "_quickgelu"), ("gelu", "quick_gelu"), image_sizes, strict=True):
            for image_size in sides:
                yield (
                    f"vit_{size}_patch{patch}_clip{middle}_{image_size}",
                    vit_config(
                        size,
                        image_size=image_size,
                        patch_size=patch,
                        patch_bias=False,
                        embedding_norm=True,
                        layer_norm_epsilon=1e-5,
                        activation=activation,
                    ),
                )


TOWER_VARIANTS = {**dict(_dinov2()), **dict(_siglip()), **dict(_clip())}


# size, the rest of timm's name, stem_depths, patch_size, image sizes
_PUBLISHED_HYBRIDS = (
    ("tiny", "r_s16_p8", (), 8, (224, 384)),
    ("small", "r26_s32", (2, 2, 2, 2), 1, (224, 384)),
    ("base", "r26_s32", (2, 2, 2, 2), 1, (224,)),
    ("base", "r50_s16", (3, 4, 9), 1, (224, 384)),
    ("large", "r50_s32", (3, 4, 6, 3), 1, (224, 384)),
)


def _hybrid_variants():
    """Every published hybrid under timm's name."""
    for size, rest, stem_depths, patch_size, image_sizes in _PUBLISHED_HYBRIDS:
        shape = dict(zip(("hidden_dim", "num_layers", "num_heads", "mlp_dim"), SIZES[size], strict=True))
        for image_size in image_sizes:
            config = HybridConfig(image_size=image_size, patch_size=patch_size, stem_depths=stem_depths, **shape)
            yield f"vit_{size}_{rest}_{image_size}", config


HYBRID_VARIANTS = dict(_hybrid_variants())


# name: (embed_dim, depths, num_heads)
SWIN_SIZES = {
    "tiny": (96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "small": (96, (2, 2, 18, 2), (3, 6, 12, 24)),
    "base": (128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "large": (192, (2, 2, 18, 2), (6, 12, 24, 48)),
}
# sizes, name of the rest, version, image_size, window_size, pretrained_window_sizes
_PUBLISHED_SWINS = (
    (("tiny", "small", "base", "large"), "patch4_window7_224", 1, 224, 7, None),
    (("base", "large"), "patch4_window12_384", 1, 384, 12, None),
    (("tiny", "small", "base"), "window8_256", 2, 256, 8, None),
    (("tiny", "small", "base"), "window16_256", 2, 256, 16, None),
    (("base", "large"), "window12_192", 2, 192, 12, None),
    (("base", "large"), "window12to16_192to256", 2, 256, 16, (12, 12, 12, 6)),
    (("base", "large"), "window12to24_192to384", 2, 384, 24, (12, 12, 12, 6)),
)


def swin_config(size, **fields):
    """The config of a published size.

    Args:
        size: a key of `SWIN_SIZES`.
        **fields: fields of `SwinConfig`.

    Returns:
        A `SwinConfig`.
    """
    embed_dim, depths, num_heads = SWIN_SIZES[size]
    return SwinConfig(**{"embed_dim": embed_dim, "depths": depths, "num_heads": num_heads, **fields})


def _swin_variants():
    """Every published model under timm's name."""
    for sizes, rest, version, image_size, window_size, pretrained in _PUBLISHED_SWINS:
        fields = {"version": version, "image_size": image_size, "window_size": window_size}
        for size in sizes:
            name = f"swin{'' if version == 1 else 'v2'}_{size}_{rest}"
            yield name, swin_config(size, pretrained_window_sizes=pretrained, **fields)


SWIN_VARIANTS = dict(_swin_variants())


_SIZES = ("tiny", "small", "base", "large", "huge", "so400m", "giant")
_PATCH_SIZES = (8, 14, 16, 32)
# Those that were fine-tuned at a higher resolution: arXiv:2010.11929, arXiv:2106.10270.
_AT_384 = (("tiny", 16), ("small", 16), ("small", 32), ("base", 16), ("base", 32), ("large", 16), ("large", 32))


def _vit_variants():
    """Every size with every patch size at 224 pixels, and the published ones at 384."""
    for size in _SIZES:
        for patch in _PATCH_SIZES:
            yield f"vit_{size}_patch{patch}_224", vit_config(size, image_size=224, patch_size=patch)
    for size, patch in _AT_384:
        yield f"vit_{size}_patch{patch}_384", vit_config(size, image_size=384, patch_size=patch)


VARIANTS = {**dict(_vit_variants()), **HYBRID_VARIANTS, **DEIT_VARIANTS, **TOWER_VARIANTS, **SWIN_VARIANTS}


def find_variant(architecture):
    """The config of a model of timm's by its name, with or without a tag and what stands in front; else `None`."""
    name = architecture.rpartition("/")[2].partition(".")[0]
    # The names with `_gap` differ in their pooling alone, which is an argument.
    return VARIANTS.get(name.replace("_siglip_gap_", "_siglip_"))
