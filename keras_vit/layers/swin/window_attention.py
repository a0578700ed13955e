"""Self-attention inside windows, with a bias for every relative position."""

import math

import keras
from keras import ops

from keras_vit.backend.ops import project_from_heads, project_to_heads
from keras_vit.backend.skip_init import skippable
from keras_vit.layers.core.composite import MAX_CONSTANT_BYTES, CompositeLayer
from keras_vit.layers.core.dense import make_dense, make_qkv
from keras_vit.layers.core.dropout import make_dropout
from keras_vit.layers.swin.windows import log_coordinates, relative_position_index, token_offsets
from keras_vit.layers.vit.attention import attention, attention_output_spec
from keras_vit.validation import as_pair, check_choice, check_heads, check_positive

# Width inside the network that computes biases from coordinates; the same in every published model.
_CPB_DIM = 512
_MAX_LOGIT_SCALE = math.log(100)


def unit_vectors(x):
    """Scales vectors along the last axis to length one, in float32; zero stays zero and has a zero gradient."""
    x = ops.cast(x, "float32")
    squares = ops.sum(x * x, axis=-1, keepdims=True)
    # Padding has keys of zero, where the gradient of a plain quotient exceeds the range of float16. A quotient instead
    # of rsqrt, as in PyTorch: at a scale of 100 the last digits of a cosine affect the logits.
    return ops.where(squares > 1e-24, x / ops.sqrt(ops.maximum(squares, 1e-24)), 0.0)


