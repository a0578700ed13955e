"""Convolution with weight standardization."""

import keras
from keras import ops

from keras_vit.backend.skip_init import skippable
from keras_vit.validation import as_pair, check_choice, check_positive

# Sources whose way to avoid a division by zero is available.
RULES = ("timm", "google")


@keras.saving.register_keras_serializable(package="keras_vit")
class StandardizedConv2D(keras.layers.Layer):
    """A convolution with weight standardization: the kernel of each filter has mean 0 and variance 1.

    Padding is TensorFlow's `SAME`: with strides it depends on the size of the image, and the odd pixel goes to the
    right and to the bottom. There is no bias, as a norm follows. The kernel is standardized in float32 under every
    dtype policy.

    Args:
        filters: int. Channels of the output.
        kernel_size: int or `(h, w)`, pixels.
        strides: int or `(h, w)`, pixels. Default 1.
        rule: source of the guard against a division by zero: `timm` divides by `sqrt(variance + 1e-8)`, `google` by
            `sqrt(variance) + 1e-5`. Default `timm`.

    Call arguments:
        images: tensor `(batch, height, width, channels)`.

    Returns:
        Tensor `(batch, ceil(height / strides), ceil(width / strides), filters)`.

    Raises:
        ValueError: on an unknown rule, with the nearest one.

    Source: Qiao et al., "Micro-Batch Training with Batch-Channel Normalization and Weight Standardization"
    (arXiv:1903.10520); `StdConv2dSame` of timm; `StdConv` of google-research/vision_transformer `models_resnet.py`.
    """

    def __init__(self, filters, kernel_size, strides=1, rule="timm", **kwargs):
        super().__init__(**kwargs)
        self.input_spec = keras.layers.InputSpec(ndim=4)  # images (batch, height, width, channels)
        self.filters = check_positive(filters, "filters")
        self.kernel_size = as_pair(kernel_size, "kernel_size")
        self.strides = as_pair(strides, "strides")
        self.rule = check_choice(rule, RULES, "rule")

    def build(self, input_shape):
        self.kernel = self.add_weight(
            name="kernel",
            shape=(*self.kernel_size, input_shape[-1], self.filters),
            initializer=skippable("lecun_normal"),
            autocast=False,
        )

    def standardized_kernel(self):
        """Returns the kernel of the convolution, float32 `(h, w, channels, filters)`."""
        kernel = ops.cast(self.kernel, "float32")
        centered = kernel - ops.mean(kernel, axis=(0, 1, 2), keepdims=True)
        variance = ops.mean(ops.square(centered), axis=(0, 1, 2), keepdims=True)
        if self.rule == "timm":
            return centered * ops.rsqrt(variance + 1e-8)
        return centered / (ops.sqrt(variance) + 1e-5)

    def call(self, images):
        kernel = ops.cast(self.standardized_kernel(), self.compute_dtype)
        return ops.conv(images, kernel, self.strides, padding="same", data_format="channels_last")

    def compute_output_shape(self, input_shape):
        sides = zip(input_shape[1:3], self.strides, strict=True)
        return (input_shape[0], *(None if side is None else -(-side // s) for side, s in sides), self.filters)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": list(self.kernel_size),
            "strides": list(self.strides),
            "rule": self.rule,
        }
