"""Image operations of TensorFlow's AutoAugment library (tensorflow/tpu, EfficientNet), the ones big_vision trains with.

They look like Pillow's and differ in their arithmetic: luma of `tf.image`, nearest neighbors, gray where
nothing is, and two accidents that published models were trained with, kept and named here. Only what differs is
here; the rest is in `operations`.

Source: big_vision `pp/autoaugment.py`, forked from tensorflow/tpu.
"""

import math

import tensorflow as tf

from keras_vit.data.augment.pillow_color import solarize as _solarize

FILL = 128


def solarize(image, threshold):
    """As Pillow's, but the threshold (int) is taken modulo 256.

    The library compares bytes with a Python number, which wraps: magnitude 10 means 256, so 0, and inverts the whole
    image (google-research/big_vision issue 110).
    """
    return _solarize(image, tf.math.floormod(threshold, 256))


def posterize(image, bits):
    """Drops the lower `8 - bits` bits; at most 7 and at least 0, which is how far TensorFlow shifts a byte."""
    shift = tf.cast(tf.clip_by_value(8 - bits, 0, 7), tf.uint8)
    return tf.bitwise.left_shift(tf.bitwise.right_shift(image, shift), shift)


def autocontrast(image):
    """Stretches every channel to 0 .. 255 in float32, where Pillow takes float64."""
    low, high = (tf.cast(reduce(image, axis=(0, 1)), tf.float32) for reduce in (tf.reduce_min, tf.reduce_max))
    scale = tf.where(high > low, 255.0 / tf.maximum(high - low, 1), 1)
    offset = tf.where(high > low, -low * scale, 0)
    return _to_bytes(tf.cast(image, tf.float32) * scale + offset)


def _to_bytes(pixels):
    return tf.cast(tf.clip_by_value(pixels, 0, 255), tf.uint8)


def _blend(degenerate, image, factor):
    degenerate, image = tf.cast(degenerate, tf.float32), tf.cast(image, tf.float32)
    # A factor of 0 or 1 gives these images exactly, so the library's shortcuts need no branch.
    return _to_bytes(degenerate + tf.cast(factor, tf.float32) * (image - degenerate))


def color(image, factor):
    """Saturation; the luma is `tf.image.rgb_to_grayscale`'s."""
    if image.shape[-1] == 1:
        return image
    return _blend(tf.image.rgb_to_grayscale(image), image, factor)


def contrast(image, factor):
    """Blends with a constant that should be the mean luma.

    The library sums the histogram instead of the luma: the constant is the number of pixels over 256, at most
    255 (196 for 224 x 224), whatever the image shows.
    """
    height, width = image.shape[:2]
    constant = math.floor(min(height * width / 256, 255))
    return _blend(float(constant), image, factor)


def brightness(image, factor):
    """Blends with black."""
    return _blend(0.0, image, factor)


def sharpness(image, factor):
    """As Pillow's, but the smoothed image is truncated, not rounded.

    Smoothed exactly: the library's float32 convolution ends one level lower where the sum is a multiple of 13.
    """
    pixels = tf.cast(image, tf.float32)
    rows = pixels[:-2] + pixels[1:-1] + pixels[2:]
    inner = pixels[1:-1, 1:-1]
    total = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4 * inner
    smooth = tf.floor(total / 13)
    middle = smooth + tf.cast(factor, tf.float32) * (inner - smooth)
    middle = tf.concat([pixels[1:-1, :1], middle, pixels[1:-1, -1:]], axis=1)
    return _to_bytes(tf.concat([pixels[:1], middle, pixels[-1:]], axis=0))


def transform(image, matrix):
    """Reads output pixel `(x, y)` at the pixel nearest to `(a x + b y + c, d x + e y + f)`; gray outside.

    Args:
        image: uint8 `(height, width, channels)`.
        matrix: six float scalars `a .. f`, between the indices of pixels.

    Returns:
        uint8 of the same shape.
    """
    row = tf.stack([tf.cast(value, tf.float32) for value in (*matrix, 0.0, 0.0)])
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=image[None],
        transforms=row[None],
        output_shape=list(image.shape[:2]),
        fill_value=float(FILL),
        interpolation="NEAREST",
        fill_mode="CONSTANT",
    )
    return moved[0]


def rotate(image, degrees):
    """Turns an image about its center, counterclockwise, to the nearest pixels."""
    angle = tf.cast(degrees, tf.float32) * (math.pi / 180)
    cos, sin = tf.cos(angle), tf.sin(angle)
    bottom, right = (size - 1.0 for size in image.shape[:2])
    offset_x = (right - (cos * right - sin * bottom)) / 2
    offset_y = (bottom - (sin * right + cos * bottom)) / 2
    return transform(image, (cos, -sin, offset_x, sin, cos, offset_y))


def cutout(image, half, uniform):
    """Grays a square of `2 * half` pixels about a point, cut at the border.

    Args:
        image: uint8 `(height, width, channels)`.
        half: int scalar.
        uniform: two floats in [0, 1) that choose the point, vertically and horizontally.

    Returns:
        uint8 of the same shape.
    """
    near = []
    for size, number in zip(image.shape[:2], uniform, strict=True):
        center = tf.cast(number * size, tf.int32)
        pixel = tf.range(size)
        near.append(tf.cast((pixel >= center - half) & (pixel < center + half), tf.uint8))
    square = near[0][:, None, None] * near[1][None, :, None]
    return image * (1 - square) + FILL * square
