"""Random erasing: rectangles of noise in normalized images."""

import math

import numpy as np
import tensorflow as tf

_AREA = (0.02, 1 / 3)
_RATIO = (0.3, 1 / 0.3)
_ATTEMPTS = 10


def erasing_boxes(batch, size, rate, seed):
    """Draws a rectangle for some of the images.

    Args:
        batch: int scalar.
        size: `(height, width)` of the images.
        rate: float in [0, 1]. The probability that an image gets a rectangle.
        seed: int32 `(2,)`.

    Returns:
        int32 `(batch, 4)`: top, left, height, width. Height and width are 0 for images without a rectangle, which
        includes those where ten samples of area and ratio did not fit.
    """
    height, width = size
    uniform = tf.random.stateless_uniform((batch, 2 * _ATTEMPTS + 3), tf.random.fold_in(seed, 7))
    areas, ratios, rest = tf.split(uniform, (_ATTEMPTS, _ATTEMPTS, 3), axis=1)
    areas = (_AREA[0] + (_AREA[1] - _AREA[0]) * areas) * (height * width)
    low, high = (math.log(limit) for limit in _RATIO)
    ratios = tf.exp(low + (high - low) * ratios)
    heights, widths = (tf.cast(tf.round(tf.sqrt(area)), tf.int32) for area in (areas * ratios, areas / ratios))
    fits = (heights < height) & (widths < width)
    first = tf.argmax(fits, axis=1, output_type=tf.int32)  # also 0 where none fits
    erased = tf.reduce_any(fits, axis=1) & (rest[:, 0] < rate)
    box = [tf.where(erased, tf.gather(side, first, batch_dims=1), 0) for side in (heights, widths)]
    # From 0 to the last position at which the box lies inside.
    corner = [tf.cast(rest[:, 1 + axis] * tf.cast(size[axis] - box[axis] + 1, tf.float32), tf.int32) for axis in (0, 1)]
    return tf.stack([*corner, *box], axis=1)


def boxes_mask(boxes, size):
    """Marks the pixels inside int32 boxes `(batch, 4)` of top, left, height, width: bool `(batch, height, width)`."""
    inside = []
    for axis in (0, 1):
        start, extent = boxes[:, axis, None], boxes[:, 2 + axis, None]
        pixel = tf.range(size[axis])[None]
        inside.append((pixel >= start) & (pixel < start + extent))
    return inside[0][:, :, None] & inside[1][:, None, :]


def random_erasing(images, rate, seed, rows=None):
    """Replaces a random rectangle of some images by normal noise, drawn for every pixel and channel.

    Args:
        images: float32 `(batch, height, width, channels)`, normalized: the noise has mean 0 and variance 1.
        rate: float in [0, 1]. The probability that an image gets a rectangle.
        seed: int32 `(2,)`.
        rows: `BatchRows` if the images are the computed rows of a worker. Default `None`.

    Returns:
        float32 of the same shape.

    Source: Zhong et al., "Random Erasing" (arXiv:1708.04896); area, ratio and noise as in timm's
    `RandomErasing(mode="pixel")`.
    """
    size = images.shape[1:3]
    boxes = erasing_boxes(rows.total if rows else tf.shape(images)[0], size, rate, seed)
    areas = boxes[:, 2] * boxes[:, 3]
    # Noise for the erased pixels only: drawing normal numbers is the most expensive step.
    noise = tf.random.stateless_normal((tf.reduce_sum(areas), images.shape[-1]), tf.random.fold_in(seed, 8))
    if rows:
        is_computed = tf.constant(np.isin(np.arange(rows.total), rows.computed))
        boxes, noise = rows.sampled_rows(boxes), tf.boolean_mask(noise, tf.repeat(is_computed, areas))
    pixels = tf.where(boxes_mask(boxes, size))
    return tf.tensor_scatter_nd_update(images, pixels, noise)
