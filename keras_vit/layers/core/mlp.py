"""The MLP of an encoder block."""

import keras
from keras import ops

from keras_vit.backend.ops import linear
from keras_vit.layers.core.activations import ACTIVATIONS
from keras_vit.layers.core.composite import CompositeLayer
from keras_vit.layers.core.dense import make_dense
from keras_vit.layers.core.dropout import make_dropout
from keras_vit.validation import check_choice, check_positive


@keras.saving.register_keras_serializable(package="keras_vit")
class MLP(CompositeLayer):
    """Two dense layers with an activation between them: `dense_2(activation(dense_1(x)))`.

    Args:
        mlp_dim: int. Width inside; with `swiglu` the width after gating (the first layer is twice as wide,
            its gate half first).
        activation: `gelu` (exact), `gelu_tanh`, `quick_gelu` or `swiglu`. Default `gelu`.
        dropout_rate: float in [0, 1). After both dense layers. Default 0.

    Call arguments:
        inputs: tensor `(batch, tokens, hidden_dim)`.
        training: bool.

    Returns:
        Tensor of the shape of `inputs`.

    Source: Dosovitskiy et al., arXiv:2010.11929, equation 3; SwiGLU: Shazeer, arXiv:2002.05202.
    """

    def __init__(self, mlp_dim, activation="gelu", dropout_rate=0.0, **kwargs):
        super().__init__(**kwargs)
        self.mlp_dim = check_positive(mlp_dim, "mlp_dim")
        self.activation = check_choice(activation, ACTIVATIONS, "activation")
        self.dropout_rate = dropout_rate
        self.dropout = make_dropout(self, "dropout", dropout_rate)

    def build(self, input_shape):
        hidden_dim = input_shape[-1]
        width = 2 * self.mlp_dim if self.activation == "swiglu" else self.mlp_dim
        self.dense_1 = make_dense(self, "dense_1", width)
        self.dense_2 = make_dense(self, "dense_2", hidden_dim)
        self.dense_1.build(input_shape)
        self.dense_2.build((*input_shape[:-1], self.mlp_dim))

    def call(self, inputs, training=False):
        x = ops.reshape(inputs, (-1, inputs.shape[-1]))  # one matrix of all tokens, which `linear` takes as it is
        x = linear(self.dense_1, x, ACTIVATIONS[self.activation])
        x = linear(self.dense_2, self.dropout(x, training=training))
        return self.dropout(ops.reshape(x, ops.shape(inputs)), training=training)

    def get_config(self):
        return {
            **super().get_config(),
            "mlp_dim": self.mlp_dim,
            "activation": self.activation,
            "dropout_rate": self.dropout_rate,
        }
