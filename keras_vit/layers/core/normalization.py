"""Layer and group normalization with statistics in float32."""

import keras
from keras import ops

from keras_vit.backend.ops import layer_norm


@keras.saving.register_keras_serializable(package="keras_vit")
class LayerNormalization(keras.layers.LayerNormalization):
    """`keras.layers.LayerNormalization` over the last axis, statistics in float32 under every dtype policy.

    It gives the same results with the same weights, through fewer operations. The default epsilon is that of Vision
    Transformers.

    Args:
        epsilon: float. Default 1e-6.
        **kwargs: as for `keras.layers.LayerNormalization`; `axis` must be -1, `center` and `scale` true.

    Call arguments:
        inputs: tensor `(..., channels)`.

    Returns:
        Tensor of the shape of `inputs`.

    Raises:
        ValueError: for another axis, or without gamma or beta.

    Source: Ba et al., "Layer Normalization" (arXiv:1607.06450).
    """

    def __init__(self, epsilon=1e-6, **kwargs):
        super().__init__(epsilon=epsilon, **kwargs)
        if self.axis not in (-1, [-1]) or not self.center or not self.scale or self.rms_scaling:
            raise ValueError(
                "LayerNormalization supports axis=-1, center=True, scale=True and rms_scaling=False only. "
                f"Received: axis={self.axis}, center={self.center}, scale={self.scale}, rms_scaling={self.rms_scaling}"
            )

    def call(self, inputs):
        return layer_norm(inputs, self.gamma, self.beta, self.epsilon, self.compute_dtype)


@keras.saving.register_keras_serializable(package="keras_vit")
class GroupNormalization(keras.layers.GroupNormalization):
    """`keras.layers.GroupNormalization` over images, statistics in float32 under every dtype policy.

    It gives the same results with the same weights. The pixels are averaged first and the channels of a group
    afterwards, which is faster than reducing groups of a five-dimensional tensor.

    Args:
        groups: int. Divides the channels. Default 32.
        epsilon: float. Default 1e-5.
        **kwargs: as for `keras.layers.GroupNormalization`; `axis` must be -1, `center` and `scale` true.

    Call arguments:
        images: tensor `(batch, height, width, channels)`.

    Returns:
        Tensor of the shape of `images`.

    Raises:
        ValueError: for another axis, or without gamma or beta.

    Source: Wu and He, "Group Normalization" (arXiv:1803.08494).
    """

    def __init__(self, groups=32, epsilon=1e-5, **kwargs):
        super().__init__(groups=groups, epsilon=epsilon, **kwargs)
        if self.axis != -1 or not self.center or not self.scale:
            raise ValueError(
                "GroupNormalization supports axis=-1, center=True and scale=True only. "
                f"Received: axis={self.axis}, center={self.center}, scale={self.scale}"
            )

    def call(self, images):
        x = ops.cast(images, "float32")
        centered = x - self._group_mean(x)
        scale = ops.rsqrt(self._group_mean(ops.square(centered)) + self.epsilon)
        gamma, beta = ops.cast(self.gamma, "float32"), ops.cast(self.beta, "float32")
        return ops.cast(centered * (scale * gamma) + beta, self.compute_dtype)

    def _group_mean(self, x):
        """The mean of each channel's group, `(batch, 1, 1, channels)`."""
        width = x.shape[-1] // self.groups
        channels = ops.mean(x, axis=(1, 2))
        groups = ops.mean(ops.reshape(channels, (-1, 1, 1, self.groups, width)), axis=-1)
        return ops.repeat(groups, width, axis=-1)
