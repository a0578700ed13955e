"""Pooling of tokens into one vector: a token, the mean, or multi-head attention (the MAP head)."""

import math

import keras
from keras import ops

from keras_vit.backend.ops import project_from_heads, project_to_heads
from keras_vit.layers.core.composite import CompositeLayer
from keras_vit.layers.core.dense import make_dense
from keras_vit.layers.core.mlp import MLP
from keras_vit.layers.core.normalization import LayerNormalization
from keras_vit.layers.vit.attention import attention
from keras_vit.validation import check_choice, check_heads, check_positive


@keras.saving.register_keras_serializable(package="keras_vit")
class TokenPooling(keras.layers.Layer):
    """Takes one token, or the mean of the patch tokens.

    Args:
        pooling: `token`, `gap` or `token_gap`: the token and the mean, side by side.
        index: int. With `token` and `token_gap`: the number of the token. Default 0, the class token.
        num_prefix_tokens: int. With `gap` and `token_gap`: tokens at the front that the mean leaves out. Default 0.

    Call arguments:
        tokens: tensor `(batch, tokens, hidden_dim)`.

    Returns:
        Tensor `(batch, hidden_dim)`, with `token_gap` `(batch, 2 * hidden_dim)`. The mean is taken in float32.
    """

    def __init__(self, pooling, index=0, num_prefix_tokens=0, **kwargs):
        super().__init__(**kwargs)
        self.input_spec = keras.layers.InputSpec(ndim=3)  # tokens (batch, tokens, hidden_dim)
        self.pooling = check_choice(pooling, ("token", "gap", "token_gap"), "pooling")
        self.index = index
        self.num_prefix_tokens = num_prefix_tokens
        self.built = True

    def call(self, tokens):
        if self.pooling == "token":
            return tokens[:, self.index]
        mean = ops.mean(ops.cast(tokens[:, self.num_prefix_tokens :], "float32"), axis=1)
        mean = ops.cast(mean, self.compute_dtype)
        return mean if self.pooling == "gap" else ops.concatenate([tokens[:, self.index], mean], axis=-1)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[2] * (2 if self.pooling == "token_gap" else 1))

    def get_config(self):
        return {
            **super().get_config(),
            "pooling": self.pooling,
            "index": self.index,
            "num_prefix_tokens": self.num_prefix_tokens,
        }


@keras.saving.register_keras_serializable(package="keras_vit")
class AttentionPooling(CompositeLayer):
    """Attention of one learned query to the patch tokens, followed by an MLP block.

    `x = attention(probe, tokens)`, then `x + mlp(norm(x))`: the residual starts from the attention's output.

    Args:
        num_heads: int. Divides the width.
        mlp_dim: int. Width inside the MLP.
        activation: as for `MLP`. Default `gelu`.
        layer_norm_epsilon: float. Default 1e-6.
        num_prefix_tokens: int. Tokens at the front that the query does not see. Default 0.

    Call arguments:
        tokens: tensor `(batch, tokens, hidden_dim)`.
        training: bool.
        return_attention: bool. Default False.
        attention_offset: tensor of the shape of the probabilities that is added to them, or `None`, the default.

    Returns:
        Tensor `(batch, hidden_dim)`; with `return_attention` a pair with the attention probabilities
        `(batch, num_heads, 1, tokens)`, without those of the prefix.

    Source: big_vision `models/vit.py` `MAPHead`; Zhai et al., arXiv:2106.04560, section 3.1; timm
    `VisionTransformer.pool`, which cuts the prefix off. In big_vision no model has both a MAP head and a class token.
    """

    def __init__(self, num_heads, mlp_dim, activation="gelu", layer_norm_epsilon=1e-6, num_prefix_tokens=0, **kwargs):
        super().__init__(**kwargs)
        self.input_spec = keras.layers.InputSpec(ndim=3)  # tokens (batch, tokens, hidden_dim)
        self.num_heads = check_positive(num_heads, "num_heads")
        self.mlp_dim = mlp_dim
        self.activation = activation
        self.layer_norm_epsilon = layer_norm_epsilon
        self.num_prefix_tokens = num_prefix_tokens
        self.mlp = MLP(mlp_dim, activation, dtype=self.dtype_policy, name="mlp")

    def build(self, input_shape):
        hidden_dim = input_shape[-1]
        check_heads(hidden_dim, self.num_heads)
        self.probe = self.add_weight(name="probe", shape=(1, 1, hidden_dim), initializer="glorot_uniform")
        self.query = make_dense(self, "query", hidden_dim)
        key_value = keras.initializers.VarianceScaling(1.5, mode="fan_avg", distribution="uniform")
        self.key_value = make_dense(self, "key_value", 2 * hidden_dim, key_value)
        self.projection = make_dense(self, "projection", hidden_dim)
        self.norm = LayerNormalization(epsilon=self.layer_norm_epsilon, dtype=self.dtype_policy, name="norm")
        for layer in (self.query, self.key_value, self.projection, self.norm, self.mlp):
            layer.build((None, None, hidden_dim))

    def call(self, tokens, training=False, return_attention=False, attention_offset=None):
        tokens = tokens[:, self.num_prefix_tokens :]
        scale = 1 / math.sqrt(tokens.shape[-1] // self.num_heads)
        probe = ops.cast(self.probe, self.compute_dtype)
        (query,) = project_to_heads(self.query, probe, self.num_heads, (scale,))
        query = ops.repeat(query, ops.shape(tokens)[0], axis=0)
        key, value = project_to_heads(self.key_value, tokens, self.num_heads, (1, 1))
        options = {"return_attention": return_attention, "attention_offset": attention_offset}
        x, probabilities = attention(query, key, value, **options)
        x = project_from_heads(self.projection, x)  # (batch, 1, hidden_dim)
        x = x + self.mlp(self.norm(x), training=training)
        return (x[:, 0], probabilities) if return_attention else x[:, 0]

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[2])

    def compute_output_spec(self, tokens, training=False, return_attention=False, attention_offset=None):
        batch, length, hidden_dim = tokens.shape
        outputs = keras.KerasTensor((batch, hidden_dim), dtype=self.compute_dtype)
        if not return_attention:
            return outputs
        shape = (batch, self.num_heads, 1, None if length is None else length - self.num_prefix_tokens)
        return outputs, keras.KerasTensor(shape, dtype=self.compute_dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "mlp_dim": self.mlp_dim,
            "activation": self.activation,
            "layer_norm_epsilon": self.layer_norm_epsilon,
            "num_prefix_tokens": self.num_prefix_tokens,
        }
