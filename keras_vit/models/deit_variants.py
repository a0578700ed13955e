"""The published models of DeiT.

Sources: Touvron et al., "Training data-efficient image transformers & distillation through attention"
(arXiv:2012.12877), section 4; "DeiT III: Revenge of the ViT" (arXiv:2204.07118): LayerScale, positions on the patches
alone.
"""

from keras_vit.models.sizes import vit_config

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
