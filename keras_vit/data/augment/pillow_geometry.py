"""Geometric operations on uint8 images as Pillow computes them: bilinear or bicubic, in float64, truncated.

The order of every sum is Pillow's, since truncation makes a rounding error of 1e-14 a whole level where an
interpolated value is a whole number.
"""

import functools
import math

import tensorflow as tf

from keras_vit.data.augment.xla import compiled, rounded

_TAPS = {"bilinear": (0, 1), "bicubic": (-1, 0, 1, 2)}  # pixels to look up, counted from the one before the source
INTERPOLATIONS = tuple(_TAPS)
_COLUMNS, _ROWS = 1, 2  # the axis of a batch along which they run


def _of_images(operation):
    """Lets an operation of images `(batch, height, width, channels)` and amounts `(batch, 1, 1)` take one of them."""

    @functools.wraps(operation)
    def apply(image, amount, fill, interpolation):
        amount, fill = tf.reshape(_double(amount), (-1, 1, 1)), tuple(int(value) for value in fill)
        if len(image.shape) == 4:
            amount = tf.broadcast_to(amount, (tf.shape(image)[0], 1, 1))
            return operation(image, amount, fill, interpolation)
        return operation(image[None], amount, fill, interpolation)[0]

    return apply


@_of_images
def rotate(image, degrees, fill, interpolation):
    """Turns an image about its center, counterclockwise.

    Args:
        image: uint8 `(height, width, channels)`, or a batch of them.
        degrees: float scalar; of a batch also `(batch,)`, one an image.
        fill: sequence of ints, one a channel. The color that moves in.
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
    terms_x, terms_y = (cos * x, sin * y, offset_x), (-sin * x, cos * y, offset_y)
    return _sample_plane(image, terms_x, terms_y, fill, interpolation)


@_of_images
def shear_x(image, factor, fill, interpolation):
    """Moves every row by `factor` pixels for each pixel down: output x reads x + factor * y. Arguments as `rotate`."""
    y, x = _grid(image)
    return _sample_lines(image, (x, factor * y), fill, interpolation, _ROWS)


@_of_images
def shear_y(image, factor, fill, interpolation):
    """As `shear_x`, of columns."""
    y, x = _grid(image)
    return _sample_lines(image, (y, factor * x), fill, interpolation, _COLUMNS)


@_of_images
def translate_x(image, pixels, fill, interpolation):
    """Moves an image `pixels` (float) to the left. Arguments as `rotate`."""
    _, x = _grid(image)
    return _sample_lines(image, (x, pixels), fill, interpolation, _ROWS)


@_of_images
def translate_y(image, pixels, fill, interpolation):
    """Moves an image `pixels` (float) up."""
    y, _ = _grid(image)
    return _sample_lines(image, (y, pixels), fill, interpolation, _COLUMNS)


def _double(value):
    """A Python number as it is; `tf.cast` would first round it to float32."""
    return tf.cast(value, tf.float64) if tf.is_tensor(value) else tf.constant(value, tf.float64)


def _size(image):
    """`(height, width)`, known when the graph is built where the shape is."""
    dynamic = tf.shape(image)
    return tuple(image.shape[axis] or dynamic[axis] for axis in (1, 2))


def _grid(image):
    """Centers of the pixels: float64 `(height, 1)` and `(1, width)`."""
    y, x = (tf.cast(tf.range(size), tf.float64) + 0.5 for size in _size(image))
    return y[:, None], x[None]


def _split(terms, images, axis):
    """Computes the position that every pixel is read from along an axis, from the terms of its coordinate.

    The terms are products that were rounded outside: a program that multiplied them itself would not (see `rounded`).

    Returns:
        `(batch, height, width)` each: the pixel center before it, int32, the distance from that, float64, and whether
        it lies inside the image.
    """
    height, width = _size(images)
    sources = tf.broadcast_to(functools.reduce(tf.add, terms), (tf.shape(images)[0], height, width))
    shifted = sources - 0.5
    before = tf.floor(shifted)
    inside = (sources >= 0) & (sources < tf.cast((height, width)[axis - 1], tf.float64))
    return tf.cast(before, tf.int32), shifted - before, inside


def _per_channel(values, channels):
    """`(batch, height, width)` to `(pixels, channels)`: later sums then need no broadcast, which is slow."""
    return tf.tile(tf.reshape(values, (-1, 1)), (1, channels))


def _looked_up(images, fill):
    """A function from int32 `(batch, height, width)` and where that is not inside to float64 `(pixels, channels)`."""
    height, width = _size(images)
    channels, outside = images.shape[-1], tf.size(images) // images.shape[-1]
    pixels = tf.concat([tf.reshape(images, (-1, channels)), tf.constant(fill, tf.uint8, (1, channels))], 0)
    starts = (height * width * tf.range(tf.shape(images)[0]))[:, None, None]

    def look_up(rows, columns, inside):
        index = tf.where(inside, starts + rows * width + columns, outside)
        return tf.cast(tf.gather(pixels, tf.reshape(index, [-1])), tf.float64)

    return look_up


def _interpolate(values, distance):
    """Between the second and third of four neighbors, or the two of two; float64 `(pixels, channels)` each."""
    if len(values) == 2:
        v1, v2 = values
        return v1 + rounded((v2 - v1) * distance)
    v1, v2, v3, v4 = values
    square, cube = 2 * (v1 - v2) + v3 - v4, -v1 + v2 - v3 + v4
    value = cube
    for coefficient in (square, v3 - v1, v2):
        value = coefficient + rounded(distance * value)
    return value


@compiled
def _sample_lines(images, terms, fill, interpolation, axis):
    """Reads every pixel somewhere else along its row, or its column; `terms` add up to its coordinate there."""
    size, channels = _size(images), images.shape[-1]
    before, distance, inside = _split(terms, images, axis)
    look_up = _looked_up(images, fill)

    def tap(number):
        place = tf.clip_by_value(before + number, 0, size[axis - 1] - 1)
        if axis == _ROWS:
            return look_up(tf.range(size[0])[:, None], place, inside)
        return look_up(place, tf.range(size[1]), inside)

    values = [tap(number) for number in _TAPS[interpolation]]
    return _finish(_interpolate(values, _per_channel(distance, channels)), images)


@compiled
def _sample_plane(images, terms_x, terms_y, fill, interpolation):
    """Reads every pixel at the sums of both terms: first along the rows around that place, then between them."""
    (height, width), channels = _size(images), images.shape[-1]
    left, distance_x, inside_x = _split(terms_x, images, _ROWS)
    above, distance_y, inside_y = _split(terms_y, images, _COLUMNS)
    distance_x, distance_y = (_per_channel(d, channels) for d in (distance_x, distance_y))
    look_up, taps, inside = _looked_up(images, fill), _TAPS[interpolation], inside_x & inside_y
    columns = [tf.clip_by_value(left + number, 0, width - 1) for number in taps]

    def along_row(number):
        row = tf.clip_by_value(above + number, 0, height - 1)
        return _interpolate([look_up(row, column, inside) for column in columns], distance_x)

    return _finish(_interpolate([along_row(number) for number in taps], distance_y), images)


def _finish(values, images):
    """Clipped and truncated to uint8, in the shape of the images."""
    return tf.reshape(tf.cast(tf.clip_by_value(values, 0, 255), tf.uint8), tf.shape(images))
