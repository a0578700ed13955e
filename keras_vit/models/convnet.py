"""A small residual convolutional network: teacher and baseline of Vision Transformers on small images."""

import dataclasses
import math

import keras

from keras_vit.loss_check import check_loss_at_compile
from keras_vit.metadata import LAYER_NAME, Metadata
from keras_vit.models.config import CLASSIFIER_ACTIVATIONS, ModelConfig
from keras_vit.models.heads import classifier
from keras_vit.models.vit import default_input_spec
from keras_vit.validation import as_pair, check_choice, check_count, check_positive, check_rate


@keras.saving.register_keras_serializable(package="keras_vit")
@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvNetConfig(ModelConfig):
    """Everything that decides the graph and the weights of the network.

    Args:
        image_size: int or `(h, w)`, pixels; a multiple of 2 for each stage but the first. Default 32.
        num_channels: int. Channels of an image. Default 3.
        widths: ints. Channels of every stage; each but the first halves the resolution. Default `(64, 128, 256)`.
        depths: ints, one a stage. Residual units of two convolutions. Default `(0, 1, 1)`.
        num_classes: int. Logits; 0 leaves the head away. Default 1000.
        norm_momentum: float in [0, 1). Of the batch norms' averages; low enough for runs of few steps. Default 0.9.
        norm_epsilon: float. Default 1e-5.
        dropout_rate: float in [0, 1). In front of the head. Default 0.
        classifier_activation: `None`, `softmax` or `sigmoid`. Default `None`: logits.

    Raises:
        ValueError: if a field breaks these rules.
    """

    family = "convnet"

    image_size: tuple = (32, 32)
    num_channels: int = 3
    widths: tuple = (64, 128, 256)
    depths: tuple = (0, 1, 1)
    num_classes: int = 1000
    norm_momentum: float = 0.9
    norm_epsilon: float = 1e-5
    dropout_rate: float = 0.0
    classifier_activation: str | None = None

    def __post_init__(self):
        object.__setattr__(self, "image_size", as_pair(self.image_size, "image_size"))
        for name in ("widths", "depths"):
            values = getattr(self, name)
            if not isinstance(values, tuple | list):
                raise ValueError(f"{name} must hold one int a stage. Received: {name}={values!r}")
            object.__setattr__(self, name, tuple(values))
        if not self.widths or len(self.widths) != len(self.depths):
            raise ValueError(
                "widths and depths must be non-empty and of equal length. "
                f"Received: widths={self.widths}, depths={self.depths}"
            )
        for width in self.widths:
            check_positive(width, "widths")
        for depth in self.depths:
            check_count(depth, "depths")
        check_positive(self.num_channels, "num_channels")
        check_count(self.num_classes, "num_classes")
        for name in ("dropout_rate", "norm_momentum"):
            check_rate(getattr(self, name), name)
        check_choice(self.classifier_activation, CLASSIFIER_ACTIVATIONS, "classifier_activation")
        unit = 2 ** (len(self.widths) - 1)
        if any(side % unit for side in self.image_size):
            raise ValueError(f"image_size must be a multiple of {unit}. Received: image_size={self.image_size}")

    @property
    def is_built_of_keras_layers(self):
        return True

    def multiply_adds(self):
        pixels, channels, total = math.prod(self.image_size), self.num_channels, 0
        for stage, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True)):
            total += 9 * pixels * channels * width  # before the pooling
            pixels //= 4 if stage else 1
            total += depth * 2 * 9 * pixels * width**2
            channels = width
        return total + channels * self.num_classes


def build_convnet(config, input_spec=None, labels=None, origin=None, dtype=None, name="convnet"):
    """Builds the network: 3 x 3 convolutions, batch norms and ReLUs, maximum pooling between stages.

    Every stage of the forward pass is a named layer: `metadata`, the layers of every stage s, which begin with
    `stage_{s}_`, `stage_{s}`, `representation`, `head`.

    Args:
        config: `ConvNetConfig`.
        input_spec, labels, origin, dtype, name: as for `build_vit`.

    Returns:
        A `keras.Model` from `(batch, height, width, channels)` images, normalized, to `(batch, num_classes)` logits,
        or to the representation `(batch, widths[-1])` where `num_classes` is 0.

    Source: the residual networks for CIFAR of He et al. (arXiv:1512.03385), as wide and shallow as in
        "How to train your ResNet" (D. Page, 2018).
    """
    policy = keras.dtype_policies.get(dtype)
    input_spec = input_spec or default_input_spec(config)
    images = keras.Input((*config.image_size, config.num_channels), name="images")
    x = Metadata(config, input_spec, labels, origin, dtype=policy, name=LAYER_NAME)(images)
    for stage, (width, depth) in enumerate(zip(config.widths, config.depths, strict=True)):
        prefix = f"stage_{stage}"
        x = _convolution(config, x, width, f"{prefix}_entry", policy)
        if stage:
            x = keras.layers.MaxPooling2D(2, dtype=policy, name=f"{prefix}_pool")(x)
        for unit in range(depth):
            y = x
            for half in ("a", "b"):
                y = _convolution(config, y, width, f"{prefix}_unit_{unit}{half}", policy)
            x = keras.layers.Add(dtype=policy, name=f"{prefix}_unit_{unit}")([x, y])
        x = keras.layers.Activation("linear", dtype=policy, name=prefix)(x)
    x = keras.layers.GlobalAveragePooling2D(dtype=policy, name="representation")(x)
    if config.dropout_rate:
        x = keras.layers.Dropout(config.dropout_rate, dtype=policy, name="dropout")(x)
    if config.num_classes:
        x = classifier(config, policy, "head")(x)
    return check_loss_at_compile(keras.Model(images, x, name=name))


def _convolution(config, x, width, name, policy):
    x = keras.layers.Conv2D(
        width, 3, padding="same", use_bias=False, kernel_initializer="he_normal", dtype=policy, name=f"{name}_conv"
    )(x)
    x = keras.layers.BatchNormalization(
        momentum=config.norm_momentum, epsilon=config.norm_epsilon, dtype=policy, name=f"{name}_norm"
    )(x)
    return keras.layers.ReLU(dtype=policy, name=f"{name}_activation")(x)
