"""Masks of segmentation: from the bytes of a file to the label of every pixel."""

import io

import numpy as np
import tensorflow as tf
from PIL import Image

from keras_vit.image_ops.pillow_reader import DAMAGED, FORMAT, UnreadableImage

_MODES = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")
# Of a gray PNG of less than 8 bits, whose values Pillow stretches to 0 .. 255.
_PNG, _BIT_DEPTH = b"\x89PNG\r\n\x1a\n", slice(24, 26)


def read_mask(data):
    """Reads the labels of a mask.

    Args:
        data: bytes of an image file. Of a palette image the labels are the numbers of the colors, of a gray one (1 to
            16 bits) its values.

    Returns:
        int32 array `(height, width)`.

    Raises:
        UnreadableImage: if the file is damaged or has colors instead of labels.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            mode, pixels = image.mode, np.asarray(image)
    except Exception as error:  # Pillow names no errors of damaged files, which come from many modules.
        raise UnreadableImage(str(error).partition(" <")[0] or type(error).__name__, DAMAGED) from error
    if mode not in _MODES:
        raise UnreadableImage(f"a mask must be a gray or a palette image, not one of mode {mode}", FORMAT)
    pixels = pixels.astype("int32")
    depth, color = data[_BIT_DEPTH] if data.startswith(_PNG) else (8, 0)
    if color == 0 and mode == "L" and depth < 8:
        pixels //= 255 // (2**depth - 1)
    return pixels


def decode_mask(data):
    """Decodes a mask in a graph.

    Args:
        data: scalar string tensor.

    Returns:
        int32 tensor `(height, width)`.

    Raises:
        InvalidArgumentError: when it runs, as `read_mask`.
    """
    mask = tf.numpy_function(read_mask, [data], tf.int32)
    return tf.ensure_shape(mask, (None, None))
