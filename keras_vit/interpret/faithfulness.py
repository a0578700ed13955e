"""Measures of how faithful heat maps are: deletion and insertion curves, and the pointing game."""

import numpy as np

from keras_vit.interpret.class_scores import ClassScores
from keras_vit.interpret.taps import inner_images
from keras_vit.validation import check_positive


def deletion_curve(model, images, heat_maps, classes=None, baseline=0.0, steps=16, batch_size=32):
    """The probability of a class while the patches of an image are deleted, the most important ones first.

    Args:
        model: a model with a classifier, or any model built around one.
        images: array `(batch, height, width, channels)`, as the model takes them.
        heat_maps: array `(batch, h, w)`, on the grid of the patches or any other that divides the image.
        classes: number or name of a class, or one for each image; `None` for the best one.
        baseline: float or array that broadcasts to the images, normalized: what replaces a deleted patch. Default 0:
            the mean color of the training images.
        steps: int. Steps from the whole image to nothing. Default 16.
        batch_size: int. Default 32.

    Returns:
        Dict: `fractions` `(steps + 1,)`, the deleted parts of the image; `scores` `(batch, steps + 1)`, probabilities;
        `auc` `(batch,)`, the areas below the curves. A faithful map has a small area.

    Raises:
        ValueError: if the model has no classes; if maps and images do not fit.

    Source: Petsiuk, Das and Saenko, "RISE" (arXiv:1806.07421), section 4.2.
    """
    return _curve(model, images, heat_maps, classes, baseline, steps, batch_size, is_deletion=True)


def insertion_curve(model, images, heat_maps, classes=None, baseline=0.0, steps=16, batch_size=32):
    """The probability of a class while the patches are put back into an empty image, the most important ones first.

    Args:
        model, images, heat_maps, classes, baseline, steps, batch_size: as for `deletion_curve`.

    Returns:
        Dict as of `deletion_curve`; `fractions` are the inserted parts. A faithful map has a large area.

    Raises:
        ValueError: as `deletion_curve`.
    """
    return _curve(model, images, heat_maps, classes, baseline, steps, batch_size, is_deletion=False)


def pointing_game(heat_maps, masks):
    """Tells for each heat map whether its highest value lies on the object.

    Args:
        heat_maps: array `(batch, h, w)`.
        masks: bool array `(batch, height, width)`: where the object is. The center of the highest cell counts; the
            first of several equal ones.

    Returns:
        bool array `(batch,)`; its mean is the accuracy of the pointing game.

    Raises:
        ValueError: if there is not a mask for each map.

    Source: Zhang et al., "Top-down Neural Attention by Excitation Backprop" (arXiv:1608.00507), section 4.1.
    """
    heat_maps, masks = np.asarray(heat_maps), np.asarray(masks, bool)
    if heat_maps.ndim != 3 or masks.ndim != 3 or len(heat_maps) != len(masks) or not len(masks):
        raise ValueError(
            "the pointing game needs heat maps (batch, h, w) and as many masks (batch, height, width). "
            f"Received: heat_maps of the shape {heat_maps.shape}, masks of the shape {masks.shape}"
        )
    rows, columns = np.divmod(heat_maps.reshape(len(heat_maps), -1).argmax(axis=1), heat_maps.shape[2])
    rows = ((rows + 0.5) * masks.shape[1] / heat_maps.shape[1]).astype(int)
    columns = ((columns + 0.5) * masks.shape[2] / heat_maps.shape[2]).astype(int)
    return masks[np.arange(len(masks)), rows, columns]


def _curve(model, images, heat_maps, classes, baseline, steps, batch_size, is_deletion):
    check_positive(steps, "steps")
    scores = ClassScores(model)
    images = inner_images(scores.parts, images)
    ranks = _ranks(np.asarray(heat_maps, "float32"), images)
    numbers = scores.numbers(classes, images)
    baseline = np.broadcast_to(np.asarray(baseline, "float32"), images.shape)
    fractions = np.linspace(0, 1, steps + 1)
    found = np.empty((len(images), steps + 1), "float32")
    for i, (image, start, rank, number) in enumerate(zip(images, baseline, ranks, numbers, strict=True)):
        is_changed = rank[None] < np.round(fractions * (rank.max() + 1))[:, None, None]
        kept = ~is_changed if is_deletion else is_changed
        mixed = np.where(kept[..., None], image, start)
        for first in range(0, steps + 1, batch_size):
            part = slice(first, first + batch_size)
            found[i, part] = scores.probabilities(mixed[part])[:, number]
    auc = ((found[:, 1:] + found[:, :-1]) / 2).mean(axis=1)
    return {"fractions": fractions, "scores": found, "auc": auc}


def _ranks(heat_maps, images):
    """int array `(batch, height, width)`: of each pixel the rank of its cell, 0 for the highest value."""
    size = images.shape[1:3]
    if (
        heat_maps.ndim != 3
        or len(heat_maps) != len(images)
        or any(side < cells for side, cells in zip(size, heat_maps.shape[1:], strict=True))
    ):
        raise ValueError(
            "heat_maps must have the shape (batch, h, w), with one map for each image and no more cells than pixels. "
            f"Received: heat_maps of the shape {heat_maps.shape} for {len(images)} images of {size}"
        )
    order = np.argsort(-heat_maps.reshape(len(heat_maps), -1), axis=1, kind="stable")
    ranks = np.argsort(order, axis=1).reshape(heat_maps.shape)
    rows, columns = (np.arange(side) * cells // side for side, cells in zip(size, heat_maps.shape[1:], strict=True))
    return ranks[:, rows[:, None], columns]
