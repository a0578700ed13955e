"""Geometric operations on uint8 images as Pillow computes them: bilinear or bicubic, in float64, truncated.

The order of every sum is Pillow's, since truncation makes a rounding error of 1e-14 a whole level where an
interpolated value is a whole number. Pillow evaluates one polynomial a pixel and tap; here the polynomials'
coefficients are made for the whole image first (whole numbers) and then looked up at the pixels' sources.
"""

import math

import numpy as np
import tensorflow as tf

# The polynomial between two pixels: for each power, the weights of the pixels from the first to the last it depends on.
_POWERS = {
    "bilinear": np.array([[1, 0], [-1, 1]]),
    "bicubic": np.array([[0, 1, 0, 0], [-1, 0, 1, 0], [2, -2, 1, -1], [-1, 1, -1, 1]]),
}
INTERPOLATIONS = tuple(_POWERS)


def rotate(image, degrees, fill, interpolation):
    """Turns an image about its centre, counterclockwise.

    Args:
        image: uint8 `(height, width, channels)`.
        degrees: float scalar.
        fill: sequence of ints, one a channel. The colour that moves in.
        interpolation: `bilinear` or `bicubic`.

    Returns:
        uint8 of the same shape.

    Source: Pillow `Image.rotate`.
    """
    # Pillow takes the angle from 0 to 360: sine and cosine then differ in the last bit.
    angle = -tf.math.floormod(_double(degrees), 360) * (math.pi / 180)
    cos, sin = (tf.round(f(angle) * 1e15) / 1e15 for f in (tf.cos, tf.sin))
    center_y, center_x = (tf.cast(size, tf.float64) / 2 for size in _size(image))
    offset_x = cos * -center_x + sin * -center_y + center_x
    offset_y = -sin * -center_x + cos * -center_y + center_y
    y, x = _grid(image)
    return _sample_plane(image, cos * x + sin * y + offset_x, -sin * x + cos * y + offset_y, fill, interpolation)


def shear_x(image, factor, fill, interpolation):
    """Moves every row by `factor` pixels for each pixel down: output x reads x + factor * y. Arguments as `rotate`."""
    y, x = _grid(image)
    return _sample_rows(image, x + _double(factor) * y, fill, interpolation)


def shear_y(image, factor, fill, interpolation):
    """As `shear_x`, of columns."""
    return _turned(shear_x, image, factor, fill, interpolation)


def translate_x(image, pixels, fill, interpolation):
    """Moves an image `pixels` (float) to the left. Arguments as `rotate`."""
    _, x = _grid(image)
    sources = tf.broadcast_to(x + _double(pixels), _size(image))
    return _sample_rows(image, sources, fill, interpolation)


def translate_y(image, pixels, fill, interpolation):
    """Moves an image `pixels` (float) up."""
    return _turned(translate_x, image, pixels, fill, interpolation)


def _turned(operation, image, amount, fill, interpolation):
    turned = operation(tf.transpose(image, (1, 0, 2)), amount, fill, interpolation)
    return tf.transpose(turned, (1, 0, 2))


def _double(value):
    """A Python number as it is; `tf.cast` would first round it to float32."""
    return tf.cast(value, tf.float64) if tf.is_tensor(value) else tf.constant(value, tf.float64)


def _size(image):
    """`(height, width)`, known when the graph is built where the shape is."""
    dynamic = tf.shape(image)
    return tuple(known or dynamic[axis] for axis, known in enumerate(image.shape[:2]))


def _grid(image):
    """Centres of the pixels: float64 `(height, 1)` and `(1, width)`."""
    y, x = (tf.cast(tf.range(size), tf.float64) + 0.5 for size in _size(image))
    return y[:, None], x[None]


