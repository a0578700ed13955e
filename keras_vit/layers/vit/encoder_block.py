"""One block of the Transformer encoder."""

import keras

from keras_vit.layers.core.composite import CompositeLayer
from keras_vit.layers.core.dropout import make_drop_path
from keras_vit.layers.core.layer_scale import LayerScale
from keras_vit.layers.core.mlp import MLP
from keras_vit.layers.core.normalization import LayerNormalization
from keras_vit.layers.vit.attention import MultiHeadSelfAttention, attention_output_spec
from keras_vit.validation import check_choice


@keras.saving.register_keras_serializable(package="keras_vit")
class TransformerEncoder(CompositeLayer):
    """Self-attention and an MLP, each a residual branch with a layer norm.

    Pre-norm: `x + drop_path(scale(attention(norm(x))))`, then the same with the MLP. Post-norm, as in the
    original Transformer: `norm(x + drop_path(scale(attention(x))))`.

    Args:
        num_heads: int. Divides the width of the tokens.
        mlp_dim: int. Width inside the MLP.
        activation: `gelu` (exact), `gelu_tanh`, `quick_gelu` or `swiglu`. Default `gelu`.
        norm_placement: `pre` or `post`. Default `pre`.
        dropout_rate: float in [0, 1). After the attention's projection and both MLP layers. Default 0.
        attention_dropout_rate: float in [0, 1). On the attention probabilities. Default 0.
        drop_path_rate: float in [0, 1). Stochastic depth: the rate at which a branch is dropped, sample by sample.
            Default 0.
        layer_scale_init: float or `None` (no LayerScale). Default `None`.
        qk_norm: bool. Default False.
        layer_norm_epsilon: float. Default 1e-6.
        qkv_bias: bool. Whether queries, keys and values have a bias. Default True.

    Call arguments:
        tokens: tensor `(batch, tokens, hidden_dim)`.
        training: bool.
        return_attention: bool. Default False. Affects the returned values only, neither weights nor config.
        attention_offset: tensor of the shape of the probabilities that is added to them, or `None`, the default.

    Returns:
        Tensor of the shape of `tokens`; with `return_attention` a pair with the attention probabilities
        `(batch, num_heads, tokens, tokens)`.

    Source: Dosovitskiy et al., arXiv:2010.11929, equations 2 and 3; post-norm: Vaswani et al., arXiv:1706.03762.
    """

    def __init__(
        self,
        num_heads,
        mlp_dim,
        activation="gelu",
        norm_placement="pre",
        dropout_rate=0.0,
        attention_dropout_rate=0.0,
        drop_path_rate=0.0,
        layer_scale_init=None,
        qk_norm=False,
        layer_norm_epsilon=1e-6,
        qkv_bias=True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.input_spec = keras.layers.InputSpec(ndim=3)  # tokens (batch, tokens, hidden_dim)
        self.num_heads = num_heads
        self.mlp_dim = mlp_dim
        self.activation = activation
        self.norm_placement = check_choice(norm_placement, ("pre", "post"), "norm_placement")
        self.dropout_rate = dropout_rate
        self.attention_dropout_rate = attention_dropout_rate
        self.drop_path_rate = drop_path_rate
        self.layer_scale_init = layer_scale_init
        self.qk_norm = qk_norm
        self.layer_norm_epsilon = layer_norm_epsilon
        self.qkv_bias = qkv_bias
        policy = self.dtype_policy
        self.attention = MultiHeadSelfAttention(
            num_heads,
            dropout_rate,
            attention_dropout_rate,
            qk_norm,
            layer_norm_epsilon,
            qkv_bias,
            dtype=policy,
            name="attention",
        )
        self.mlp = MLP(mlp_dim, activation, dropout_rate, dtype=policy, name="mlp")
        self.attention_norm, self.mlp_norm = (
            LayerNormalization(epsilon=layer_norm_epsilon, dtype=policy, name=name)
            for name in ("attention_norm", "mlp_norm")
        )
        self.attention_drop_path, self.mlp_drop_path = (
            make_drop_path(self, name, drop_path_rate) for name in ("attention_drop_path", "mlp_drop_path")
        )
        if layer_scale_init is not None:
            self.attention_scale, self.mlp_scale = (
                LayerScale(layer_scale_init, dtype=policy, name=name) for name in ("attention_scale", "mlp_scale")
            )

    def build(self, input_shape):
        for layer in (self.attention_norm, self.attention, self.mlp_norm, self.mlp):
            layer.build(input_shape)
        if self.layer_scale_init is not None:
            self.attention_scale.build(input_shape)
            self.mlp_scale.build(input_shape)

    def call(self, tokens, training=False, return_attention=False, attention_offset=None):
        is_pre_norm = self.norm_placement == "pre"
        x = self.attention_norm(tokens) if is_pre_norm else tokens
        options = {"training": training, "return_attention": return_attention}
        if attention_offset is not None:
            options["attention_offset"] = attention_offset
        x = self.attention(x, **options)
        x, probabilities = x if return_attention else (x, None)
        tokens = tokens + self.attention_drop_path(self._scale(x, "attention_scale"), training=training)
        tokens = tokens if is_pre_norm else self.attention_norm(tokens)

        x = self.mlp(self.mlp_norm(tokens) if is_pre_norm else tokens, training=training)
        tokens = tokens + self.mlp_drop_path(self._scale(x, "mlp_scale"), training=training)
        tokens = tokens if is_pre_norm else self.mlp_norm(tokens)
        return (tokens, probabilities) if return_attention else tokens

    def _scale(self, x, name):
        return x if self.layer_scale_init is None else getattr(self, name)(x)

    def compute_output_spec(self, tokens, training=False, return_attention=False, attention_offset=None):
        return attention_output_spec(tokens, self.num_heads, self.compute_dtype, return_attention)

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "mlp_dim": self.mlp_dim,
            "activation": self.activation,
            "norm_placement": self.norm_placement,
            "dropout_rate": self.dropout_rate,
            "attention_dropout_rate": self.attention_dropout_rate,
            "drop_path_rate": self.drop_path_rate,
            "layer_scale_init": self.layer_scale_init,
            "qk_norm": self.qk_norm,
            "layer_norm_epsilon": self.layer_norm_epsilon,
            "qkv_bias": self.qkv_bias,
        }
