"""Geometric operations on uint8 images as Pillow computes them: bilinear or bicubic, in float64, truncated.

The order of every sum is Pillow's, since truncation makes a rounding error of 1e-14 a whole level where an
interpolated value is a whole number. Pillow evaluates one polynomial a pixel and tap; here the polynomials'
coefficients are made for the whole image first (whole numbers) and then looked up at the pixels' sources.
"""

import functools
import math

import numpy as np
import tensorflow as tf

# The polynomial between two pixels: for each power, the weights of the pixels from the first to the last it depends on.
_POWERS = {
    "bilinear": np.array([[1, 0], [-1, 1]]),
    "bicubic": np.array([[0, 1, 0, 0], [-1, 0, 1, 0], [2, -2, 1, -1], [-1, 1, -1, 1]]),
}
INTERPOLATIONS = tuple(_POWERS)
_COLUMNS, _ROWS = 1, 2  # the axis of a batch along which they run


def _of_images(operation):
    """Lets an operation of images `(batch, height, width, channels)` and amounts `(batch, 1, 1)` take one of them."""

    @functools.wraps(operation)
    def apply(image, amount, fill, interpolation):
        amount = tf.reshape(_double(amount), (-1, 1, 1))
        if len(image.shape) == 4:
            amount = tf.broadcast_to(amount, (tf.shape(image)[0], 1, 1))
            return operation(image, amount, fill, interpolation)
        return operation(image[None], amount, fill, interpolation)[0]

    return apply


@_of_images
def rotate(image, degrees, fill, interpolation):
    """Turns an image about its centre, counterclockwise.

    Args:
        image: uint8 `(height, width, channels)`, or a batch of them.
        degrees: float scalar; of a batch also `(batch,)`, one an image.
        fill: sequence of ints, one a channel. The colour that moves in.
        interpolation: `bilinear` or `bicubic`.

    Returns:
        uint8 of the same shape.

    Source: Pillow `Image.rotate`.
    """
    # Pillow takes the angle from 0 to 360: sine and cosine then differ in the last bit.
    angle = -tf.math.floormod(degrees, 360) * (math.pi / 180)
    cos, sin = (tf.round(f(angle) * 1e15) / 1e15 for f in (tf.cos, tf.sin))
    center_y, center_x = (tf.cast(size, tf.float64) / 2 for size in _size(image))
    offset_x = cos * -center_x + sin * -center_y + center_x
    offset_y = -sin * -center_x + cos * -center_y + center_y
    y, x = _grid(image)
    return _sample_plane(image, cos * x + sin * y + offset_x, -sin * x + cos * y + offset_y, fill, interpolation)


@_of_images
def shear_x(image, factor, fill, interpolation):
    """Moves every row by `factor` pixels for each pixel down: output x reads x + factor * y. Arguments as `rotate`."""
    y, x = _grid(image)
    return _sample_lines(image, x + factor * y, fill, interpolation, _ROWS)


@_of_images
def shear_y(image, factor, fill, interpolation):
    """As `shear_x`, of columns."""
    y, x = _grid(image)
    return _sample_lines(image, y + factor * x, fill, interpolation, _COLUMNS)


@_of_images
def translate_x(image, pixels, fill, interpolation):
    """Moves an image `pixels` (float) to the left. Arguments as `rotate`."""
    _, x = _grid(image)
    sources = tf.repeat(x + pixels, _size(image)[0], axis=1)
    return _sample_lines(image, sources, fill, interpolation, _ROWS)


@_of_images
def translate_y(image, pixels, fill, interpolation):
    """Moves an image `pixels` (float) up."""
    y, _ = _grid(image)
    sources = tf.repeat(y + pixels, _size(image)[1], axis=2)
    return _sample_lines(image, sources, fill, interpolation, _COLUMNS)


def _double(value):
    """A Python number as it is; `tf.cast` would first round it to float32."""
    return tf.cast(value, tf.float64) if tf.is_tensor(value) else tf.constant(value, tf.float64)


def _size(image):
    """`(height, width)`, known when the graph is built where the shape is."""
    dynamic = tf.shape(image)
    return tuple(image.shape[axis] or dynamic[axis] for axis in (1, 2))


def _grid(image):
    """Centres of the pixels: float64 `(height, 1)` and `(1, width)`."""
    y, x = (tf.cast(tf.range(size), tf.float64) + 0.5 for size in _size(image))
    return y[:, None], x[None]


