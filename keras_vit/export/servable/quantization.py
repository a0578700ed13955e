"""Weights that lie on the disk in fewer bytes than a model computes with."""

import contextlib

import keras
import tensorflow as tf

STORAGE = ("float32", "bfloat16", "int8")
_LARGEST = 127  # of the signed numbers of 8 bits; -128 is left out, so that the range is symmetric


class StoredWeights:
    """The variables of a model as a SavedModel keeps them.

    Inside `scope` the model computes with what is read from them. So they are read, and made what they stand for, in
    every call: this saves space on the disk and in memory, and costs a little time.

    Args:
        model: `keras.Model`.
        storage: `float32`: the model's own variables, untouched. `bfloat16`: all float32 weights of two and more
            dimensions, rounded. `int8`: the kernels of dense layers and convolutions, each output channel (the last
            axis) in steps of its largest absolute value / 127; all else stays float32.
    """

    def __init__(self, model, storage):
        self._packed = [
            (variable, _pack(variable, storage)) for variable in model.weights if _is_packed(variable, storage)
        ]

    def scope(self):
        """A context in which the model takes its weights from here."""
        if not self._packed:
            return contextlib.nullcontext()
        return keras.StatelessScope([(variable, _unpack(*parts)) for variable, parts in self._packed])


def _is_packed(variable, storage):
    if variable.dtype != "float32" or len(variable.shape) < 2:
        return False
    return storage == "bfloat16" or (storage == "int8" and variable.name == "kernel")


def _pack(variable, storage):
    value = tf.convert_to_tensor(variable.value)
    if storage == "bfloat16":
        return (tf.Variable(tf.cast(value, tf.bfloat16), trainable=False, name=variable.name),)
    largest = tf.reduce_max(tf.abs(value), axis=list(range(len(value.shape) - 1)))
    steps = tf.where(largest > 0, largest, 1.0) / _LARGEST
    numbers = tf.cast(tf.round(value / steps), tf.int8)
    return (
        tf.Variable(numbers, trainable=False, name=variable.name),
        tf.Variable(steps, trainable=False, name=f"{variable.name}_steps"),
    )


def _unpack(numbers, steps=None):
    """The float32 tensor that stored numbers stand for."""
    value = tf.cast(numbers, tf.float32)
    return value if steps is None else value * steps
