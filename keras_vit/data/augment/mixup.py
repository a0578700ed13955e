"""Mixup and CutMix of batches."""

import tensorflow as tf

from keras_vit.data.augment.random_erasing import boxes_mask


def smooth_targets(targets, smoothing):
    """Spreads `smoothing` (float in [0, 1)) of every one-hot row `(batch, classes)` evenly over all classes.

    Source: timm `mixup_target`: off value smoothing / classes, on value 1 - smoothing + off value.
    """
    if not smoothing:
        return targets
    return targets * (1 - smoothing) + smoothing / targets.shape[-1]


def _beta(shape, alpha, seed):
    """Draws float32 numbers of Beta(alpha, alpha), in float64, since gammas of a small alpha underflow in float32."""
    gammas = tf.random.stateless_gamma((2, *shape), seed, alpha, dtype=tf.float64)
    return tf.cast(gammas[0] / (gammas[0] + gammas[1]), tf.float32)


def mixup(images, targets, alpha, seed, rows=None):
    """Mixes every image with its neighbor, with one weight a batch, at least 0.5, from Beta(alpha, alpha).

    Args:
        images: float tensor `(batch, ...)`.
        targets: float tensor `(batch, classes)`, one-hot rows.
        alpha: float; 0 changes nothing.
        seed: int32 tensor `(2,)`.
        rows: `BatchRows` if the images are the computed rows of a worker. Default `None`.

    Returns:
        The mixed images and targets; with `rows` the local ones.

    Source: Zhang et al., "mixup" (arXiv:1710.09412); the larger weight and the neighbor by a roll as in big_vision
    `utils.get_mixup`.
    """
    if not alpha:
        return images, targets
    weight = _beta((), alpha, tf.random.fold_in(seed, 6))
    weight = tf.maximum(weight, 1 - weight)
    pairs = (_with_partners(x, rows, lambda x: tf.roll(x, 1, axis=0)) for x in (images, targets))
    return tuple(weight * x + (1 - weight) * partner for x, partner in pairs)


def _with_partners(column, rows, reorder):
    """Returns the local rows of a column and their mixup partners; `reorder` makes those of a whole batch."""
    return (rows.local_rows(column), rows.mixup_partners(column)) if rows else (column, reorder(column))


def cutmix_boxes(weights, centers, size):
    """Computes the boxes of CutMix: each side is sqrt(1 - weight) of the image's, clipped at the border.

    Args:
        weights: float32 `(n,)`, the target share of the first image.
        centers: float32 `(n, 2)` in [0, 1): the box's center, vertically and horizontally.
        size: `(height, width)`.

    Returns:
        int32 `(n, 4)`: top, left, height, width; and float32 `(n,)`, the first image's share of the pixels after
        clipping.

    Source: Yun et al., "CutMix" (arXiv:1905.04899); timm `rand_bbox` and `cutmix_bbox_and_lam`.
    """
    share = tf.sqrt(1 - tf.cast(weights, tf.float64))
    starts, extents = [], []
    for axis in (0, 1):
        side = tf.cast(size[axis] * share, tf.int32)
        center = tf.cast(centers[:, axis] * size[axis], tf.int32)
        start = tf.maximum(center - side // 2, 0)
        starts.append(start)
        extents.append(tf.minimum(center + (side + 1) // 2, size[axis]) - start)
    corrected = 1 - tf.cast(extents[0] * extents[1], tf.float32) / (size[0] * size[1])
    return tf.stack([*starts, *extents], axis=1), corrected


def blend(images, partners, weights):
    """Applies mixup: `weight * image + (1 - weight) * partner`.

    Args:
        images, partners: float `(batch, height, width, channels)`.
        weights: float32 `(n,)`, `n` 1 or batch.

    Returns:
        float of the shape of `images`.
    """
    weights = weights[:, None, None, None]
    return weights * images + (1 - weights) * partners


def paste(images, partners, boxes):
    """Applies CutMix: pastes the partner into the box of every image.

    Args:
        images, partners: float `(batch, height, width, channels)`.
        boxes: int32 `(n, 4)` as of `cutmix_boxes`, `n` 1 or batch.

    Returns:
        float of the shape of `images`.
    """
    mask = tf.cast(boxes_mask(boxes, images.shape[1:3])[..., None], images.dtype)
    # Weights are 0 or 1, so pixels stay exact.
    return images * (1 - mask) + partners * mask


def mix_weighted(images, targets, config, seed, rows=None):
    """Applies mixup or CutMix as timm's `Mixup`, with one weight a batch or one an image.

    Args:
        images: float32 `(batch, height, width, channels)`.
        targets: float32 `(batch, classes)`.
        config: `AugmentConfig`, of which mixup, cutmix, mixup_mode (`batch` or `sample`), mixup_prob and
            mixup_switch_prob are used. Partners come from the reversed batch.
        seed: int32 `(2,)`.
        rows: `BatchRows` if the images are the computed rows of a worker. Default `None`.

    Returns:
        The mixed images and targets; with `rows` the local ones.
    """
    weights, blended, boxes = _sample_mix(rows.total if rows else tf.shape(images)[0], images.shape[1:3], config, seed)
    if rows and config.mixup_mode == "sample":
        weights, blended, boxes = (x[rows.first : rows.last] for x in (weights, blended, boxes))
    pairs = (_with_partners(x, rows, lambda x: tf.reverse(x, [0])) for x in (images, targets))
    (images, partners), (targets, partner_targets) = pairs
    mixed = _mix_images(images, partners, blended, boxes, config)
    weights = weights[:, None]
    return mixed, weights * targets + (1 - weights) * partner_targets


def _sample_mix(batch, size, config, seed):
    """Draws `(weights, blended, boxes)`: the first image's final weight, its weight in mixup, the CutMix boxes."""
    count = batch if config.mixup_mode == "sample" else 1
    uniform = tf.random.stateless_uniform((count, 4), tf.random.fold_in(seed, 9))
    mixes = uniform[:, 0] < config.mixup_prob
    pastes = uniform[:, 1] < (config.mixup_switch_prob if config.mixup else 1.0)
    weights = tf.ones((count,))
    boxes = tf.zeros((count, 4), tf.int32)
    if config.mixup:
        weights = tf.where(mixes, _beta((count,), config.mixup, tf.random.fold_in(seed, 10)), weights)
    if config.cutmix:
        sampled, corrected = cutmix_boxes(
            _beta((count,), config.cutmix, tf.random.fold_in(seed, 11)), uniform[:, 2:], size
        )
        boxes = tf.where((mixes & pastes)[:, None], sampled, boxes)
        blended = tf.where(pastes, 1.0, weights)
        weights = tf.where(mixes & pastes, corrected, blended)
    else:
        blended = weights
    return weights, blended, boxes


def _mix_images(images, partners, blended, boxes, config):
    """Mixes images: a batch with one weight runs only the sampled method, images with their own weights run both."""
    if config.mixup_mode == "batch":
        calls = [lambda: images, lambda: blend(images, partners, blended), lambda: paste(images, partners, boxes)]
        chosen = tf.where(boxes[0, 2] * boxes[0, 3] > 0, 2, tf.cast(blended[0] < 1, tf.int32))
        return tf.ensure_shape(tf.switch_case(chosen, calls), images.shape)
    if config.mixup:
        images = blend(images, partners, blended)
    if config.cutmix:
        images = paste(images, partners, boxes)
    return images
