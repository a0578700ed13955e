"""Relevance of the patches to a class: attention weighted with its gradient, through all blocks."""

import numpy as np

from keras_vit.interpret.class_scores import ClassScores
from keras_vit.interpret.taps import inner_images, tapped_model
from keras_vit.layers import AttentionPooling, TransformerEncoder


def relevance(model, images, classes=None, batch_size=8):
    """Heat maps of a class: how much of each patch is in what the model says of it.

    For each block the attention is multiplied with the gradient of the class' score with respect to it; negative
    products count as zero, and the mean over the heads carries the relevance of every token on: `R = R + A R`. The map
    is what reaches the tokens that the head reads: the class token, the mean of both with a distillation token, the
    patches with `gap`, and with `token_gap` the mean of class token and patches. A pooling with attention (`map`) is
    one more step.

    Args:
        model: a Vision Transformer or hybrid with a classifier, or any model built around one.
        images: array `(batch, height, width, channels)`, as the model takes them.
        classes: number or name of a class, or one for each image; `None` for the best one.
        batch_size: int. Images explained together. Default 8.

    Returns:
        float32 array `(batch, h, w)` on the grid of the patches, not negative. Its unit is that of the score.

    Raises:
        ValueError: if the model has no classes, or no blocks in which every token attends to every other.
        RuntimeError: on a backend without gradients.

    Source: Chefer, Gur and Wolf, "Generic Attention-model Explainability" (arXiv:2103.15679), section 3.2.
    """
    scores = ClassScores(model)
    height, width = _checked(scores, model).grid_size

    def heat_map(steps, pooling):
        rows = _readers(scores.config, steps[0]) if pooling is None else pooling
        for step in reversed(steps):
            rows = rows + rows @ step
        return rows.mean(axis=1)[:, -height * width :].reshape(-1, height, width)

    return _batches(scores, images, classes, batch_size, heat_map)


def relevance_matrix(model, images, classes=None, batch_size=8):
    """Computes how much of each token is in every token behind the last block, for a class: the whole of `relevance`.

    Args:
        model, images, classes, batch_size: as for `relevance`.

    Returns:
        float32 array `(batch, tokens, tokens)`, whose rows are the tokens behind the last block.

    Raises:
        ValueError, RuntimeError: as `relevance`.
    """
    scores = ClassScores(model)
    _checked(scores, model)

    def matrix(steps, pooling):
        total = np.eye(steps[0].shape[-1], dtype="float32")[None]
        for step in steps:
            total = total + step @ total
        return total

    return _batches(scores, images, classes, batch_size, matrix)


def _checked(scores, model):
    config = scores.config
    if not config.has_global_attention:
        raise ValueError(
            "relevance needs blocks in which every token attends to every other, as a Vision Transformer's; use "
            "grad_cam, integrated_gradients or smooth_grad for the others. "
            f"Received: model={model.name!r} with a {type(config).__name__}"
        )
    return config


def _batches(scores, images, classes, batch_size, function):
    """Joins what `function(steps of the blocks, step of the pooling or None)` returns for batches of images."""
    images = inner_images(scores.parts, images)
    numbers = None if classes is None else scores.numbers(classes, images)
    layers = scores.core.layers
    blocks = [layer.name for layer in layers if isinstance(layer, TransformerEncoder)]
    poolings = [layer.name for layer in layers if isinstance(layer, AttentionPooling)]
    tapped = tapped_model(scores, attention=[*blocks, *poolings])
    found = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        chosen = None if numbers is None else numbers[start : start + batch_size]
        values, gradients = tapped(batch, scores.score(chosen))
        steps = {name: np.maximum(values[name] * gradients[name], 0).mean(axis=1) for name in values}
        pooling = _widened(steps[poolings[0]], steps[blocks[0]].shape[-1]) if poolings else None
        found.append(function([steps[name] for name in blocks], pooling))
    if not found:
        raise ValueError("there must be at least one image. Received: 0 images")
    return np.concatenate(found)


def _widened(pooling, tokens):
    """The attention of a pooling `(batch, 1, patches)`, with zeros for the prefix that it does not see."""
    return np.pad(pooling, ((0, 0), (0, 0), (tokens - pooling.shape[-1], 0)))


def _readers(config, step):
    """float32 array `(batch, readers, tokens)`: with a row for each token or mean of tokens that the head reads."""
    batch, tokens = step.shape[:2]
    is_patch = np.arange(tokens) >= config.num_prefix_tokens
    rows = []
    if config.pooling in ("token", "token_gap"):
        rows += list(np.eye(tokens)[: 1 + int(config.distillation_token)])
    if config.pooling != "token":
        rows.append(is_patch / is_patch.sum())
    return np.broadcast_to(np.array(rows, "float32"), (batch, len(rows), tokens))
