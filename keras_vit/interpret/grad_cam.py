"""Grad-CAM: where the features that raise a class' score are strong."""

import numpy as np

from keras_vit.interpret.class_scores import ClassScores
from keras_vit.interpret.taps import inner_images, tapped_model


def grad_cam(model, images, classes=None, stage=None, batch_size=8):
    """Heat maps of a class from the features of a stage and their gradients.

    Each channel counts as much as the mean of its gradient over all positions; the weighted sum of the channels is the
    map, and negative sums are zero.

    Args:
        model: a model of any family with a classifier, or any model built around one.
        images: array `(batch, height, width, channels)`, as the model takes them.
        classes: number or name of a class, or one for each image; `None` for the best one.
        stage: name of a stage as in `keras_vit.features`, for example `encoder_block_9`, `stage_2` of a Swin
            Transformer, `stem_stage_0` of a hybrid. Default `None`: the last one whose every position has an effect on
            the outputs, which for a Vision Transformer with a class token enters the last block.
        batch_size: int. Images explained together. Default 8.

    Returns:
        float32 array `(batch, h, w)` on the grid of the stage, not negative. Tokens in front of the patches are left
        out.

    Raises:
        ValueError: if the model has no classes, or no such stage.
        RuntimeError: on a backend without gradients.

    Source: Selvaraju et al., "Grad-CAM" (arXiv:1610.02391), equations 1 and 2.
    """
    scores = ClassScores(model)
    stage = scores.config.activation_stage if stage is None else stage
    images = inner_images(scores.parts, images)
    if not len(images):
        raise ValueError("there must be at least one image. Received: 0 images")
    numbers = None if classes is None else scores.numbers(classes, images)
    tapped = tapped_model(scores, outputs=[stage])
    maps = []
    for start in range(0, len(images), batch_size):
        chosen = None if numbers is None else numbers[start : start + batch_size]
        values, gradients = tapped(images[start : start + batch_size], scores.score(chosen))
        features, gradient = (_on_grid(x[stage], scores.config, stage) for x in (values, gradients))
        weights = gradient.mean(axis=(1, 2), keepdims=True)
        maps.append(np.maximum((weights * features).sum(axis=-1), 0))
    return np.concatenate(maps)


def _on_grid(features, config, stage):
    """Features `(batch, h, w, channels)` of a stage, from tokens too."""
    if features.ndim == 4:
        return features
    if features.ndim != 3:
        raise ValueError(
            "a stage must have tokens or a grid of features. "
            f"Received: stage={stage!r} of the shape (batch, {', '.join(map(str, features.shape[1:]))})"
        )
    height, width = config.token_grid(features.shape[1])
    return features[:, -height * width :].reshape(-1, height, width, features.shape[-1])
