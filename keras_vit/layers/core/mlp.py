"""The feed-forward half of an encoder block."""

import keras
from keras import ops

from keras_vit.backend.xla_kernels import fused_bias_gelu, fuses
from keras_vit.layers.core.activations import ACTIVATIONS
from keras_vit.layers.core.composite import CompositeLayer
from keras_vit.layers.core.dense import dense, is_plain, on_rows
from keras_vit.layers.core.dropout import dropout
from keras_vit.validation import check_choice, check_positive


@keras.saving.register_keras_serializable(package="keras_vit")
class MLP(CompositeLayer):
    """Two dense layers with an activation between them.

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
        self.dropout = dropout(self, "dropout", dropout_rate)

    def build(self, input_shape):
        hidden_dim = input_shape[-1]
        width = 2 * self.mlp_dim if self.activation == "swiglu" else self.mlp_dim
        self.dense_1 = dense(self, "dense_1", width)
        self.dense_2 = dense(self, "dense_2", hidden_dim)
        self.dense_1.build(input_shape)
        self.dense_2.build((*input_shape[:-1], self.mlp_dim))

    def call(self, inputs, training=False):
        # One matrix of rows: only so does TensorFlow fuse product, bias and GELU into one kernel.
        x = self._inner(ops.reshape(inputs, (-1, inputs.shape[-1])))
        x = on_rows(self.dense_2, self.dropout(x, training=training))
        return self.dropout(ops.reshape(x, ops.shape(inputs)), training=training)

    def _inner(self, rows):
        if self.activation == "gelu" and fuses() and is_plain(self.dense_1):
            return fused_bias_gelu(ops.matmul(rows, self.dense_1.kernel), self.dense_1.bias)
        x, activation = on_rows(self.dense_1, rows), ACTIVATIONS[self.activation]
        if self.activation == "swiglu":
            gate, value = ops.split(x, 2, axis=-1)
            return activation(gate) * value
        return activation(x)

    def get_config(self):
        return {
            **super().get_config(),
            "mlp_dim": self.mlp_dim,
            "activation": self.activation,
            "dropout_rate": self.dropout_rate,
        }
