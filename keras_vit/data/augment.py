"""Random changes of a batch of images: stateless, so that a resumed run draws the same ones."""

import math

import tensorflow as tf


def _uniform(shape, limit, seed, salt):
    """Uniform numbers in [-limit, limit) from a seed and the number of the draw."""
    return tf.random.stateless_uniform(shape, tf.random.fold_in(seed, salt), -limit, limit)


def _affine_matrices(batch, size, config, seed):
    """One 2 x 2 matrix and offset an image, from output to input coordinates `(x, y)`, about the centre."""
    angle = _uniform([batch], config.rotation * math.pi / 180, seed, 1)
    zoom = 1 + _uniform([batch, 2], config.zoom, seed, 2)
    shear = _uniform([batch], config.shear, seed, 3)
    shift = _uniform([batch, 2], config.shift, seed, 4)
    mirror = tf.ones([batch])
    if config.flip:
        mirror = tf.where(tf.random.stateless_uniform([batch], tf.random.fold_in(seed, 5)) < 0.5, -1.0, 1.0)
    cos, sin = tf.cos(angle), tf.sin(angle)
    # rotation @ shear @ zoom, and the mirror image of x where it is drawn
    xx, xy = cos * zoom[:, 0] * mirror, (cos * shear - sin) * zoom[:, 1]
    yx, yy = sin * zoom[:, 0] * mirror, (sin * shear + cos) * zoom[:, 1]
    center_y, center_x = (size[0] - 1) / 2, (size[1] - 1) / 2
    offset_x = center_x - xx * center_x - xy * center_y + shift[:, 0]
    offset_y = center_y - yx * center_x - yy * center_y + shift[:, 1]
    zeros = tf.zeros([batch])
    return tf.stack([xx, xy, offset_x, yx, yy, offset_y, zeros, zeros], axis=1)


def affine(images, config, seed):
    """Shifts, rotates, scales, shears and mirrors every image on its own, bilinear.

    Args:
        images: uint8 or float tensor `(batch, height, width, channels)`.
        config: `AugmentConfig`.
        seed: int32 tensor `(2,)`.

    Returns:
        float32 tensor of the same shape, pixels 0 to 255.
    """
    images = tf.cast(images, tf.float32)
    if not (config.shift or config.rotation or config.zoom or config.shear or config.flip):
        return images
    batch, size = tf.shape(images)[0], images.shape[1:3]
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=_affine_matrices(batch, size, config, seed),
        output_shape=list(size),
        fill_value=float(config.fill),
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )


def mixup(images, targets, alpha, seed):
    """Mixes every image with its neighbour, all of a batch with one weight from Beta(alpha, alpha).

    Args:
        images: float tensor `(batch, ...)`.
        targets: float tensor `(batch, classes)`, one-hot rows.
        alpha: float; 0 changes nothing.
        seed: int32 tensor `(2,)`.

    Returns:
        The mixed images and targets.

    Source: Zhang et al., "mixup" (arXiv:1710.09412); the neighbour by a roll, as in big_vision `pp`/`mixup`.
    """
    if not alpha:
        return images, targets
    gammas = tf.random.stateless_gamma([2], tf.random.fold_in(seed, 6), alpha)
    weight = tf.reduce_max(gammas) / tf.reduce_sum(gammas)
    mixed = (weight * x + (1 - weight) * tf.roll(x, 1, axis=0) for x in (images, targets))
    return tuple(mixed)
