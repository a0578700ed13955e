"""What `keras.ops` cannot tell, asked of the active backend, lazily.

This file and `fused.py` alone, under the pure rooms, may import a backend, and only inside a function that has checked
which one is active.
"""

import contextlib
import sys

import keras
import numpy as np


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


def outermost_layer(layer):
    """The layer or model whose call the call of `layer` is part of, such as the model that `fit` trains.

    Keras has no public way to it; where the private one is gone the answer is `None`.
    """
    context = getattr(layer, "_get_call_context", None)
    return getattr(context() if context else None, "entry_layer", None)


def is_foreign_tensor(value):
    """Whether a value is a tensor of TensorFlow, PyTorch or JAX while Keras runs on another of them.

    So are the tensors inside `tf.data` on the JAX and PyTorch backends. No library is imported to find out.
    """
    return _library(value) in ("tensorflow", "torch", "jax") and not keras.ops.is_tensor(value)


def foreign_float32(value, *constants):
    """Casts a tensor of another library than the active backend's, and brings constants beside it.

    Args:
        value: tensor for which `is_foreign_tensor` holds; symbolic or not.
        *constants: sequences of floats.

    Returns:
        Tuple of float32 tensors of the same library: the value, then the constants.
    """
    library = _library(value)
    if library == "torch":
        value = value.float()
        return value, *(value.new_tensor(constant) for constant in constants)
    arrays = [np.asarray(constant, "float32") for constant in constants]
    value = sys.modules["tensorflow"].cast(value, "float32") if library == "tensorflow" else value.astype("float32")
    return value, *arrays


def to_numpy(value):
    """Copies a tensor of any library, an array or a list to a NumPy array.

    Args:
        value: tensor with values, array-like.

    Returns:
        NumPy array; bfloat16 as float32.
    """
    if _library(value) == "torch":
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
        return value.numpy()
    value = np.asarray(value) if is_foreign_tensor(value) else keras.ops.convert_to_numpy(value)
    return value.astype("float32") if value.dtype.name == "bfloat16" else value


def _library(value):
    """The name of the package that a value's class comes from, JAX' compiled part counted as JAX."""
    return type(value).__module__.partition(".")[0].replace("jaxlib", "jax")
