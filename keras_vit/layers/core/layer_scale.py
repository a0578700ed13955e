"""LayerScale: a learnable factor for every channel of a residual branch."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_vit")
class LayerScale(keras.layers.Layer):
    """Multiplies every channel by a learnable factor.

    Args:
        init: float. Initial factor. Default 1e-5.

    Call arguments:
        inputs: tensor `(..., channels)`.

    Returns:
        Tensor of the shape of `inputs`.

    Source: Touvron et al., "Going deeper with Image Transformers" (arXiv:2103.17239), section 2.
    """

    def __init__(self, init=1e-5, **kwargs):
        super().__init__(**kwargs)
        self.init = init

    def build(self, input_shape):
        self.gamma = self.add_weight(
            name="gamma", shape=(input_shape[-1],), initializer=keras.initializers.Constant(self.init)
        )

    def call(self, inputs):
        return ops.multiply(inputs, ops.cast(self.gamma, inputs.dtype))

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {**super().get_config(), "init": self.init}
