"""The published sizes of Vision Transformers.

Ti, S, B, L, H: Steiner et al., "How to train your ViT?" (arXiv:2106.10270), table 2, and Dosovitskiy et al.
(arXiv:2010.11929), table 1. M: Touvron et al., "DeiT III" (arXiv:2204.07118), and timm. So400m: Alabdulmohsin et al.
(arXiv:2305.13035), shape-optimised, as in big_vision `models/vit.py` `decode_variant`. g: Zhai et al., "Scaling Vision
Transformers" (arXiv:2106.04560), table 2; DINOv2's (arXiv:2304.07193, appendix) and SigLIP 2's (arXiv:2502.14786) are
others. bigG: OpenCLIP's `ViT-bigG-14`.
"""

from keras_vit.models.config import ViTConfig

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
