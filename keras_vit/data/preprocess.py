"""`InputSpec` as graph operations: from encoded bytes to pixels of the model's size."""

import numpy as np
import tensorflow as tf

METHODS = {"nearest": "nearest", "bilinear": "bilinear", "bicubic": "bicubic", "lanczos": "lanczos3"}


def decode(data, num_channels):
    """Decodes one JPEG, PNG, BMP or GIF (its first frame).

    Args:
        data: scalar string tensor.
        num_channels: int, 1 or 3.

    Returns:
        uint8 tensor `(height, width, num_channels)`.
    """
    # Only this DCT gives the pixels that Pillow gives.
    image = tf.cond(
        tf.io.is_jpeg(data),
        lambda: tf.io.decode_jpeg(data, channels=num_channels, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_image(data, channels=num_channels, expand_animations=False),
    )
    return tf.ensure_shape(image, (None, None, num_channels))


def resize(image, input_spec):
    """Resizes and crops as `InputSpec.resize`, antialiased, rounded to whole pixels.

    Args:
        image: uint8 tensor `(height, width, channels)`.
        input_spec: `InputSpec`.

    Returns:
        float32 tensor `(*input_spec.size, channels)`, pixels 0 to 255.
    """
    height, width = input_spec.size
    size = _resized_size(tf.shape(image)[:2], input_spec)
    method = METHODS[input_spec.interpolation]
    resized = tf.image.resize(image, size, method=method, antialias=input_spec.interpolation != "nearest")
    resized = tf.clip_by_value(tf.round(tf.cast(resized, tf.float32)), 0.0, 255.0)
    # Python's and TensorFlow's `round` both go to the even neighbour.
    offset = tf.cast(tf.round(tf.cast(size - input_spec.size, tf.float32) / 2), tf.int32)
    image = tf.slice(resized, [offset[0], offset[1], 0], [height, width, -1])
    return tf.ensure_shape(image, (height, width, input_spec.num_channels))


def normalize(images, input_spec):
    """`InputSpec.normalize` of a batch as one multiplication and one addition of whole rows.

    The same formula, channel by channel, takes four times as long: TensorFlow broadcasts three numbers slowly.

    Args:
        images: tensor `(batch, *input_spec.size, channels)`, pixels 0 to 255.
        input_spec: `InputSpec`.

    Returns:
        float32 tensor of the same shape.
    """
    width = input_spec.size[1]
    mean, std = (np.tile(np.float64(values), width) for values in (input_spec.mean, input_spec.std))
    rows = tf.reshape(tf.cast(images, tf.float32), (-1, len(mean)))
    rows = rows * tf.constant(1 / (255 * std), tf.float32) - tf.constant(mean / std, tf.float32)
    return tf.reshape(rows, (-1, *input_spec.size, input_spec.num_channels))


def _resized_size(size, input_spec):
    """`InputSpec.resized_size` for a size that is known in the graph alone."""
    if input_spec.crop_fraction is None:
        return tf.constant(input_spec.size)
    target_h, target_w = (int(s / input_spec.crop_fraction) for s in input_spec.size)
    height, width = size[0], size[1]
    by_height = tf.stack([target_h, tf.maximum(target_h * width // height, target_w)])
    by_width = tf.stack([tf.maximum(target_w * height // width, target_h), target_w])
    return tf.where(height * target_w <= width * target_h, by_height, by_width)