def _polynomials(image, fill, interpolation):
    """Coefficients of the interpolating polynomials of every row, lowest power first.

    Returns:
        int16 `((height + 1) * (width + 1), powers * channels)`. Element `(y, x)` holds between the
        centres of pixels `x - 1` and `x`; beyond the edge the last pixel goes on. The last row is `fill` everywhere.
    """
    width, channels = _size(image)[1], image.shape[-1]
    powers = _POWERS[interpolation]
    first, last = image[:, :1], image[:, -1:]
    beyond = len(powers) // 2
    padded = tf.concat([first] * beyond + [image] + [last] * beyond, 1)
    below = tf.broadcast_to(tf.constant(fill, tf.uint8, (channels,)), (1, width + 2 * beyond, channels))
    padded = tf.cast(tf.concat([padded, below], 0), tf.float32)
    # `powers` holds, for every power, the weights of the neighbouring pixels; the same for each channel.
    kernel = np.einsum("pt,cd->tcpd", powers, np.eye(channels)).reshape(1, len(powers), channels, -1)
    coefficients = tf.nn.conv2d(padded[None], kernel.astype("float32"), 1, "VALID")
    return tf.reshape(tf.cast(coefficients, tf.int16), (-1, len(powers) * channels))


def _evaluate(coefficients, distance):
    """float64 `(pixels, channels)`: the polynomials `(pixels, powers * channels)` at `distance`, by Horner's rule."""
    powers = coefficients.shape[-1] // distance.shape[-1]
    *parts, value = (tf.cast(part, tf.float64) for part in tf.split(coefficients, powers, axis=1))
    for part in reversed(parts):
        value = part + distance * value
    return value


def _split(sources):
    """The pixel centre before each source coordinate, int32, and the distance from it, float64."""
    shifted = sources - 0.5
    before = tf.floor(shifted)
    return tf.cast(before, tf.int32), shifted - before


def _per_channel(values, channels):
    """`(height, width)` to `(height * width, channels)`: later sums then need no broadcast, which is slow."""
    return tf.tile(tf.reshape(values, (-1, 1)), (1, channels))


def _sample_rows(image, sources, fill, interpolation):
    """Reads every pixel `(y, x)` at `(y, sources[y, x])`."""
    (height, width), channels = _size(image), image.shape[-1]
    before, distance = _split(sources)
    inside = (sources >= 0) & (sources < tf.cast(width, tf.float64))
    index = tf.where(inside, before + 1 + (width + 1) * tf.range(height)[:, None], height * (width + 1))
    found = tf.gather(_polynomials(image, fill, interpolation), tf.reshape(index, [-1]))
    return _finish(_evaluate(found, _per_channel(distance, channels)), image)


def _sample_plane(image, sources_x, sources_y, fill, interpolation):
    """Reads every pixel at `(sources_y, sources_x)`: first along the rows around it, then between them."""
    (height, width), channels = _size(image), image.shape[-1]
    (left, distance_x), (above, distance_y) = _split(sources_x), _split(sources_y)
    distance_x, distance_y = (_per_channel(d, channels) for d in (distance_x, distance_y))
    inside = (sources_x >= 0) & (sources_x < tf.cast(width, tf.float64))
    inside &= (sources_y >= 0) & (sources_y < tf.cast(height, tf.float64))
    polynomials = _polynomials(image, fill, interpolation)

    def along_row(number):
        index = tf.clip_by_value(above + number, 0, height - 1) * (width + 1) + left + 1
        index = tf.where(inside, index, height * (width + 1))
        return _evaluate(tf.gather(polynomials, tf.reshape(index, [-1])), distance_x)

    if interpolation == "bilinear":
        v1, v2 = along_row(0), along_row(1)
        return _finish(v1 + (v2 - v1) * distance_y, image)
    v1, v2, v3, v4 = (along_row(number) for number in (-1, 0, 1, 2))
    square, cube = 2 * (v1 - v2) + v3 - v4, -v1 + v2 - v3 + v4
    return _finish(v2 + distance_y * ((v3 - v1) + distance_y * (square + distance_y * cube)), image)


def _finish(values, image):
    """Clipped and truncated to uint8, in the shape of the image."""
    return tf.reshape(tf.cast(tf.clip_by_value(values, 0, 255), tf.uint8), tf.shape(image))
