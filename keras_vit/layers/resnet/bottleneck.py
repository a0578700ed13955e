"""The ResNet in front of a hybrid Vision Transformer: its root and its stages."""

import keras
from keras import ops

from keras_vit.layers.core.composite import CompositeLayer
from keras_vit.layers.core.normalization import GroupNormalization
from keras_vit.layers.resnet.standardized_conv import StandardizedConv2D
from keras_vit.validation import check_positive

# The group norm's epsilon of each source.
EPSILONS = {"timm": 1e-5, "google": 1e-6}
EXPANSION = 4  # the width of a unit's output in multiples of its width inside


@keras.saving.register_keras_serializable(package="keras_vit")
class ResNetRoot(CompositeLayer):
    """Convolution of 7 by 7 pixels, group norm, ReLU and max pooling: reduces height and width by four.

    Args:
        width: int, a multiple of 32. Channels of the output. Default 64.
        rule: the source of the epsilons, `timm` or `google`; see `StandardizedConv2D`. Default `timm`.

    Call arguments:
        images: tensor `(batch, height, width, channels)`.

    Returns:
        Tensor `(batch, ceil(height / 4), ceil(width / 4), width)`.

    Source: Dosovitskiy et al., arXiv:2010.11929, section 3.1; the root block in google-research/vision_transformer
    `models_vit.py`; `create_resnetv2_stem` of timm with `stem_type="same"`.
    """

    def __init__(self, width=64, rule="timm", **kwargs):
        super().__init__(**kwargs)
        self.width = check_positive(width, "width")
        self.rule = rule
        policy = self.dtype_policy
        self.convolution = StandardizedConv2D(width, 7, 2, rule, dtype=policy, name="convolution")
        self.norm = GroupNormalization(epsilon=EPSILONS[rule], dtype=policy, name="norm")

    def build(self, input_shape):
        self.convolution.build(input_shape)
        self.norm.build(self.convolution.compute_output_shape(input_shape))

    def call(self, images):
        x = ops.relu(self.norm(self.convolution(images)))
        return ops.max_pool(x, 3, 2, padding="same", data_format="channels_last")

    def compute_output_shape(self, input_shape):
        batch, *sides, _ = input_shape
        return (batch, *(None if side is None else -(-side // 4) for side in sides), self.width)

    def get_config(self):
        return {**super().get_config(), "width": self.width, "rule": self.rule}


@keras.saving.register_keras_serializable(package="keras_vit")
class Bottleneck(CompositeLayer):
    """Residual unit of three standardized convolutions, 1, 3 and 1 pixels wide, each with a group norm.

    A ReLU follows each norm, the last one after the sum. That is not the pre-activation of ResNet-v2, in spite of the
    name in the sources. The shortcut is projected if the shape changes.

    Args:
        width: int, a multiple of 32. Channels inside; the output has four times as many.
        strides: int. Of the second convolution and the shortcut. Default 1.
        rule: the source of the epsilons, `timm` or `google`; see `StandardizedConv2D`. Default `timm`.

    Call arguments:
        images: tensor `(batch, height, width, channels)`.

    Returns:
        Tensor `(batch, ceil(height / strides), ceil(width / strides), 4 * width)`.

    Source: `ResidualUnit` of google-research/vision_transformer `models_resnet.py`; `Bottleneck` of timm `resnetv2.py`.
    """

    def __init__(self, width, strides=1, rule="timm", **kwargs):
        super().__init__(**kwargs)
        self.width = check_positive(width, "width")
        self.strides = check_positive(strides, "strides")
        self.rule = rule
        sizes = ((width, 1, 1), (width, 3, strides), (EXPANSION * width, 1, 1))
        self.convolutions = [self._convolution(*size, f"convolution_{i}") for i, size in enumerate(sizes, 1)]
        # A new unit equals its shortcut: the last scale is zero.
        self.norms = [self._norm(f"norm_{i}", "zeros" if i == len(sizes) else "ones") for i in range(1, len(sizes) + 1)]
        self.projection = self.projection_norm = None

    def _convolution(self, filters, kernel_size, strides, name):
        return StandardizedConv2D(filters, kernel_size, strides, self.rule, dtype=self.dtype_policy, name=name)

    def _norm(self, name, gamma="ones"):
        epsilon = EPSILONS[self.rule]
        return GroupNormalization(epsilon=epsilon, gamma_initializer=gamma, dtype=self.dtype_policy, name=name)

    def build(self, input_shape):
        shape = input_shape
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            convolution.build(shape)
            shape = convolution.compute_output_shape(shape)
            norm.build(shape)
        if input_shape[-1] != shape[-1] or self.strides != 1:
            self.projection = self._convolution(shape[-1], 1, self.strides, "projection")
            self.projection_norm = self._norm("projection_norm")
            self.projection.build(input_shape)
            self.projection_norm.build(shape)

    def call(self, images):
        x = images
        for convolution, norm in zip(self.convolutions[:-1], self.norms[:-1], strict=True):
            x = ops.relu(norm(convolution(x)))
        x = self.norms[-1](self.convolutions[-1](x))
        shortcut = images if self.projection is None else self.projection_norm(self.projection(images))
        return ops.relu(x + shortcut)

    def compute_output_shape(self, input_shape):
        batch, *sides, _ = input_shape
        sides = (None if side is None else -(-side // self.strides) for side in sides)
        return (batch, *sides, EXPANSION * self.width)

    def get_config(self):
        return {**super().get_config(), "width": self.width, "strides": self.strides, "rule": self.rule}


@keras.saving.register_keras_serializable(package="keras_vit")
class ResNetStage(CompositeLayer):
    """Sequence of bottlenecks of one width, the first with the strides.

    Args:
        width: int, a multiple of 32. Channels inside a bottleneck; the output has four times as many.
        depth: int. Number of bottlenecks.
        strides: int. Default 1.
        rule: the source of the epsilons, `timm` or `google`; see `StandardizedConv2D`. Default `timm`.

    Call arguments:
        images: tensor `(batch, height, width, channels)`.

    Returns:
        Tensor `(batch, ceil(height / strides), ceil(width / strides), 4 * width)`.

    Source: `ResNetStage` of google-research/vision_transformer `models_resnet.py`.
    """

    def __init__(self, width, depth, strides=1, rule="timm", **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.depth = check_positive(depth, "depth")
        self.strides = strides
        self.rule = rule
        self.units = [
            Bottleneck(width, strides if i == 0 else 1, rule, dtype=self.dtype_policy, name=f"unit_{i}")
            for i in range(depth)
        ]

    def build(self, input_shape):
        for unit in self.units:
            unit.build(input_shape)
            input_shape = unit.compute_output_shape(input_shape)

    def call(self, images):
        for unit in self.units:
            images = unit(images)
        return images

    def compute_output_shape(self, input_shape):
        return self.units[0].compute_output_shape(input_shape)

    def get_config(self):
        config = {"width": self.width, "depth": self.depth, "strides": self.strides, "rule": self.rule}
        return {**super().get_config(), **config}
