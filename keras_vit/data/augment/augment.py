"""Stateless augmentation of training images: a resumed run draws the same numbers.

`augment_image` augments single uint8 images, `augment_batch` normalized batches, and every pipeline calls both. With a
policy or color jitter, `augment_image` crops and flips, since both must come first; otherwise `augment_batch` does.
"""

import math

import tensorflow as tf

from keras_vit.data.augment import policies as kerascv
from keras_vit.data.augment.mixup import mix_weighted, mixup
from keras_vit.data.augment.policies import color_jitter, make_policy
from keras_vit.data.augment.random_crop import crop_and_flip, flip
from keras_vit.data.augment.random_erasing import random_erasing
from keras_vit.data.augment.xla import is_small


def changes_images(config):
    """Returns whether `augment_image` changes images at all."""
    return bool(config.policy or config.color_jitter)


def batch_policy(config, input_spec):
    """Returns the policy of a config if it can augment a batch of small images at once; else `None`.

    Such a policy has `draw(seed)`, for one image, and `apply(images, drawn, fill, interpolation)`; it takes no color
    jitter. Most of the time of a small image is the overhead of a hundred operations, which a batch pays once. Large
    images are faster one by one, since each stays in the processor's cache.
    """
    policy = make_policy(config.policy) if config.policy and is_small(input_spec.size) else None
    return policy if hasattr(policy, "apply") else None


# AutoGraph has nothing to convert here, and its conversion would take longer than tracing.
@tf.autograph.experimental.do_not_convert
def augment_image(image, config, seed, input_spec):
    """Crops, flips, and applies the policy and color jitter of a config that has one of the two.

    Args:
        image: uint8 `(height, width, channels)`, its shape known.
        config: `AugmentConfig`.
        seed: int32 `(2,)`.
        input_spec: `InputSpec`. Its mean is the fill color; its interpolation is the default of the config's.

    Returns:
        uint8 of the same shape.

    Raises:
        ValueError: if the policy is invalid or does not support the interpolation.
    """
    if not changes_images(config):
        return image
    image = crop_image(image, config, seed)
    jitters = True
    if config.policy:
        policy = make_policy(config.policy)
        image = policy(image, seed, *fill_and_interpolation(config, input_spec))
        jitters = policy.jitters
    if config.color_jitter and jitters:
        image = color_jitter(image, config.color_jitter, seed)
    return image


def crop_image(image, config, seed):
    """Applies the padded crop and the flip of `augment_image`."""
    if config.padding:
        fill = [config.fill] * image.shape[-1]
        return crop_and_flip(image[None], config.padding, config.padding_mode, fill, config.flip, seed)[0]
    return flip(image, seed) if config.flip else image


def fill_and_interpolation(config, input_spec):
    """Returns the fill color and the interpolation with which a policy moves pixels."""
    fill = tuple(min(255, round(255 * mean)) for mean in input_spec.mean)
    return fill, config.crop_interpolation or input_spec.interpolation


@tf.autograph.experimental.do_not_convert
def augment_batch(images, targets, config, seed, input_spec, rows=None):
    """Applies affine transform, padded crop, flip, random erasing and mixing to a batch.

    Args:
        images: float32 `(batch, height, width, channels)`, normalized.
        targets: float32 `(batch, classes)`, one-hot rows.
        config: `AugmentConfig`.
        seed: int32 `(2,)`.
        input_spec: `InputSpec` that normalized the images.
        rows: `BatchRows` if the images are the computed rows of a worker, or `None` for whole batches. Default `None`.

    Returns:
        Images and targets, float32 of the same shapes; with `rows` the local rows, equal to those of the whole batch.
    """
    fill = [(config.fill / 255 - mean) / std for mean, std in zip(input_spec.mean, input_spec.std, strict=True)]
    flips = config.flip and not changes_images(config)
    padding = 0 if changes_images(config) else config.padding
    if config.shift or config.rotation or config.zoom or config.shear:
        images = _affine(images, config, flips, fill, seed, rows)
        flips = False
    if padding or flips:
        images = crop_and_flip(images, padding, config.padding_mode, fill, flips, seed, rows)
    if config.random_erasing_prob:
        images = random_erasing(images, config.random_erasing_prob, seed, rows)
    return _mix(images, targets, config, seed, rows)


