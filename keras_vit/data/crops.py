"""Padded random crops and mirroring of whole batches of small images, without a loop over the images."""

import tensorflow as tf


def crop_and_flip(images, padding, mode, color, flips, seed, rows=None):
    """Pads every image, crops the size back at a random place and mirrors every second one.

    Args:
        images: uint8 or float `(batch, height, width, channels)`.
        padding: int, pixels on every side; 0 for no crop.
        mode: `constant` or `reflect`.
        color: sequence of numbers, one a channel, on the scale of `images`. What `constant` pads with.
        flips: bool.
        seed: int32 `(2,)`.
        rows: `keras_vit.data.part.Rows` where the images are a part of a batch. Default `None`.

    Returns:
        The same type and shape.
    """
    batch, (height, width) = rows.total if rows else tf.shape(images)[0], images.shape[1:3]
    uniform = tf.random.stateless_uniform((batch, 3), tf.random.fold_in(seed, 12))
    uniform = rows.drawn(uniform) if rows else uniform
    offsets = tf.cast(uniform[:, :2] * (2 * padding + 1), tf.int32)
    columns = tf.range(width)[None]
    if flips:
        columns = tf.where(uniform[:, 2:] < 0.5, width - 1 - columns, columns)
    columns = columns + offsets[:, 1:]
    shape = images.shape
    if padding:
        images = _padded(images, padding, mode, color)
        lines = tf.range(height)[None] + offsets[:, :1]
        images = tf.gather(images, lines, axis=1, batch_dims=1)
    return tf.ensure_shape(tf.gather(images, columns, axis=2, batch_dims=1), shape)


def _padded(images, padding, mode, color):
    if mode == "reflect":
        return tf.pad(images, [[0, 0], [padding] * 2, [padding] * 2, [0, 0]], "REFLECT")
    batch, (height, width) = tf.shape(images)[0], images.shape[1:3]
    color = tf.cast(color, images.dtype)
    side = tf.broadcast_to(color, (batch, height, padding, images.shape[-1]))
    images = tf.concat([side, images, side], axis=2)
    edge = tf.broadcast_to(color, (batch, padding, width + 2 * padding, images.shape[-1]))
    return tf.concat([edge, images, edge], axis=1)


def flip(image, seed):
    """One image `(height, width, channels)`, mirrored or not: a batch's gather would touch it either way."""
    mirrored = tf.random.stateless_uniform((), tf.random.fold_in(seed, 12)) < 0.5
    return tf.cond(mirrored, lambda: tf.reverse(image, [1]), lambda: tf.identity(image))
