"""XLA programs that replace element-wise operations when TensorFlow trains on a CPU."""

import contextlib
import contextvars
import functools
import math

import keras
import numpy as np

_fused = contextvars.ContextVar("fused", default=False)


@contextlib.contextmanager
def fused_training(active=True):
    """Traces models for training with small XLA programs as their element-wise parts.

    TensorFlow on a CPU multiplies matrices faster than XLA does, but passes over memory once for every element-wise
    operation. So TensorFlow computes the products, and layer norms, biases with GELU and the update of the optimizer
    become one pass each. Values and gradients are those of the plain operations up to rounding. There is no effect on
    other backends; with several replicas, only in models prepared by `keras_vit.distribution.prepare`.

    Only for `fit`: TF Serving rejects such programs inside a SavedModel.

    Args:
        active: bool. `False` turns the programs off inside the context. Default True.
    """
    token = _fused.set(active and keras.backend.backend() == "tensorflow")
    try:
        yield
    finally:
        _fused.reset(token)


def is_fused():
    """bool. Whether the code runs inside `fused_training` on TensorFlow."""
    return _fused.get()


def xla_program(function):
    """Compiles a function, from tensors to tensors or variables to update, into one XLA program."""
    import tensorflow as tf

    return tf.function(function, jit_compile=True, autograph=False)


def layer_norm(x, gamma, beta, epsilon):
    """Computes a layer norm over the last axis, forward and backward in one program each."""
    return _layer_norm_programs()(x, gamma, beta, epsilon)


def bias_gelu(x, bias):
    """Computes the exact `gelu(x + bias)` of a matrix, forward and backward in one program each."""
    return _bias_gelu_programs()(x, bias)


def bias_add(x, bias):
    """Computes `x + bias` of a matrix: in bfloat16 in one program, in float32 with TensorFlow's own operation."""
    return _bias_add_programs()(x, bias)


def split_heads(x, bias, scales, length, num_heads):
    """Computes `(x + bias) * scale` of a matrix and splits it into queries, keys, values and these into heads.

    One program forward and one backward, where TensorFlow passes over memory once for the bias, the scales, every split
    and every transposition.

    Args:
        x: tensor `(batch * length, len(scales) * width)`, for example queries, keys and values side by side.
        bias: tensor `(len(scales) * width,)`.
        scales: tuple of floats. The factor of each resulting tensor.
        length: int or scalar tensor, tokens of an image.
        num_heads: int.

    Returns:
        List of `len(scales)` tensors `(batch, num_heads, length, width / num_heads)`.
    """
    return _split_heads_programs()(x, bias, scales, length, num_heads)


def softmax(logits, dtype):
    """Computes the softmax of logits in float32, with one program backward; the result has the dtype `dtype`."""
    return _softmax_programs()(logits, dtype)


def _column_sums(matrix):
    """Sums over the rows of a matrix, as a product, which is the fastest way in TensorFlow and XLA."""
    import tensorflow as tf

    return tf.matmul(tf.ones([1, tf.shape(matrix)[0]], matrix.dtype), matrix)[0]


@functools.cache
def _layer_norm_programs():
    import tensorflow as tf

    def row_means(matrix):
        width = matrix.shape[-1]
        return tf.matmul(matrix, tf.fill([width, 1], 1.0 / width))

    def as_matrix(x):
        return tf.cast(tf.reshape(x, (-1, x.shape[-1])), "float32")

    @xla_program
    def forward(x, gamma, beta, epsilon):
        matrix = as_matrix(x)
        mean = row_means(matrix)
        centered = matrix - mean
        scale = tf.math.rsqrt(row_means(centered * centered) + epsilon)
        outputs = centered * scale * tf.cast(gamma, "float32") + tf.cast(beta, "float32")
        return tf.cast(tf.reshape(outputs, tf.shape(x)), x.dtype), mean, scale

    @xla_program
    def backward(x, gamma, mean, scale, upstream):
        normed, d_outputs = (as_matrix(x) - mean) * scale, as_matrix(upstream)
        d_normed = d_outputs * tf.cast(gamma, "float32")
        d_x = scale * (d_normed - row_means(d_normed) - normed * row_means(d_normed * normed))
        return tf.cast(tf.reshape(d_x, tf.shape(x)), x.dtype), tf.cast(d_outputs * normed, x.dtype)

    def layer_norm(x, gamma, beta, epsilon):
        @tf.custom_gradient
        def apply(x, gamma, beta):
            outputs, mean, scale = forward(x, gamma, beta, epsilon)

            def gradient(upstream):
                d_x, d_gammas = backward(x, gamma, mean, scale, upstream)
                # Outside the program: TensorFlow sums columns faster, in bfloat16 even more so.
                d_betas = tf.reshape(upstream, (-1, x.shape[-1]))
                return d_x, *(tf.cast(_column_sums(matrix), gamma.dtype) for matrix in (d_gammas, d_betas))

            return outputs, gradient

        return apply(*(tf.convert_to_tensor(tensor) for tensor in (x, gamma, beta)))

    return layer_norm