def _mix(images, targets, config, seed, rows):
    mixes = config.mixup or config.cutmix
    if mixes and config.mixup_mode == "big_vision":
        return mixup(images, targets, config.mixup, seed, rows)
    if mixes and config.mixup_mode != "keras_cv":
        return mix_weighted(images, targets, config, seed, rows)
    if mixes:
        images, targets = _mix_by_keras_cv(images, targets, config, seed)
    return (rows.local_rows(images), rows.local_rows(targets)) if rows else (images, targets)


def _mix_by_keras_cv(images, targets, config, seed):
    kinds = [(name, alpha) for name, alpha in (("MixUp", config.mixup), ("CutMix", config.cutmix)) if alpha]
    calls = [lambda kind=kind: kerascv.mix(images, targets, *kind) for kind in kinds]
    uniform = tf.random.stateless_uniform((2,), tf.random.fold_in(seed, 9))
    index = tf.cast(uniform[1] < config.mixup_switch_prob, tf.int32) if len(kinds) == 2 else 0
    index = tf.where(uniform[0] < config.mixup_prob, index, len(kinds))
    return tf.switch_case(index, [*calls, lambda: (images, targets)])


def _uniform(shape, limit, seed, salt):
    """Draws uniform numbers in [-limit, limit) from a seed and the number of the draw."""
    return tf.random.stateless_uniform(shape, tf.random.fold_in(seed, salt), -limit, limit)


def _affine_matrices(batch, size, config, flips, seed):
    """Draws `(batch, 8)`: a matrix and offset per image, from output to input `(x, y)`, about the center."""
    angle = _uniform([batch], config.rotation * math.pi / 180, seed, 1)
    zoom = 1 + _uniform([batch, 2], config.zoom, seed, 2)
    shear = _uniform([batch], config.shear, seed, 3)
    shift = _uniform([batch, 2], config.shift, seed, 4)
    sign = tf.ones([batch])
    if flips:
        sign = tf.where(tf.random.stateless_uniform([batch], tf.random.fold_in(seed, 5)) < 0.5, -1.0, 1.0)
    cos, sin = tf.cos(angle), tf.sin(angle)
    # rotation @ shear @ zoom, with x flipped where sign is -1
    xx, xy = cos * zoom[:, 0] * sign, (cos * shear - sin) * zoom[:, 1]
    yx, yy = sin * zoom[:, 0] * sign, (sin * shear + cos) * zoom[:, 1]
    center_y, center_x = (size[0] - 1) / 2, (size[1] - 1) / 2
    offset_x = center_x - xx * center_x - xy * center_y + shift[:, 0]
    offset_y = center_y - yx * center_x - yy * center_y + shift[:, 1]
    zeros = tf.zeros([batch])
    return tf.stack([xx, xy, offset_x, yx, yy, offset_y, zeros, zeros], axis=1)


def affine(images, config, seed):
    """Shifts, rotates, scales, shears and flips every image independently, bilinear.

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
    return _affine(images, config, config.flip, [config.fill] * images.shape[-1], seed)


def _affine(images, config, flips, fill, seed, rows=None):
    """Implements `affine` for float images, with a `fill` color of one number a channel."""
    batch, size = rows.total if rows else tf.shape(images)[0], images.shape[1:3]
    matrices = _affine_matrices(batch, size, config, flips, seed)
    # The operation has one fill value for all channels, so shift the fill color to 0.
    shifted = tf.raw_ops.ImageProjectiveTransformV3(
        images=images - fill,
        transforms=rows.sampled_rows(matrices) if rows else matrices,
        output_shape=list(size),
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
    return shifted + fill
