"""The published sizes of Swin Transformers.

T, S, B, L: Liu et al., "Swin Transformer" (arXiv:2103.14030), section 3.3. Version 2 keeps them: Liu et al., "Swin
Transformer V2" (arXiv:2111.09883), section 3.5. Windows and image sizes: the model hub of microsoft/Swin-Transformer;
names: timm.
"""

from keras_vit.models.swin_config import SwinConfig

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
