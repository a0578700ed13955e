"""Hybrids of the ViT paper: a Vision Transformer on the features of a ResNet."""

import dataclasses

import keras

from keras_vit.layers import ResNetRoot, ResNetStage
from keras_vit.layers.resnet.standardized_conv import RULES
from keras_vit.loss_check import check_loss_at_compile
from keras_vit.metadata import LAYER_NAME, Metadata
from keras_vit.models.config import FeatureMap, ViTConfig, int_if_square
from keras_vit.models.vit import classify, default_input_spec, encode
from keras_vit.validation import check_choice, check_divides, check_positive

GROUPS = 32  # of the group norms


def stem_stride(stem_depths):
    """int. Pixels of an image, in each direction, to one feature of a ResNet with these stages."""
    return 4 * 2 ** max(len(stem_depths) - 1, 0)


@keras.saving.register_keras_serializable(package="keras_vit")
@dataclasses.dataclass(frozen=True, kw_only=True)
class HybridConfig(ViTConfig):
    """A `ViTConfig` with a ResNet in front.

    Args:
        image_size: int or `(h, w)`, pixels; divided by `stem_stride` and rounded up, a multiple of `patch_size`.
        patch_size: int or `(h, w)`, in pixels of the ResNet's features. Default 1.
        stem_depths: ints. Bottlenecks of each stage of the ResNet; the first stage keeps the size, each further one
            halves it. Default `()`: the root alone.
        stem_width: int, a multiple of 32. Channels of the root; those of a stage's output are 4, 8, 16 ... times as
            many. Default 64.
        stem_rule: the source of the epsilons of weight standardization and group norm: `timm` or `google`; see
            `keras_vit.layers.StandardizedConv2D`. Default `timm`.

    All other fields are those of `ViTConfig`.

    Raises:
        ValueError: if a field breaks these rules.

    Source: Dosovitskiy et al., arXiv:2010.11929, section 3.1, "Hybrid Architecture"; google-research/vision_transformer
    `models_vit.py` and `models_resnet.py`; timm `vision_transformer_hybrid.py`.
    """

    family = "hybrid"

    patch_size: tuple = (1, 1)
    stem_depths: tuple = ()
    stem_width: int = 64
    stem_rule: str = "timm"

    def _check_patches(self):
        depths = self.stem_depths
        if not isinstance(depths, tuple | list) or any(type(depth) is not int or depth < 1 for depth in depths):
            raise ValueError(f"stem_depths must hold one int of at least 1 a stage. Received: stem_depths={depths!r}")
        object.__setattr__(self, "stem_depths", tuple(depths))
        if check_positive(self.stem_width, "stem_width") % GROUPS:
            raise ValueError(f"stem_width must be a multiple of {GROUPS}. Received: stem_width={self.stem_width}")
        check_choice(self.stem_rule, RULES, "stem_rule")
        check_divides(self.feature_size, self.patch_size, f"image_size / {self.stem_stride}, rounded up,")

    @property
    def has_stem(self):
        return True

    @property
    def can_mask_patches(self):
        return False

    @property
    def has_flexible_grid(self):
        return False

    def feature_maps(self):
        stride = int_if_square(tuple(self.stem_stride * side for side in self.patch_size))
        tokens = {name: dataclasses.replace(item, stride=stride) for name, item in super().feature_maps().items()}
        stem = {}
        for stage in range(len(self.stem_depths)):
            depths = self.stem_depths[: stage + 1]
            grid = tuple(side and -(-side // stem_stride(depths)) for side in self.input_size)
            channels = 4 * self.stem_width * 2**stage
            stem[f"stem_stage_{stage}"] = FeatureMap(channels, grid, stem_stride(depths), is_map=True)
        return stem | tokens

    def multiply_adds(self):
        raise ValueError(f"the operations of hybrids are not counted. Received: config={self!r}")

    @property
    def stem_stride(self):
        """int. Pixels of an image, in each direction, to one of the ResNet's features."""
        return stem_stride(self.stem_depths)

    @property
    def feature_size(self):
        """`(h, w)` of the ResNet's features."""
        return tuple(-(-side // self.stem_stride) for side in self.image_size)

    @property
    def patch_pitch(self):
        return tuple(side * self.stem_stride for side in self.patch_size)

    @property
    def kernel_layer(self):
        return "stem_root"

    @property
    def grid_size(self):
        """`(h, w)`, the patches of an image."""
        return tuple(s // p for s, p in zip(self.feature_size, self.patch_size, strict=True))


def build_hybrid(config, input_spec=None, labels=None, origin=None, dtype=None, name="hybrid"):
    """Builds a hybrid Vision Transformer.

    The stages of `build_vit`, with `stem_root` and, for every stage s of the ResNet, `stem_stage_{s}` in front of
    `patches`.

    Args:
        config: `HybridConfig`.
        input_spec, labels, origin, dtype, name: as for `build_vit`.

    Returns:
        A `keras.Model`, as `build_vit`.
    """
    policy = keras.dtype_policies.get(dtype)
    input_spec = input_spec or default_input_spec(config)
    images = keras.Input((*config.input_size, config.num_channels), name="images")
    x = Metadata(config, input_spec, labels, origin, dtype=policy, name=LAYER_NAME)(images)
    x = ResNetRoot(config.stem_width, config.stem_rule, dtype=policy, name="stem_root")(x)
    for stage, depth in enumerate(config.stem_depths):
        width, strides = config.stem_width * 2**stage, 2 if stage else 1
        x = ResNetStage(width, depth, strides, config.stem_rule, dtype=policy, name=f"stem_stage_{stage}")(x)
    return check_loss_at_compile(keras.Model(images, classify(config, encode(config, x, policy), policy), name=name))
