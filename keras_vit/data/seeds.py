"""Stateless seeds and shuffling: functions of the run's seed, the epoch and an example's number."""

import numpy as np
import tensorflow as tf

_MIX = (0x7FEB352D, 0x846CA68B)


def epoch_seed(seed, epoch):
    """Returns the seed of the order of an epoch, an int32 tensor `(2,)`."""
    return tf.stack([seed, tf.cast(epoch, tf.int32)])


def augmentation_seed(seed, epoch, number):
    """Returns the seed of the augmentation of a batch or example of an epoch, an int32 tensor `(2,)`."""
    return tf.random.fold_in(tf.stack([seed, 1 + tf.cast(epoch, tf.int32)]), number)


def shuffled(count, seed, epoch):
    """Shuffles the numbers below `count` for an epoch, an int32 tensor."""
    return tf.random.experimental.stateless_shuffle(tf.range(count), seed=epoch_seed(seed, epoch))


def repeated(order, repeats):
    """Repeats each number `repeats` times in a row, truncated to the original length.

    Source: facebookresearch/deit `samplers.py`, `RASampler`; Hoffer et al., "Augment your batch" (arXiv:1901.09335).
    """
    return order if repeats == 1 else tf.repeat(order, repeats)[: tf.shape(order)[0]]


def spread_repeats(batch_size, repeats):
    """Permutes the positions of a batch so that the copies of repeated augmentation are far apart.

    `RASampler` sends the copies to different devices. Adjacent in one batch, mixup would mix an image with itself.

    Returns:
        int32 array `(batch_size,)`, a permutation.
    """
    return np.argsort(np.arange(batch_size) % repeats, kind="stable").astype("int32")


def hashed(numbers):
    """Hashes numbers to [0, 2**32), to divide a stream at random.

    Args:
        numbers: int64 array or tensor, at least 0.

    Returns:
        The same type and shape. NumPy and TensorFlow agree.

    Source: Mueller's integer hash, the constants found by Wellons ("hash-prospector").
    """
    is_array = isinstance(numbers, np.ndarray)
    right, xor = (np.right_shift, np.bitwise_xor) if is_array else (tf.bitwise.right_shift, tf.bitwise.bitwise_xor)
    kind = numbers.dtype.type if is_array else (lambda value: tf.constant(value, numbers.dtype))
    numbers = (numbers + kind(0x9E3779B9)) % kind(2**32)
    for shift, factor in ((16, _MIX[0]), (15, _MIX[1])):
        numbers = xor(numbers, right(numbers, kind(shift)))
        numbers = numbers * kind(factor) % kind(2**32)
    return xor(numbers, right(numbers, kind(16)))
