"""The published sizes of Vision Transformers, and the table of all variants.

Ti, S, B, L, H: Steiner et al., "How to train your ViT?" (arXiv:2106.10270), table 2, and Dosovitskiy et al.
(arXiv:2010.11929), table 1. So400m: Alabdulmohsin et al. (arXiv:2305.13035), shape-optimised, as in big_vision
`models/vit.py` `decode_variant`. g: Zhai et al., "Scaling Vision Transformers" (arXiv:2106.04560), table 2.
"""

from keras_vit.models.config import ViTConfig
from keras_vit.models.hybrid_variants import hybrid_variants
from keras_vit.models.swin_variants import SWIN_VARIANTS

# name: (hidden_dim, num_layers, num_heads, mlp_dim)
SIZES = {
    "tiny": (192, 12, 3, 768),
    "small": (384, 12, 6, 1536),
    "base": (768, 12, 12, 3072),
    "large": (1024, 24, 16, 4096),
    "huge": (1280, 32, 16, 5120),
    "so400m": (1152, 27, 16, 4304),
    "giant": (1408, 40, 16, 6144),
}
PATCH_SIZES = (8, 14, 16, 32)


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


def _variants():
    """Every size with every patch size, at 224 pixels, under timm's names."""
    for size in SIZES:
        for patch in PATCH_SIZES:
            yield f"vit_{size}_patch{patch}_224", vit_config(size, image_size=224, patch_size=patch)


VARIANTS = {**SWIN_VARIANTS, **dict(_variants()), **hybrid_variants(SIZES)}
