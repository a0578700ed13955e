"""Mixing of the images of a batch: mixup and cutmix, with the target's weights equal to what the pixels show."""

import tensorflow as tf

from keras_vit.data.augment.random_erasing import boxes_mask


def smooth_targets(targets, smoothing):
    """Moves `smoothing` (float in [0, 1)) of every one-hot row `(batch, classes)` to all classes alike.

    Source: timm `mixup_target`: off value smoothing / classes, on value 1 - smoothing + off value.
    """
    if not smoothing:
        return targets
    return targets * (1 - smoothing) + smoothing / targets.shape[-1]


def _beta(shape, alpha, seed):
    """float32 draws of Beta(alpha, alpha); float64 in between, where gammas of a small alpha do not vanish."""
    gammas = tf.random.stateless_gamma((2, *shape), seed, alpha, dtype=tf.float64)
    return tf.cast(gammas[0] / (gammas[0] + gammas[1]), tf.float32)


def mixup(images, targets, alpha, seed, rows=None):
    """Mixes every image with its neighbour, all of a batch with one weight of at least a half from Beta(alpha, alpha).

    Args:
        images: float tensor `(batch, ...)`.
        targets: float tensor `(batch, classes)`, one-hot rows.
        alpha: float; 0 changes nothing.
        seed: int32 tensor `(2,)`.
        rows: `keras_vit.data.pipeline.worker_shard.Rows` where the images are a part of a batch. Default `None`.

    Returns:
        The mixed images and targets; with `rows` its own.

    Source: Zhang et al., "mixup" (arXiv:1710.09412); the larger weight and the neighbour by a roll as in big_vision
    `utils.get_mixup`.
    """
    if not alpha:
        return images, targets
    weight = _beta((), alpha, tf.random.fold_in(seed, 6))
    weight = tf.maximum(weight, 1 - weight)
    pairs = ((rows.own(x), rows.mixed_with(x)) if rows else (x, tf.roll(x, 1, axis=0)) for x in (images, targets))
    return tuple(weight * x + (1 - weight) * partner for x, partner in pairs)


def cutmix_boxes(weights, centers, size):
    """The boxes of cutmix: the side's share of the image is the root of `1 - weight`; the border cuts them.

    Args:
        weights: float32 `(n,)`, the part of the first image.
        centers: float32 `(n, 2)` in [0, 1): the box's centre, vertically and horizontally.
        size: `(height, width)`.

    Returns:
        int32 `(n, 4)`: top, left, height, width; and float32 `(n,)`, the weights that the boxes' areas really leave to
        the first image.

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
    """mixup: `weight * image + (1 - weight) * partner`.

    Args:
        images, partners: float `(batch, height, width, channels)`.
        weights: float32 `(n,)`, `n` 1 or batch.

    Returns:
        float of the shape of `images`.
    """
    weights = weights[:, None, None, None]
    return weights * images + (1 - weights) * partners


def paste(images, partners, boxes):
    """cutmix: the box of every image shows its partner.

    Args:
        images, partners: float `(batch, height, width, channels)`.
        boxes: int32 `(n, 4)` as of `cutmix_boxes`, `n` 1 or batch.

    Returns:
        float of the shape of `images`.
    """
    mask = tf.cast(boxes_mask(boxes, images.shape[1:3])[..., None], images.dtype)
    # Every weight is 0 or 1, so that pixels pass unchanged.
    return images * (1 - mask) + partners * mask


def mix_weighted(images, targets, config, seed, rows=None):
    """Mixup and cutmix as timm's `Mixup`, one weight a batch or one an image.

    Args:
        images: float32 `(batch, height, width, channels)`.
        targets: float32 `(batch, classes)`.
        config: `AugmentConfig`, of which mixup, cutmix, mixup_mode (`batch` or `sample`), mixup_prob and
            mixup_switch_prob are used. Partners come from the reversed batch.
        seed: int32 `(2,)`.
        rows: `keras_vit.data.pipeline.worker_shard.Rows` where the images are a part of a batch. Default `None`.

    Returns:
        The mixed images and targets; with `rows` its own.
    """
    weights, blended, boxes = _drawn(rows.total if rows else tf.shape(images)[0], images.shape[1:3], config, seed)
    if rows and config.mixup_mode == "sample":
        weights, blended, boxes = (x[rows.first : rows.last] for x in (weights, blended, boxes))
    pairs = ((rows.own(x), rows.mixed_with(x)) if rows else (x, tf.reverse(x, [0])) for x in (images, targets))
    (images, partners), (targets, others) = pairs
    mixed = _mix_images(images, partners, blended, boxes, config)
    weights = weights[:, None]
    return mixed, weights * targets + (1 - weights) * others


def _drawn(batch, size, config, seed):
    """`(weights, blended, boxes)`: what is left of the first image at last, by mixup alone, and what cutmix pastes."""
    count = batch if config.mixup_mode == "sample" else 1
    uniform = tf.random.stateless_uniform((count, 4), tf.random.fold_in(seed, 9))
    mixes = uniform[:, 0] < config.mixup_prob
    pastes = uniform[:, 1] < (config.mixup_switch_prob if config.mixup else 1.0)
    weights = tf.ones((count,))
    boxes = tf.zeros((count, 4), tf.int32)
    if config.mixup:
        weights = tf.where(mixes, _beta((count,), config.mixup, tf.random.fold_in(seed, 10)), weights)
    if config.cutmix:
        drawn, corrected = cutmix_boxes(
            _beta((count,), config.cutmix, tf.random.fold_in(seed, 11)), uniform[:, 2:], size
        )
        boxes = tf.where((mixes & pastes)[:, None], drawn, boxes)
        blended = tf.where(pastes, 1.0, weights)
        weights = tf.where(mixes & pastes, corrected, blended)
    else:
        blended = weights
    return weights, blended, boxes


def _mix_images(images, partners, blended, boxes, config):
    """A batch with one weight runs only what it drew; images that differ in it pass both steps."""
    if config.mixup_mode == "batch":
        calls = [lambda: images, lambda: blend(images, partners, blended), lambda: paste(images, partners, boxes)]
        chosen = tf.where(boxes[0, 2] * boxes[0, 3] > 0, 2, tf.cast(blended[0] < 1, tf.int32))
        return tf.ensure_shape(tf.switch_case(chosen, calls), images.shape)
    if config.mixup:
        images = blend(images, partners, blended)
    if config.cutmix:
        images = paste(images, partners, boxes)
    return images
