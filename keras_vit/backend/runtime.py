"""Properties of the active backend that `keras.ops` does not expose.

Modules of `keras_vit.backend` may import TensorFlow, JAX or PyTorch, and only inside functions that have checked which
of them is active.
"""

import sys

import keras
import numpy as np


def replica_id():
    """Returns the number of the `tf.distribute` replica that runs this code: int or scalar tensor.

    It is 0 outside a strategy, and on the JAX and PyTorch backends, which have no such replicas (JAX shards one global
    program).
    """
    if keras.backend.backend() != "tensorflow":
        return 0
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return 0 if context is None else context.replica_id_in_sync_group


def has_flash_attention():
    """bool. Whether `keras.ops.dot_product_attention` runs a fused kernel on the active backend.

    PyTorch has `scaled_dot_product_attention`, JAX has cuDNN's flash attention on a GPU. On TensorFlow the operation is
    a composition of einsums, slower than the one of this library (`benchmarks/results`). The same is true of JAX on a
    CPU, where it does not compile in float16 either.
    """
    if keras.backend.backend() == "jax":
        import jax

        return jax.default_backend() != "cpu"
    return keras.backend.backend() == "torch"


def prefers_separate_bias(dtype):
    """bool. Whether a matrix product and its bias are faster as two operations than as one.

    TensorFlow on a CPU fuses them into oneDNN's inner product, which does not use AMX in bfloat16: (16384, 192) by
    (192, 576) takes three times as long as the product followed by the bias.
    """
    return dtype == "bfloat16" and keras.backend.backend() == "tensorflow"


def remat_redraws_dropout():
    """bool. Whether dropout draws another mask when `keras.remat` computes a layer again: on TensorFlow."""
    return keras.backend.backend() == "tensorflow"


def is_foreign_tensor(value):
    """bool. Whether a value is a tensor of TensorFlow, PyTorch or JAX while Keras runs on another of them.

    An example are tensors inside `tf.data` on the JAX and PyTorch backends. No library is imported to find out.
    """
    return _library(value) in ("tensorflow", "torch", "jax") and not keras.ops.is_tensor(value)


def foreign_float32(value, *constants):
    """Casts a tensor of another library than the active backend's, and converts constants to its library.

    Args:
        value: tensor for which `is_foreign_tensor` is true; symbolic or not.
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
    """The name of the package that defines a value's class; JAX' compiled part counts as JAX."""
    return type(value).__module__.partition(".")[0].replace("jaxlib", "jax")
