"""Multi-head self-attention, the heart of the library."""

import math

import keras
import numpy as np
from keras import ops

from keras_vit.backend.runtime import has_fused_attention
from keras_vit.backend.xla_kernels import fused_heads, fused_softmax, fuses
from keras_vit.layers.core.composite import CompositeLayer
from keras_vit.layers.core.dense import dense, has_bias, on_rows
from keras_vit.layers.core.dropout import Dropout, dropout
from keras_vit.layers.core.normalization import LayerNormalization
from keras_vit.validation import check_heads, check_positive


def attend(query, key, value, dropout=None, training=False, return_attention=False, scale=None, bias=None):
    """Scaled dot-product attention with the softmax in float32.

    Where the backend has a fused kernel, and nobody wants the probabilities or adds a bias, that kernel is used.

    Args:
        query: tensor `(batch, queries, heads, head_dim)`.
        key, value: tensors `(batch, keys, heads, head_dim)`.
        dropout: callable for the probabilities, such as a `Dropout`, or `None`.
        training: bool.
        return_attention: bool.
        scale: float, or `None`: `1 / sqrt(head_dim)`; or with a bias a float32 tensor `(heads, 1, 1)`, which multiplies
            the logits themselves.
        bias: float32 tensor `(windows, heads, queries, keys)` that is added to the logits, or `None`; the batch is
            then one of images times windows.

    Returns:
        Tensor `(batch, queries, heads, head_dim)`; with `return_attention` a pair with the probabilities
        `(batch, heads, queries, keys)`, before dropout.
    """
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    if has_fused_attention() and bias is None and not _drops(dropout, training) and not return_attention:
        return ops.dot_product_attention(query, key, value, scale=scale)
    # Scaling the queries costs less than scaling the larger logits, and keeps float16 in range.
    query, logit_scale = (query * scale, None) if isinstance(scale, float) else (query, scale)
    query, key, value = (ops.transpose(x, (0, 2, 1, 3)) for x in (query, key, value))
    return attend_in_heads(query, key, value, dropout, training, return_attention, logit_scale, bias)


def attend_in_heads(query, key, value, dropout, training, return_attention, logit_scale=None, bias=None):
    """As `attend`, of queries that are scaled already and with the heads in front.

    Args:
        query: tensor `(batch, heads, queries, head_dim)`.
        key, value: tensors `(batch, heads, keys, head_dim)`.
        dropout, training, return_attention, bias: as for `attend`.
        logit_scale: float32 tensor `(heads, 1, 1)` that multiplies the logits, only with a bias, or `None`.

    Returns:
        As `attend`: tensor `(batch, queries, heads, head_dim)`, or the pair.
    """
    # TensorFlow folds this second transpose into the product.
    logits = ops.matmul(query, ops.swapaxes(key, -1, -2))
    if bias is not None:
        logits = ops.cast(logits, "float32")
        logits = logits if logit_scale is None else logits * logit_scale
        logits = ops.reshape(logits, (-1, *bias.shape)) + bias
        logits = ops.reshape(logits, (-1, *bias.shape[1:]))
    if fuses():
        attention = fused_softmax(logits, value.dtype)
    else:
        attention = ops.cast(ops.softmax(ops.cast(logits, "float32"), axis=-1), value.dtype)
    weights = dropout(attention, training=training) if _drops(dropout, training) else attention
    outputs = ops.transpose(ops.matmul(weights, value), (0, 2, 1, 3))
    return (outputs, attention) if return_attention else outputs


def _drops(dropout, training):
    return isinstance(dropout, Dropout) and dropout.rate > 0 and training


def attend_to(inputs, qkv, num_heads, query_key_value, *how):
    """Self-attention of a fused projection, which `fused_training` makes heads of in one program.

    Args:
        inputs: tensor `(batch, tokens, width)`.
        qkv: dense layer of `3 * width` units: queries, keys, values, each with its heads side by side; `None` where
            more than the scale comes between them and the logits.
        num_heads: int.
        query_key_value: callable from `inputs` to what `attend` takes, for all other cases.
        how: the further arguments of `attend`.

    Returns:
        As `attend`.
    """
    if qkv is None or not fuses() or not has_bias(qkv):
        return attend(*query_key_value(inputs), *how)
    width = qkv.units // 3
    scales = np.repeat(np.array([math.sqrt(num_heads / width), 1, 1], "float32"), width)
    product = ops.matmul(rows(inputs), qkv.kernel)
    return attend_in_heads(*fused_heads(product, qkv.bias, scales, ops.shape(inputs)[1], num_heads), *how)