@functools.cache
def _bias_gelu_programs():
    import tensorflow as tf

    def biased(x, bias):
        x = tf.cast(x, "float32") + tf.cast(bias, "float32")
        scaled = x * math.sqrt(0.5)
        return x, scaled, 0.5 * (1.0 + tf.math.erf(scaled))

    @xla_program
    def forward(x, bias):
        wide, _, probability = biased(x, bias)
        return tf.cast(probability * wide, x.dtype)

    @xla_program
    def backward(x, bias, upstream):
        _, scaled, probability = biased(x, bias)
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
def _bias_add_programs():
    import tensorflow as tf

    @xla_program
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
def _split_heads_programs():
    import tensorflow as tf

    @xla_program
    def forward(x, bias, factors, length_as_shape, heads_as_shape):
        (parts, width), (length,), (num_heads,) = factors.shape, length_as_shape.shape, heads_as_shape.shape
        x = tf.cast((tf.cast(x, "float32") + tf.cast(bias, "float32")) * tf.reshape(factors, [-1]), x.dtype)
        x = tf.reshape(x, (-1, length, parts, num_heads, width // num_heads))
        return tf.unstack(tf.transpose(x, (2, 0, 3, 1, 4)))

    @xla_program
    def backward(upstream, factors):
        x = tf.transpose(tf.stack(upstream), (1, 3, 0, 2, 4))
        x = tf.reshape(x, (-1, math.prod(factors.shape)))
        return tf.cast(tf.cast(x, "float32") * tf.reshape(factors, [-1]), x.dtype)

    def split_heads(x, bias, scales, length, num_heads):
        width = x.shape[-1] // len(scales)
        factors = tf.constant(np.repeat(np.array(scales, "float32")[:, None], width, axis=1))
        # XLA must know these numbers when it compiles, and it knows shapes.
        length_as_shape, heads_as_shape = tf.zeros([length]), tf.zeros([num_heads])

        @tf.custom_gradient
        def apply(x, bias):
            def gradient(*upstream):
                d_x = backward(upstream, factors)
                return d_x, tf.cast(_column_sums(d_x), bias.dtype)

            return forward(x, bias, factors, length_as_shape, heads_as_shape), gradient

        return apply(tf.convert_to_tensor(x), tf.convert_to_tensor(bias))

    return split_heads


@functools.cache
def _softmax_programs():
    import tensorflow as tf

    @xla_program
    def backward(probabilities, upstream, example):
        keys = probabilities.shape[-1] or tf.shape(probabilities)[-1]
        wide, upstream = tf.cast(probabilities, "float32"), tf.cast(upstream, "float32")
        # XLA on a CPU multiplies by a vector of ones faster than it sums rows.
        mean = tf.matmul(wide * upstream, tf.ones([keys, 1]))
        return tf.cast(wide * (upstream - mean), example.dtype)

    def softmax(logits, dtype):
        @tf.custom_gradient
        def apply(logits):
            probabilities = tf.cast(tf.nn.softmax(tf.cast(logits, "float32")), dtype)
            example = tf.zeros([], logits.dtype)  # carries the dtype of the gradient
            return probabilities, lambda upstream: backward(probabilities, upstream, example)

        return apply(tf.convert_to_tensor(logits))

    return softmax
