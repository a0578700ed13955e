"""XLA compilation of operations on large images, which then read every pixel once."""

import functools
import math

import tensorflow as tf

_SMALL = 96**2  # pixels of an image


def is_small(size):
    """Returns whether an image of `(height, width)` pixels fits into the first-level cache, so that calls dominate."""
    return math.prod(size) <= _SMALL


def compiled(function):
    """Compiles a function of uint8 images `(..., height, width, channels)`, for large ones of known shape.

    There is one program a shape, which TensorFlow keeps; small images, and batches in graphs whose number of images is
    not known, are changed as ever. What must have the bits of Pillow needs `rounded` where a product is added to
    something, and divides by no constant: XLA multiplies by its reciprocal.

    Args:
        function: `(images, ...) -> tensor`. Other arguments that are neither tensors nor floats are constants of the
            program: there is one for each of their values too.

    Returns:
        A function of the same arguments, by position.
    """
    program = tf.function(function, jit_compile=True, autograph=False)

    @functools.wraps(function)
    def call(images, *arguments):
        images = tf.convert_to_tensor(images)
        if not images.shape.is_fully_defined() or is_small(images.shape[-3:-1]):
            return function(images, *arguments)
        return program(images, *(tf.constant(a) if isinstance(a, float) else a for a in arguments))

    return call


def rounded(products):
    """Floating-point products, 1e6 at most, rounded before they are added, as TensorFlow and Pillow do it.

    XLA rounds a product and a sum that follows it only once. A minimum between the two, which never acts, keeps it from
    that.
    """
    return tf.minimum(products, 1e6)
