"""The published hybrids of ResNet and Vision Transformer, under timm's names.

R50+ViT-B/16: Dosovitskiy et al. (arXiv:2010.11929), section 4.1. R+Ti/16, R26+S/32, R50+L/32: Steiner et al., "How to
train your ViT?" (arXiv:2106.10270), table 2, and `configs/models.py` of google-research/vision_transformer. The 16
in R+Ti/16 is the published name: its root divides by 4 and its patches by 8.
"""

from keras_vit.models.hybrid import HybridConfig
from keras_vit.models.sizes import SIZES

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
