"""Weight-only quantization."""

import contextlib

import keras
import tensorflow as tf

_MAX_INT8 = 127  # -128 is left out, so that the range is symmetric.


class QuantizedWeights:
    """The variables of a model as a SavedModel stores them.

    Inside `scope` the model computes with the dequantized weights. They are read and dequantized in every call: this
    saves space on the disk and in memory, and costs a little time.

    Args:
        model: `keras.Model`.
        dtype: `float32`: the model's own variables, untouched. `bfloat16`: all float32 weights of two and more
            dimensions, rounded. `int8`: the kernels of dense layers and convolutions, with a scale of the largest
            absolute value / 127 for each output channel (the last axis); all else stays float32.
    """

    def __init__(self, model, dtype):
        self._quantized = [
            (variable, _quantize(variable, dtype)) for variable in model.weights if _is_quantized(variable, dtype)
        ]

    def scope(self):
        """Returns a context in which the model uses the dequantized weights."""
        if not self._quantized:
            return contextlib.nullcontext()
        return keras.StatelessScope([(variable, _dequantize(*stored)) for variable, stored in self._quantized])


def _is_quantized(variable, dtype):
    if variable.dtype != "float32" or len(variable.shape) < 2:
        return False
    return dtype == "bfloat16" or (dtype == "int8" and variable.name == "kernel")


def _quantize(variable, dtype):
    """Returns the stored variables of a weight: values, and for int8 their scales."""
    value = tf.convert_to_tensor(variable.value)
    if dtype == "bfloat16":
        return (tf.Variable(tf.cast(value, tf.bfloat16), trainable=False, name=variable.name),)
    largest = tf.reduce_max(tf.abs(value), axis=list(range(len(value.shape) - 1)))
    scales = tf.where(largest > 0, largest, 1.0) / _MAX_INT8
    quantized = tf.cast(tf.round(value / scales), tf.int8)
    return (
        tf.Variable(quantized, trainable=False, name=variable.name),
        tf.Variable(scales, trainable=False, name=f"{variable.name}_steps"),
    )


def _dequantize(values, scales=None):
    """Returns the float32 tensor of stored values."""
    value = tf.cast(values, tf.float32)
    return value if scales is None else value * scales
