"""Operations on large images as programs of XLA, which read every pixel once instead of once an operation."""

import functools
import math

import tensorflow as tf

SMALL = 96**2  # pixels of an image


def is_small(size):
    """Whether an image of `(height, width)` pixels fits into the processor's nearest cache, so that calls cost most."""
    return math.prod(size) <= SMALL


def compiled(function):
    """Compiles a function of uint8 images `(..., height, width, channels)`, for large ones of known shape.

    An image of a photograph's size then takes a third of the time. Small ones, and batches whose number of images
    changes, would wait for compilers more than they win. A product that is added to something needs `rounded`.

    Args:
        function: `(images, ...) -> tensor`. Other arguments that are no tensors are constants of the program.

    Returns:
        A function of the same arguments.
    """
    program = tf.function(function, jit_compile=True, autograph=False)

    @functools.wraps(function)
    def call(images, *arguments):
        images = tf.convert_to_tensor(images)
        known = images.shape.is_fully_defined() and not is_small(images.shape[-3:-1])
        return program(images, *arguments) if known else function(images, *arguments)

    return call


def rounded(products):
    """Floating-point products, 1e6 at most, rounded before they are added, as TensorFlow and Pillow do it.

    XLA rounds a product and a sum that follows it only once. Whatever stands between the two keeps it from that.
    """
    return tf.minimum(products, 1e6)