def attention_spec(tokens, num_heads, dtype, return_attention):
    """The symbolic output of self-attention on `tokens`, with the probabilities where they are wanted."""
    outputs = keras.KerasTensor(tokens.shape, dtype=dtype)
    if not return_attention:
        return outputs
    batch, length, _ = tokens.shape
    return outputs, keras.KerasTensor((batch, num_heads, length, length), dtype=dtype)


def rows(tokens):
    """`(batch, tokens, ...)` to the rows of one matrix: TensorFlow multiplies it in one kernel with its bias."""
    return ops.reshape(tokens, (-1, math.prod(tokens.shape[2:])))


def split_heads(rows, length, num_heads):
    """`(batch * length, width)` to `(batch, length, num_heads, width / num_heads)`."""
    return ops.reshape(rows, (-1, length, num_heads, rows.shape[-1] // num_heads))


@keras.saving.register_keras_serializable(package="keras_vit")
class MultiHeadSelfAttention(CompositeLayer):
    """Self-attention with one fused projection to queries, keys and values.

    The fused kernel `(hidden_dim, 3 * hidden_dim)` holds queries, keys, values in this order, each with its
    heads side by side. It is cut before the heads are split: a CPU trains faster on contiguous blocks than on
    slices of a `(3, batch, heads, ...)` tensor.

    Args:
        num_heads: int. Divides the width.
        dropout_rate: float in [0, 1). After the output projection. Default 0.
        attention_dropout_rate: float in [0, 1). On the probabilities. Default 0.
        qk_norm: bool. Whether queries and keys are layer-normalised in each head. Default False.
        layer_norm_epsilon: float. Of these norms. Default 1e-6.
        qkv_bias: bool. Whether queries, keys and values have a bias. Default True.

    Call arguments:
        inputs: tensor `(batch, tokens, hidden_dim)`.
        training: bool.
        return_attention: bool. Default False.

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
        self.dropout = dropout(self, "dropout", dropout_rate)
        self.attention_dropout = dropout(self, "attention_dropout", attention_dropout_rate)

    def build(self, input_shape):
        hidden_dim = input_shape[-1]
        check_heads(hidden_dim, self.num_heads)
        # Glorot's range for each of the three square blocks, not for the fused matrix.
        initializer = keras.initializers.VarianceScaling(2.0, mode="fan_avg", distribution="uniform")
        self.qkv = dense(self, "qkv", 3 * hidden_dim, initializer, use_bias=self.qkv_bias)
        self.projection = dense(self, "projection", hidden_dim)
        self.qkv.build(input_shape)
        self.projection.build(input_shape)
        if self.qk_norm:
            self.query_norm, self.key_norm = (
                LayerNormalization(epsilon=self.layer_norm_epsilon, dtype=self.dtype_policy, name=name)
                for name in ("query_norm", "key_norm")
            )
            for norm in (self.query_norm, self.key_norm):
                norm.build((None, None, self.num_heads, hidden_dim // self.num_heads))

    def call(self, inputs, training=False, return_attention=False):
        how = self._query_key_value, self.attention_dropout, training, return_attention
        outputs = attend_to(inputs, None if self.qk_norm else self.qkv, self.num_heads, *how)
        outputs, attention = outputs if return_attention else (outputs, None)
        outputs = ops.reshape(on_rows(self.projection, rows(outputs)), ops.shape(inputs))
        outputs = self.dropout(outputs, training=training)
        return (outputs, attention) if return_attention else outputs

    def _query_key_value(self, inputs):
        length = ops.shape(inputs)[1]
        fused = ops.split(on_rows(self.qkv, rows(inputs)), 3, axis=-1)
        query, key, value = (split_heads(part, length, self.num_heads) for part in fused)
        if self.qk_norm:
            query, key = self.query_norm(query), self.key_norm(key)
        return query, key, value

    def compute_output_spec(self, inputs, training=False, return_attention=False):
        return attention_spec(inputs, self.num_heads, self.compute_dtype, return_attention)

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
