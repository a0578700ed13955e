"""Training on a CPU with small XLA programs between TensorFlow's matrix products."""

import contextlib
import contextvars
import functools
import math

import keras

_fusing = contextvars.ContextVar("fusing", default=False)


@contextlib.contextmanager
def fused_training(active=True):
    """Inside it, models that are traced for training run their element-wise parts as small XLA programs.

    TensorFlow on a CPU multiplies matrices faster than XLA does, but passes over memory once for every
    element-wise operation; so the products stay TensorFlow's, and layer norms, biases with GELU and the update of
    the optimizer become one pass each. Values and gradients are those of the plain operations up to rounding.
    Without effect on other backends; on several replicas only in models that `keras_vit.distribution.prepare` knows.

    Only for `fit`: TF Serving refuses such programs inside a SavedModel.

    Args:
        active: bool. False: inside it they do not, as without it. Default True.
    """
    token = _fusing.set(active and keras.backend.backend() == "tensorflow")
    try:
        yield
    finally:
        _fusing.reset(token)


def fuses():
    """bool. Whether the code runs inside `fused_training` on TensorFlow."""
    return _fusing.get()


def fused(function):
    """`function`, from tensors to tensors or variables to update, as one XLA program."""
    import tensorflow as tf

    return tf.function(function, jit_compile=True, autograph=False)


def fused_layer_norm(x, gamma, beta, epsilon):
    """Layer norm over the last axis with its own gradient: one program forward, one back."""
    return _layer_norm_programs()(x, gamma, beta, epsilon)


def fused_bias_gelu(x, bias):
    """`gelu(x + bias)`, exact, of a matrix of rows, with its own gradient: one program forward, one back."""
    return _bias_gelu_programs()(x, bias)


def fused_bias(x, bias):
    """`x + bias` of a matrix of rows, with its own gradient: in bfloat16 one program, in float32 TensorFlow's."""
    return _bias_programs()(x, bias)


def fused_heads(x, bias, scales, length, num_heads):
    """`(x + bias) * scales` of a matrix of rows, cut into queries, keys and values and these into heads.

    One program forward, one back, where TensorFlow passes over memory once for the bias, the scales, every cut and
    every transposition.

    Args:
        x: tensor `(batch * length, 3 * width)`, queries, keys and values side by side.
        bias: tensor `(3 * width,)`.
        scales: float32 array `(3 * width,)`, constants.
        length: int or scalar tensor, tokens of an image.
        num_heads: int.

    Returns:
        Three tensors `(batch, num_heads, length, width / num_heads)`.
    """
    return _heads_programs()(x, bias, scales, length, num_heads)


def fused_softmax(logits, dtype):
    """The softmax of logits in float32, as a tensor of another dtype, with its own gradient."""
    return _softmax_programs()(logits, dtype)


def _column_sums(rows):
    """Sums over the rows of a matrix, as a product, which is the fastest way in TensorFlow and XLA."""
    import tensorflow as tf

    return tf.matmul(tf.ones([1, tf.shape(rows)[0]], rows.dtype), rows)[0]


@functools.cache
def _layer_norm_programs():
    import tensorflow as tf

    def row_means(rows):
        width = rows.shape[-1]
        return tf.matmul(rows, tf.fill([width, 1], 1.0 / width))

    def as_rows(x):
        return tf.cast(tf.reshape(x, (-1, x.shape[-1])), "float32")

    @fused
    def forward(x, gamma, beta, epsilon):
        rows = as_rows(x)
        mean = row_means(rows)
        centered = rows - mean
        scale = tf.math.rsqrt(row_means(centered * centered) + epsilon)
        outputs = centered * scale * tf.cast(gamma, "float32") + tf.cast(beta, "float32")
        return tf.cast(tf.reshape(outputs, tf.shape(x)), x.dtype), mean, scale

    @fused
    def backward(x, gamma, mean, scale, upstream):
        normed, d_outputs = (as_rows(x) - mean) * scale, as_rows(upstream)
        d_normed = d_outputs * tf.cast(gamma, "float32")
        d_rows = scale * (d_normed - row_means(d_normed) - normed * row_means(d_normed * normed))
        return tf.cast(tf.reshape(d_rows, tf.shape(x)), x.dtype), tf.cast(d_outputs * normed, x.dtype)

    def layer_norm(x, gamma, beta, epsilon):
        @tf.custom_gradient
        def apply(x, gamma, beta):
            outputs, mean, scale = forward(x, gamma, beta, epsilon)

            def gradient(upstream):
                d_x, d_gammas = backward(x, gamma, mean, scale, upstream)
                # Outside: TensorFlow sums columns faster, and those of bfloat16 faster still.
                d_betas = tf.reshape(upstream, (-1, x.shape[-1]))
                return d_x, *(tf.cast(_column_sums(rows), gamma.dtype) for rows in (d_gammas, d_betas))

            return outputs, gradient

        return apply(*(tf.convert_to_tensor(tensor) for tensor in (x, gamma, beta)))

    return layer_norm


