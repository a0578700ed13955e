"""The published image towers of DINOv2, SigLIP and CLIP under timm's names.

Sources: Oquab et al., "DINOv2" (arXiv:2304.07193), and Darcet et al., "Vision Transformers Need Registers"
(arXiv:2309.16588); Zhai et al., "Sigmoid Loss for Language Image Pre-Training" (arXiv:2303.15343), and Tschannen et
al., "SigLIP 2" (arXiv:2502.14786); Radford et al., "CLIP" (arXiv:2103.00020). The activations are those that timm
runs the published weights with: SigLIP and SigLIP 2 were trained with the tanh approximation of GELU.
"""

from keras_vit.models.sizes import vit_config

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
