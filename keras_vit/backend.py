"""What `keras.ops` cannot tell, asked of the active backend, lazily.

The only file under the pure rooms that may import a backend, and only inside a function that has
checked which one is active.
"""

import contextlib
import contextvars
import functools
import math

import keras

_fusing = contextvars.ContextVar("fusing", default=False)


def replica_id():
    """The number of the `tf.distribute` replica that runs this code: int or scalar tensor, 0 outside a strategy.

    On the JAX and PyTorch backends there are no replicas in this sense (JAX shards one global program)
    and the answer is 0.
    """
    if keras.backend.backend() != "tensorflow":
        return 0
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return 0 if context is None else context.replica_id_in_sync_group


def has_fused_attention():
    """Whether `keras.ops.dot_product_attention` reaches a fused kernel on the active backend.

    PyTorch has `scaled_dot_product_attention`, JAX cuDNN's flash attention on a GPU. On TensorFlow the op is a
    plain composition of einsums, and the library's own is faster (`benchmarks/results`); so it is with JAX on a
    CPU, where the op moreover cannot be compiled in float16.
    """
    if keras.backend.backend() == "jax":
        import jax

        return jax.default_backend() != "cpu"
    return keras.backend.backend() == "torch"


@contextlib.contextmanager
def fused_training():
    """Inside it, models that are traced for training run their element-wise parts as small XLA programs.

    TensorFlow on a CPU multiplies matrices faster than XLA does, but passes over memory once for every
    element-wise operation; so the products stay TensorFlow's, and layer norms, biases with GELU and the update of
    the optimizer become one pass each. Values and gradients are those of the plain operations up to rounding.
    Without effect on other backends and in the threads of a `tf.distribute` strategy.

    Only for `fit`: TF Serving refuses such programs inside a SavedModel.
    """
    token = _fusing.set(keras.backend.backend() == "tensorflow")
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


def _column_sums(rows):
    """Sums over the rows of a matrix, as a product: XLA on a CPU reduces slower than it multiplies."""
    import tensorflow as tf

    return tf.linalg.matvec(rows, tf.ones([tf.shape(rows)[0]], rows.dtype), transpose_a=True)


@functools.cache
def _layer_norm_programs():
    import tensorflow as tf

    def row_means(rows):
        width = rows.shape[-1]
        return tf.matmul(rows, tf.fill([width, 1], 1.0 / width))

    def normalize(x, epsilon):
        rows = tf.cast(tf.reshape(x, (-1, x.shape[-1])), "float32")
        centered = rows - row_means(rows)
        scale = tf.math.rsqrt(row_means(centered * centered) + epsilon)
        return centered * scale, scale

    @fused
    def forward(x, gamma, beta, epsilon):
        normed, _ = normalize(x, epsilon)
        outputs = normed * tf.cast(gamma, "float32") + tf.cast(beta, "float32")
        return tf.cast(tf.reshape(outputs, tf.shape(x)), x.dtype)

    @fused
    def backward(x, gamma, epsilon, upstream):
        normed, scale = normalize(x, epsilon)
        upstream = tf.cast(tf.reshape(upstream, tf.shape(normed)), "float32")
        d_normed = upstream * tf.cast(gamma, "float32")
        d_rows = scale * (d_normed - row_means(d_normed) - normed * row_means(d_normed * normed))
        d_gamma, d_beta = _column_sums(upstream * normed), _column_sums(upstream)
        return (
            tf.cast(tf.reshape(d_rows, tf.shape(x)), x.dtype),
            tf.cast(d_gamma, gamma.dtype),
            tf.cast(d_beta, gamma.dtype),
        )

    def layer_norm(x, gamma, beta, epsilon):
        @tf.custom_gradient
        def apply(x, gamma, beta):
            return forward(x, gamma, beta, epsilon), lambda upstream: backward(x, gamma, epsilon, upstream)

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
        d_x = tf.cast(upstream, "float32") * slope
        return tf.cast(d_x, x.dtype), tf.cast(_column_sums(d_x), bias.dtype)

    @tf.custom_gradient
    def apply(x, bias):
        return forward(x, bias), lambda upstream: backward(x, bias, upstream)

    return lambda x, bias: apply(tf.convert_to_tensor(x), tf.convert_to_tensor(bias))
