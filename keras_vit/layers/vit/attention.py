"""Multi-head self-attention."""

import math

import keras
from keras import ops

from keras_vit.backend.ops import flash_attention, project_from_heads, project_to_heads, softmax
from keras_vit.layers.core.composite import CompositeLayer
from keras_vit.layers.core.dense import make_dense, make_qkv
from keras_vit.layers.core.dropout import Dropout, make_dropout
from keras_vit.layers.core.normalization import LayerNormalization
from keras_vit.validation import check_heads, check_positive


def attention(
    query,
    key,
    value,
    bias=None,
    logit_scale=None,
    dropout=None,
    training=False,
    return_attention=False,
    attention_offset=None,
):
    """Computes `softmax(query @ key^T) @ value`, the softmax in float32.

    Args:
        query: tensor `(batch, heads, queries, head_dim)`, scaled by `1 / sqrt(head_dim)`: that costs less than scaling
            the larger logits, and keeps them in the range of float16.
        key, value: tensors `(batch, heads, keys, head_dim)`.
        bias: float32 tensor `(windows, heads, queries, keys)` that is added to the logits, or `None`. The batch is then
            one of images times windows.
        logit_scale: float32 tensor `(heads, 1, 1)` that multiplies the logits before the bias is added, or `None`.
        dropout: `Dropout` of the probabilities, or `None`.
        training: bool.
        return_attention: bool. Default False.
        attention_offset: tensor of the shape of the probabilities that is added to them, or `None`. Zeros change
            nothing, and the gradient with respect to them is that with respect to the probabilities.

    Returns:
        Tensor `(batch, heads, queries, head_dim)`, and the probabilities before dropout
        `(batch, heads, queries, keys)`, which may be `None` unless `return_attention`.
    """
    drops = training and isinstance(dropout, Dropout) and dropout.rate > 0
    if bias is None and not drops and not return_attention and attention_offset is None:
        outputs = flash_attention(query, key, value)
        if outputs is not None:
            return outputs, None
    logits = ops.matmul(query, ops.swapaxes(key, -1, -2))  # TensorFlow folds the transposition into the product
    if bias is not None:
        logits = _add_bias(logits, bias, logit_scale)
    probabilities = softmax(logits, value.dtype)
    if attention_offset is not None:
        probabilities = probabilities + ops.cast(attention_offset, probabilities.dtype)
    weights = dropout(probabilities, training=True) if drops else probabilities
    return ops.matmul(weights, value), probabilities


def _add_bias(logits, bias, scale):
    """`logits * scale + bias` in float32, with a bias that every image shares."""
    logits = ops.cast(logits, "float32")
    logits = logits if scale is None else logits * scale
    logits = ops.reshape(logits, (-1, *bias.shape)) + bias
    return ops.reshape(logits, (-1, *bias.shape[1:]))


def attention_output_spec(tokens, num_heads, dtype, return_attention):
    """Returns the symbolic output of self-attention on `tokens`, on request with the probabilities."""
    outputs = keras.KerasTensor(tokens.shape, dtype=dtype)
    if not return_attention:
        return outputs
    batch, length, _ = tokens.shape
    return outputs, keras.KerasTensor((batch, num_heads, length, length), dtype=dtype)


@keras.saving.register_keras_serializable(package="keras_vit")
class MultiHeadSelfAttention(CompositeLayer):
    """Self-attention with one projection to queries, keys and values.

    Its kernel `(hidden_dim, 3 * hidden_dim)` holds queries, keys, values in this order, each with its heads side by
    side.

    Args:
        num_heads: int. Divides the width.
        dropout_rate: float in [0, 1). After the output projection. Default 0.
        attention_dropout_rate: float in [0, 1). On the probabilities. Default 0.
        qk_norm: bool. Whether queries and keys are layer-normalized in each head. Default False.
        layer_norm_epsilon: float. Of these norms. Default 1e-6.
        qkv_bias: bool. Whether queries, keys and values have a bias. Default True.

    Call arguments:
        inputs: tensor `(batch, tokens, hidden_dim)`.
        training: bool.
        return_attention: bool. Default False.
        attention_offset: as for `attention`. Default `None`.

    Returns:
        Tensor `(batch, tokens, hidden_dim)`; with `return_attention` a pair with the probabilities
        `(batch, num_heads, tokens, tokens)`.

    Source: Vaswani et al., arXiv:1706.03762, section 3.2; QK-norm: Dehghani et al., arXiv:2302.05442.
    """

    def __init__(
        self,
        num_heads,
        dropout_rate=0.0,
        attention_dropout_rate=0.0,
        qk_norm=False,
        layer_norm_epsilon=1e-6,
        qkv_bias=True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.input_spec = keras.layers.InputSpec(ndim=3)  # tokens (batch, tokens, hidden_dim)
        self.num_heads = check_positive(num_heads, "num_heads")
        self.dropout_rate = dropout_rate
        self.attention_dropout_rate = attention_dropout_rate
        self.qk_norm = qk_norm
        self.layer_norm_epsilon = layer_norm_epsilon
        self.qkv_bias = qkv_bias
        self.dropout = make_dropout(self, "dropout", dropout_rate)
        self.attention_dropout = make_dropout(self, "attention_dropout", attention_dropout_rate)

    def build(self, input_shape):
        hidden_dim = input_shape[-1]
        check_heads(hidden_dim, self.num_heads)
        self.qkv = make_qkv(self, hidden_dim, self.qkv_bias)
        self.projection = make_dense(self, "projection", hidden_dim)
        self.projection.build(input_shape)
        if self.qk_norm:
            self.query_norm, self.key_norm = (
                LayerNormalization(epsilon=self.layer_norm_epsilon, dtype=self.dtype_policy, name=name)
                for name in ("query_norm", "key_norm")
            )
            for norm in (self.query_norm, self.key_norm):
                norm.build((None, self.num_heads, None, hidden_dim // self.num_heads))

    def call(self, inputs, training=False, return_attention=False, attention_offset=None):
        scale = 1 / math.sqrt(inputs.shape[-1] // self.num_heads)
        if self.qk_norm:
            query, key, value = project_to_heads(self.qkv, inputs, self.num_heads, (1, 1, 1))
            query, key = self.query_norm(query) * scale, self.key_norm(key)
        else:
            query, key, value = project_to_heads(self.qkv, inputs, self.num_heads, (scale, 1, 1))
        options = {"dropout": self.attention_dropout, "training": training, "return_attention": return_attention}
        options["attention_offset"] = attention_offset
        outputs, probabilities = attention(query, key, value, **options)
        outputs = self.dropout(project_from_heads(self.projection, outputs), training=training)
        return (outputs, probabilities) if return_attention else outputs

    def compute_output_spec(self, inputs, training=False, return_attention=False, attention_offset=None):
        return attention_output_spec(inputs, self.num_heads, self.compute_dtype, return_attention)

    def get_config(self):
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "dropout_rate": self.dropout_rate,
            "attention_dropout_rate": self.attention_dropout_rate,
            "qk_norm": self.qk_norm,
            "layer_norm_epsilon": self.layer_norm_epsilon,
            "qkv_bias": self.qkv_bias,
        }