@keras.saving.register_keras_serializable(package="keras_vit")
class WindowAttention(CompositeLayer):
    """Multi-head self-attention of the tokens of one window.

    Version 1 adds a learned table of biases to the scaled dot products. Version 2 uses cosines, scaled by a learned
    factor of at most 100 a head, and computes the table with a small network from log-spaced coordinates, so that
    weights of one window fit another; its keys have no bias.

    Args:
        num_heads: int. Divides the width.
        window_size: int or `(h, w)`, tokens.
        version: 1 or 2. Default 1.
        pretrained_window_size: int, `(h, w)` or `None`. Version 2: the window that the weights were trained
            with, which is the unit of the coordinates. Default `None`: `window_size`.
        qkv_bias: bool. Whether queries, keys (version 1) and values have a bias. Default True.
        dropout_rate: float in [0, 1). After the output projection. Default 0.
        attention_dropout_rate: float in [0, 1). On the probabilities. Default 0.

    Call arguments:
        inputs: tensor `(batch * windows, h * w, hidden_dim)`, the windows of an image side by side.
        window_mask: float32 tensor `(windows, h * w, h * w)` that is added to the logits, or `None`.
        training: bool.
        return_attention: bool. Default False.

    Returns:
        Tensor of the shape of `inputs`; with `return_attention` a pair with the probabilities
        `(batch * windows, num_heads, h * w, h * w)`.

    Source: Liu et al., arXiv:2103.14030, equation 4 (version 1), and arXiv:2111.09883, section 3 (version 2).
    """

    def __init__(
        self,
        num_heads,
        window_size,
        version=1,
        pretrained_window_size=None,
        qkv_bias=True,
        dropout_rate=0.0,
        attention_dropout_rate=0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_heads = check_positive(num_heads, "num_heads")
        self.window_size = as_pair(window_size, "window_size")
        self.version = check_choice(version, (1, 2), "version")
        pretrained = pretrained_window_size
        self.pretrained_window_size = None if pretrained is None else as_pair(pretrained, "pretrained_window_size")
        if version == 1 and pretrained is not None:
            raise ValueError(f"pretrained_window_size needs version=2. Received: pretrained_window_size={pretrained}")
        self.qkv_bias = qkv_bias
        self.dropout_rate = dropout_rate
        self.attention_dropout_rate = attention_dropout_rate
        self.input_spec = keras.layers.InputSpec(ndim=3, axes={1: math.prod(self.window_size)})
        self.dropout = make_dropout(self, "dropout", dropout_rate)
        self.attention_dropout = make_dropout(self, "attention_dropout", attention_dropout_rate)

    def build(self, input_shape):
        hidden_dim = input_shape[-1]
        check_heads(hidden_dim, self.num_heads)
        self.qkv = make_qkv(self, hidden_dim, use_bias=self.qkv_bias and self.version == 1)
        self.projection = make_dense(self, "projection", hidden_dim)
        self.projection.build(input_shape)
        self._index = relative_position_index(self.window_size)
        if self.version == 1:
            self._build_version_1()
        else:
            self._build_version_2(hidden_dim)

    def _build_version_1(self):
        height, width = self.window_size
        # Biases are added to float32 logits, so they are not rounded to the compute dtype.
        self.relative_position_bias_table = self.add_weight(
            name="relative_position_bias_table",
            shape=((2 * height - 1) * (2 * width - 1), self.num_heads),
            initializer=skippable(keras.initializers.TruncatedNormal(stddev=0.02)),
            autocast=False,
        )

    def _build_version_2(self, hidden_dim):
        scale = keras.initializers.Constant(math.log(10))
        self.logit_scale = self.add_weight(
            name="logit_scale", shape=(self.num_heads, 1, 1), initializer=scale, autocast=False
        )
        if self.qkv_bias:
            self.query_bias, self.value_bias = (
                self.add_weight(name=name, shape=(hidden_dim,), initializer="zeros")
                for name in ("query_bias", "value_bias")
            )
        # Weights instead of dense layers: no dtype policy or quantization may round these few numbers.
        normal = keras.initializers.TruncatedNormal(stddev=0.02)
        self.cpb_kernel_1, self.cpb_bias_1, self.cpb_kernel_2 = (
            self.add_weight(name=name, shape=shape, initializer=initializer, autocast=False)
            for name, shape, initializer in (
                ("cpb_kernel_1", (2, _CPB_DIM), normal.clone()),
                ("cpb_bias_1", (_CPB_DIM,), "zeros"),
                ("cpb_kernel_2", (_CPB_DIM, self.num_heads), normal.clone()),
            )
        )
        self._coordinates = log_coordinates(self.window_size, self.pretrained_window_size or self.window_size)

    def position_bias(self):
        """Returns the bias of every head and pair of tokens: float32 tensor `(num_heads, h * w, h * w)`."""
        if self.version == 1:
            table = self.relative_position_bias_table
        else:
            weights = (self.cpb_kernel_1, self.cpb_bias_1, self.cpb_kernel_2)
            kernel_1, bias_1, kernel_2 = (ops.cast(weight, "float32") for weight in weights)
            hidden = ops.relu(ops.matmul(self._coordinates, kernel_1) + bias_1)
            table = 16 * ops.sigmoid(ops.matmul(hidden, kernel_2))
        # Gathered along the second axis the gradient is a dense tensor, along the first it would be sparse.
        table = ops.transpose(ops.cast(table, "float32"))
        index = self._index
        if index.nbytes > MAX_CONSTANT_BYTES:
            offsets = token_offsets(self.window_size)
            index = ops.reshape(ops.subtract(offsets[:, None] + offsets[-1], offsets), -1)
        return ops.reshape(ops.take(table, index, axis=1), (self.num_heads, *2 * [math.prod(self.window_size)]))

    def _project(self, inputs):
        """Queries, keys and values in heads, and the factor of the logits, or `None`."""
        if self.version == 1:
            scale = 1 / math.sqrt(inputs.shape[-1] // self.num_heads)
            return *project_to_heads(self.qkv, inputs, self.num_heads, (scale, 1, 1)), None
        query, key, value = project_to_heads(self.qkv, inputs, self.num_heads, (1, 1, 1))
        if self.qkv_bias:
            shape = (self.num_heads, 1, -1)
            query, value = query + ops.reshape(self.query_bias, shape), value + ops.reshape(self.value_bias, shape)
        query, key = (ops.cast(unit_vectors(x), value.dtype) for x in (query, key))
        # Scales the cosines instead of the queries: rounded in the order of the public implementations.
        return query, key, value, ops.exp(ops.minimum(self.logit_scale, _MAX_LOGIT_SCALE))

    def call(self, inputs, window_mask=None, training=False, return_attention=False):
        query, key, value, logit_scale = self._project(inputs)
        bias = self.position_bias()[None]
        if window_mask is not None:
            # Once for all images: (windows, num_heads, tokens, tokens).
            bias = bias + ops.cast(window_mask, "float32")[:, None]
        options = {"dropout": self.attention_dropout, "training": training, "return_attention": return_attention}
        outputs, probabilities = attention(query, key, value, bias, logit_scale, **options)
        outputs = self.dropout(project_from_heads(self.projection, outputs), training=training)
        return (outputs, probabilities) if return_attention else outputs

    def compute_output_spec(self, inputs, window_mask=None, training=False, return_attention=False):
        return attention_output_spec(inputs, self.num_heads, self.compute_dtype, return_attention)

    def get_config(self):
        pretrained = self.pretrained_window_size
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "window_size": list(self.window_size),
            "version": self.version,
            "pretrained_window_size": None if pretrained is None else list(pretrained),
            "qkv_bias": self.qkv_bias,
            "dropout_rate": self.dropout_rate,
            "attention_dropout_rate": self.attention_dropout_rate,
        }
