"""Layer normalisation."""

import keras
from keras import ops

from keras_vit.fused import fused_layer_norm, fuses
from keras_vit.portable import is_portable


@keras.saving.register_keras_serializable(package="keras_vit")
class LayerNormalization(keras.layers.LayerNormalization):
    """`keras.layers.LayerNormalization` over the last axis, statistics in float32 under every dtype policy.

    The same numbers and weights, written so that its gradient is a shorter chain of operations, which counts
    where XLA does not fuse it. The default epsilon is that of Vision Transformers.

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
                "LayerNormalization is over the last axis, with gamma and beta. "
                f"Received: axis={self.axis}, center={self.center}, scale={self.scale}, rms_scaling={self.rms_scaling}"
            )

    def call(self, inputs):
        if fuses():
            return fused_layer_norm(inputs, self.gamma, self.beta, self.epsilon)
        x = ops.cast(inputs, "float32")
        centered = x - ops.mean(x, axis=(-1,), keepdims=True)
        if is_portable():  # spelt like this, ONNX Runtime and OpenVINO make one kernel of it
            normed = centered / ops.sqrt(ops.mean(ops.power(centered, 2.0), axis=(-1,), keepdims=True) + self.epsilon)
        else:
            variance = ops.mean(centered * centered, axis=-1, keepdims=True)
            normed = centered * ops.rsqrt(variance + self.epsilon)
        gamma, beta = ops.cast(self.gamma, "float32"), ops.cast(self.beta, "float32")
        return ops.cast(normed * gamma + beta, self.compute_dtype)
