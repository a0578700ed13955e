"""`InputSpec` as graph operations: from pixels of any size to those of a model."""

import numpy as np
import tensorflow as tf

METHODS = {"nearest": "nearest", "bilinear": "bilinear", "bicubic": "bicubic", "lanczos": "lanczos3"}
# Their names in `ScaleAndTranslate`, and how many pixels they reach to each side.
KERNELS = {"bilinear": ("triangle", 1), "bicubic": ("keyscubic", 2), "lanczos": ("lanczos3", 3)}
_LUMA = (19595, 38470, 7471)  # Pillow's weights of red, green and blue in gray


def resize(image, input_spec):
    """Resizes and crops as `InputSpec.resize`, antialiased, rounded to whole pixels.

    Args:
        image: uint8 tensor `(height, width, channels)`, or a batch of them. The channels are those of the model, or
            gray or RGB for a model of the other.
        input_spec: `InputSpec`.

    Returns:
        float32 tensor `(*input_spec.size, input_spec.num_channels)`, or a batch of them, pixels 0 to 255.
    """
    pixels = whole_pixels(fit_channels(resample(image, input_spec), input_spec.num_channels))
    return tf.ensure_shape(pixels, (*image.shape[:-3], *input_spec.size, input_spec.num_channels))


def fit_channels(pixels, num_channels):
    """Gray pixels for a model of RGB, or the reverse, as `PIL.Image.convert` makes them but not rounded; or the same.

    Args:
        pixels: tensor `(..., channels)`.
        num_channels: int.

    Returns:
        Tensor `(..., num_channels)`.
    """
    if pixels.shape[-1] is None:
        raise ValueError(f"the number of channels must be known when a graph is built. Received: {pixels.shape}")
    if pixels.shape[-1] == num_channels:
        return pixels
    if pixels.shape[-1] == 1:
        return tf.repeat(pixels, num_channels, -1)
    return tf.tensordot(tf.cast(pixels, tf.float32), tf.constant(_LUMA, tf.float32) / 65536, 1)[..., None]


def whole_pixels(pixels):
    """Pixels of any kind as whole numbers from 0 to 255, float32; halves go up, as in Pillow."""
    return tf.clip_by_value(tf.floor(tf.cast(pixels, tf.float32) + 0.5), 0.0, 255.0)


def resample(image, input_spec):
    """The values that `resize` rounds, of any number of channels.

    Only what lies inside the crop is computed, of the pixels that it depends on alone: an image of one row and
    thousands of columns, which would grow to millions of columns before its crop, costs no more than any other.

    Args:
        image: tensor `(height, width, channels)` or `(batch, height, width, channels)`.
        input_spec: `InputSpec`.

    Returns:
        Tensor `(*input_spec.size, channels)`, or a batch of them: float32, or of the type of `image` where the
        interpolation is `nearest`.
    """
    if len(image.shape) == 3:
        return resample(image[None], input_spec)[0]
    size = tf.shape(image)[1:3]
    resized = _resized_size(size, input_spec)
    # Python's and TensorFlow's `round` both go to the even neighbor.
    first = tf.round(tf.cast(resized - input_spec.size, tf.float64) / 2)
    if input_spec.interpolation == "nearest":
        rows, columns = (_nearest(first, size, resized, input_spec.size, axis) for axis in (0, 1))
        return tf.gather(tf.gather(image, rows, axis=1), columns, axis=2)
    # Pixels of the image to one of the resized image.
    ratio = tf.cast(size, tf.float64) / tf.cast(resized, tf.float64)
    _, radius = KERNELS[input_spec.interpolation]
    reach = radius * tf.maximum(ratio, 1) + 1
    low = tf.cast(tf.maximum(tf.floor(first * ratio - reach), 0), tf.int32)
    high = tf.minimum(tf.cast(tf.math.ceil((first + input_spec.size) * ratio + reach), tf.int32), size)
    scale = 1 / ratio
    translation = tf.cast(low, tf.float64) * scale - first
    return _two_passes(image[:, low[0] : high[0], low[1] : high[1]], scale, translation, input_spec)


def _two_passes(images, scale, translation, input_spec):
    """Columns, then rows, with whole pixels between, as Pillow does it: what overshoots at an edge is cut twice.

    Pillow 13 begins with the rows where an image shrinks by more than twice as many rows as columns.
    """
    kernel, _ = KERNELS[input_spec.interpolation]
    (height, width), channels, shape = input_spec.size, images.shape[-1], tf.shape(images)

    def resized_rows(images, size, axis):
        """Of images with one column, whose channels are whole rows: the fast direction of the operation."""
        return tf.raw_ops.ScaleAndTranslate(
            images=images,
            size=(size, 1),
            scale=tf.stack([tf.cast(scale[axis], tf.float32), 1.0]),
            translation=tf.stack([tf.cast(translation[axis], tf.float32), 0.0]),
            kernel_type=kernel,
            antialias=True,
        )

    columns = tf.reshape(tf.transpose(images, (0, 2, 1, 3)), (shape[0], shape[2], 1, shape[1] * channels))
    columns = tf.cast(whole_pixels(resized_rows(columns, width, 1)), tf.uint8)
    columns = tf.reshape(columns, (shape[0], width, shape[1], channels))
    rows = tf.reshape(tf.transpose(columns, (0, 2, 1, 3)), (shape[0], shape[1], 1, width * channels))
    return tf.reshape(resized_rows(rows, height, 0), (-1, height, width, channels))


def _nearest(first, size, resized, count, axis):
    """Indexes of the pixels of one axis nearest to `count` resized ones from `first` on; exact, in integers."""
    first, size, resized = (tf.cast(sides[axis], tf.int64) for sides in (first, size, resized))
    return (2 * (first + tf.range(count[axis], dtype=tf.int64)) + 1) * size // (2 * resized)


def normalize(images, input_spec):
    """`InputSpec.normalize` of a batch as one multiplication and one addition of whole rows.

    The same numbers, channel by channel, take four times as long: TensorFlow broadcasts three numbers slowly.

    Args:
        images: tensor `(batch, *input_spec.size, channels)`, pixels 0 to 255.
        input_spec: `InputSpec`.

    Returns:
        float32 tensor of the same shape.
    """
    width = input_spec.size[1]
    scale, shift = (np.tile(values, width) for values in input_spec.scale_and_shift)
    rows = tf.reshape(tf.cast(images, tf.float32), (-1, len(scale)))
    rows = rows * tf.constant(scale, tf.float32) - tf.constant(shift, tf.float32)
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
