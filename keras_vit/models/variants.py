"""The table of all variants: names are timm's, values the configs."""

from keras_vit.models.deit_variants import DEIT_VARIANTS
from keras_vit.models.hybrid_variants import HYBRID_VARIANTS
from keras_vit.models.sizes import vit_config
from keras_vit.models.swin_variants import SWIN_VARIANTS
from keras_vit.models.tower_variants import TOWER_VARIANTS

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
