"""From patches to tokens without positions."""

import keras

from keras_vit.layers.composite import CompositeLayer
from keras_vit.layers.dense import dense
from keras_vit.layers.dropout import dropout
from keras_vit.layers.layer_norm import LayerNormalization
from keras_vit.validation import check_positive


@keras.saving.register_keras_serializable(package="keras_vit")
class PatchEmbedding(CompositeLayer):
    """Projects patches linearly and normalises them; positions are left to the attention's bias.

    Args:
        hidden_dim: int. Width of a token.
        dropout_rate: float in [0, 1). Default 0.
        layer_norm_epsilon: float. Default 1e-5.

    Call arguments:
        patches: tensor `(batch, patches, patch_dim)`.
        training: bool.

    Returns:
        Tensor `(batch, patches, hidden_dim)`.

    Source: Liu et al., arXiv:2103.14030, section 3.1; `PatchEmbed` of microsoft/Swin-Transformer with its norm.
    """

    def __init__(self, hidden_dim, dropout_rate=0.0, layer_norm_epsilon=1e-5, **kwargs):
        super().__init__(**kwargs)
        self.input_spec = keras.layers.InputSpec(ndim=3)  # patches (batch, patches, patch_dim)
        self.hidden_dim = check_positive(hidden_dim, "hidden_dim")
        self.dropout_rate = dropout_rate
        self.layer_norm_epsilon = layer_norm_epsilon
        self.projection = dense(self, "projection", hidden_dim, "lecun_normal")
        self.norm = LayerNormalization(epsilon=layer_norm_epsilon, dtype=self.dtype_policy, name="norm")
        self.dropout = dropout(self, "dropout", dropout_rate)

    def build(self, input_shape):
        self.projection.build(input_shape)
        self.norm.build((*input_shape[:-1], self.hidden_dim))

    def call(self, patches, training=False):
        return self.dropout(self.norm(self.projection(patches)), training=training)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.hidden_dim)

    def get_config(self):
        return {
            **super().get_config(),
            "hidden_dim": self.hidden_dim,
            "dropout_rate": self.dropout_rate,
            "layer_norm_epsilon": self.layer_norm_epsilon,
        }
