"""What `keras.ops` cannot tell, asked of the active backend, lazily.

This file and `fused.py` alone, under the pure rooms, may import a backend, and only inside a function that has checked
which one is active.
"""

import contextlib

import keras


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


def splits_bias(dtype):
    """Whether a product of matrices and its bias are better two operations than one in a dtype.

    TensorFlow on a CPU fuses them into oneDNN's inner product, which in bfloat16 leaves AMX unused: of (16384, 192) by
    (192, 576) it takes three times as long as the product and the bias one after the other.
    """
    return dtype == "bfloat16" and keras.backend.backend() == "tensorflow"


@contextlib.contextmanager
def quick_variables():
    """Inside it TensorFlow names a variable by its last name alone: `kernel`, not `encoder_block_0/mlp/fc1/kernel`.

    Creating a variable is an operation of which TensorFlow prepares one kernel for every name and shape, half a
    millisecond each: a third of what a Swin-B takes. The paths of Keras' variables, which files go by, are as ever.
    """
    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    def create(next_creator, name=None, **arguments):
        # A name that ends so is taken as it is, without the scopes around it.
        return next_creator(name=name and name.rstrip("/") + "/", **arguments)

    with tf.variable_creator_scope(create):
        yield