def _polynomials(images, fill, interpolation, axis):
    """Coefficients of the interpolating polynomials of every row or column, lowest power first.

    Returns:
        int16 `(batch * (height + 1) * (width + 1), powers * channels)`. Of rows, element `(i, y, x)` holds between the
        centres of pixels `x - 1` and `x`; beyond the edge the last pixel goes on. The last row is `fill` everywhere,
        where the polynomials are of columns the last column.
    """
    batch, (height, width), channels = tf.shape(images)[0], _size(images), images.shape[-1]
    powers = _POWERS[interpolation]
    taps = len(powers)
    if axis == _ROWS:
        first, last, beside = images[:, :, :1], images[:, :, -1:], (batch, 1, width + taps, channels)
    else:
        first, last, beside = images[:, :1], images[:, -1:], (batch, height + taps, 1, channels)
    padded = tf.concat([first] * (taps // 2) + [images] + [last] * (taps // 2), axis)
    beside = tf.broadcast_to(tf.constant(fill, tf.uint8, (channels,)), beside)
    padded = tf.concat([padded, beside], _ROWS + _COLUMNS - axis)
    # `powers` holds, for every power, the weights of the neighbouring pixels; the same for each channel.
    kernel = np.einsum("pt,cd->tcpd", powers, np.eye(channels)).astype("float32")
    kernel = kernel.reshape(*((1, taps) if axis == _ROWS else (taps, 1)), channels, -1)
    coefficients = tf.nn.conv2d(tf.cast(padded, tf.float32), kernel, 1, "VALID")
    return tf.reshape(tf.cast(coefficients, tf.int16), (-1, taps * channels))


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
    """`(batch, height, width)` to `(pixels, channels)`: later sums then need no broadcast, which is slow."""
    return tf.tile(tf.reshape(values, (-1, 1)), (1, channels))


def _starts(images):
    """int32 `(batch, 1, 1)`: where in `_polynomials` every image begins."""
    height, width = _size(images)
    return ((height + 1) * (width + 1) * tf.range(tf.shape(images)[0]))[:, None, None]


def _sample_lines(images, sources, fill, interpolation, axis):
    """Reads every pixel `(i, y, x)` at `(i, y, sources[i, y, x])`, or at `(i, sources[i, y, x], x)` for columns."""
    (height, width), channels = _size(images), images.shape[-1]
    before, distance = _split(sources)
    inside = (sources >= 0) & (sources < tf.cast((height, width)[axis - 1], tf.float64))
    if axis == _ROWS:
        places, outside = (width + 1) * tf.range(height)[:, None] + before + 1, height * (width + 1)
    else:
        places, outside = (width + 1) * (before + 1) + tf.range(width), width
    index = tf.where(inside, places + _starts(images), outside)
    found = tf.gather(_polynomials(images, fill, interpolation, axis), tf.reshape(index, [-1]))
    return _finish(_evaluate(found, _per_channel(distance, channels)), images)


def _sample_plane(images, sources_x, sources_y, fill, interpolation):
    """Reads every pixel at `(sources_y, sources_x)`: first along the rows around it, then between them."""
    (height, width), channels = _size(images), images.shape[-1]
    (left, distance_x), (above, distance_y) = _split(sources_x), _split(sources_y)
    distance_x, distance_y = (_per_channel(d, channels) for d in (distance_x, distance_y))
    inside = (sources_x >= 0) & (sources_x < tf.cast(width, tf.float64))
    inside &= (sources_y >= 0) & (sources_y < tf.cast(height, tf.float64))
    polynomials, first = _polynomials(images, fill, interpolation, _ROWS), _starts(images) + left + 1

    def along_row(number):
        index = tf.clip_by_value(above + number, 0, height - 1) * (width + 1) + first
        index = tf.where(inside, index, height * (width + 1))
        return _evaluate(tf.gather(polynomials, tf.reshape(index, [-1])), distance_x)

    if interpolation == "bilinear":
        v1, v2 = along_row(0), along_row(1)
        return _finish(v1 + (v2 - v1) * distance_y, images)
    v1, v2, v3, v4 = (along_row(number) for number in (-1, 0, 1, 2))
    square, cube = 2 * (v1 - v2) + v3 - v4, -v1 + v2 - v3 + v4
    return _finish(v2 + distance_y * ((v3 - v1) + distance_y * (square + distance_y * cube)), images)


def _finish(values, images):
    """Clipped and truncated to uint8, in the shape of the images."""
    return tf.reshape(tf.cast(tf.clip_by_value(values, 0, 255), tf.uint8), tf.shape(images))