@functools.cache
def _bias_gelu_programs():
    import tensorflow as tf

    def shifted(x, bias):
        x = tf.cast(x, "float32") + tf.cast(bias, "float32")
        scaled = x * math.sqrt(0.5)
        return x, scaled, 0.5 * (1.0 + tf.math.erf(scaled))

    @fused
    def forward(x, bias):
        wide, _, probability = shifted(x, bias)
        return tf.cast(probability * wide, x.dtype)

    @fused
    def backward(x, bias, upstream):
        _, scaled, probability = shifted(x, bias)
        slope = probability + scaled * (tf.exp(-scaled * scaled) / math.sqrt(math.pi))
        return tf.cast(tf.cast(upstream, "float32") * slope, x.dtype)

    @tf.custom_gradient
    def apply(x, bias):
        def gradient(upstream):
            d_x = backward(x, bias, upstream)
            return d_x, tf.cast(_column_sums(d_x), bias.dtype)

        return forward(x, bias), gradient

    return lambda x, bias: apply(tf.convert_to_tensor(x), tf.convert_to_tensor(bias))


@functools.cache
def _bias_programs():
    import tensorflow as tf

    @fused
    def forward(x, bias):
        return tf.cast(tf.cast(x, "float32") + tf.cast(bias, "float32"), x.dtype)

    @tf.custom_gradient
    def apply(x, bias):
        def gradient(upstream):
            return upstream, tf.cast(_column_sums(upstream), bias.dtype)

        # In float32 oneDNN adds the bias while it writes the product, if the two follow each other.
        outputs = tf.nn.bias_add(x, bias) if x.dtype == tf.float32 else forward(x, bias)
        return outputs, gradient

    return lambda x, bias: apply(tf.convert_to_tensor(x), tf.convert_to_tensor(bias))


@functools.cache
def _heads_programs():
    import tensorflow as tf

    @fused
    def forward(x, bias, scales, lengths, heads):
        x = tf.cast((tf.cast(x, "float32") + tf.cast(bias, "float32")) * scales, x.dtype)
        (length,), (num_heads,) = lengths.shape, heads.shape
        x = tf.reshape(x, (-1, length, 3, num_heads, x.shape[-1] // (3 * num_heads)))
        return tf.unstack(tf.transpose(x, (2, 0, 3, 1, 4)))

    @fused
    def backward(upstream, scales):
        x = tf.transpose(tf.stack(upstream), (1, 3, 0, 2, 4))
        x = tf.reshape(x, (-1, scales.shape[0]))
        return tf.cast(tf.cast(x, "float32") * scales, x.dtype)

    def cut(x, bias, scales, length, num_heads):
        constants = tf.constant(scales, "float32")
        # XLA must know these numbers when it compiles, so they come as shapes.
        lengths, heads = tf.zeros([length]), tf.zeros([num_heads])

        @tf.custom_gradient
        def apply(x, bias):
            def gradient(*upstream):
                d_x = backward(upstream, constants)
                return d_x, tf.cast(_column_sums(d_x), bias.dtype)

            return forward(x, bias, constants, lengths, heads), gradient

        return apply(tf.convert_to_tensor(x), tf.convert_to_tensor(bias))

    return cut


@functools.cache
def _softmax_programs():
    import tensorflow as tf

    @fused
    def backward(attention, upstream, kind):
        keys = attention.shape[-1] or tf.shape(attention)[-1]
        wide, upstream = tf.cast(attention, "float32"), tf.cast(upstream, "float32")
        # XLA on a CPU multiplies by a vector of ones faster than it sums rows.
        mean = tf.matmul(wide * upstream, tf.ones([keys, 1]))
        return tf.cast(wide * (upstream - mean), kind.dtype)

    def softmax(logits, dtype):
        @tf.custom_gradient
        def apply(logits):
            attention = tf.cast(tf.nn.softmax(tf.cast(logits, "float32")), dtype)
            kind = tf.zeros([], logits.dtype)
            return attention, lambda upstream: backward(attention, upstream, kind)

        return apply(tf.convert_to_tensor(logits))

    return softmax
