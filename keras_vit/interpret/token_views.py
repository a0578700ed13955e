"""Views of the tokens of the patches: their principal components as colors, and cosine similarities."""

import dataclasses

import numpy as np

from keras_vit.backend.runtime import to_numpy
from keras_vit.interpret.taps import inner_images
from keras_vit.metadata import composition
from keras_vit.validation import nearest


@dataclasses.dataclass(frozen=True)
class TokenPCA:
    """Principal components of the tokens of some images.

    Args:
        colors: float32 array `(batch, h, w, 3)`, 0 to 1: three components as red, green and blue; black where
            `foreground` is False.
        foreground: bool array `(batch, h, w)`. All True if it was not asked for.
        components: float32 array `(batch, h, w, 3)`: the same components, not scaled.
    """

    colors: np.ndarray
    foreground: np.ndarray
    components: np.ndarray


def token_pca(model, images, stage=None, foreground=True, batch_size=8):
    """Colors patches by the principal components of their tokens: parts that look alike have like colors.

    As in DINOv2, the first component of all patches tells the foreground from the background, and the colors are the
    first three components of the patches of the foreground, of all images together. The side of the first component
    that the borders of the images have less of is the foreground.

    Args:
        model: a model with tokens, or any model built around one.
        images: array `(batch, height, width, channels)`, as the model takes them. Images of like objects show which
            parts correspond.
        stage: name of a stage with tokens, as in `keras_vit.features`. Default `None`: the final tokens.
        foreground: bool. Whether to leave out the background. Default True.
        batch_size: int. Default 8.

    Returns:
        A `TokenPCA`.

    Raises:
        ValueError: if there is no such stage, or it has no tokens; without images.

    Source: Oquab et al., "DINOv2" (arXiv:2304.07193), section 7.5 and figure 1.
    """
    tokens = _patch_tokens(model, images, stage, batch_size)
    rows = tokens.reshape(-1, tokens.shape[-1]).astype("float64")
    is_foreground = np.ones(tokens.shape[:3], bool)
    if foreground:
        first = _project(rows, rows, 1).reshape(tokens.shape[:3])
        border = np.ones(tokens.shape[1:3], bool)
        border[1:-1, 1:-1] = False
        first = -first if first[:, border].mean() > first.mean() else first
        is_foreground = first > 0
    chosen = is_foreground.reshape(-1)
    components = _project(rows[chosen], rows, 3)
    low, high = components[chosen].min(axis=0), components[chosen].max(axis=0)
    colors = np.clip((components - low) / np.maximum(high - low, 1e-12), 0, 1) * chosen[:, None]
    shape = (*tokens.shape[:3], 3)
    return TokenPCA(colors.reshape(shape).astype("float32"), is_foreground, components.reshape(shape).astype("float32"))


def cosine_map(model, images, patch, stage=None, batch_size=8):
    """The cosine similarity of the token of a patch to those of all patches of the same image.

    Args:
        model, images, stage, batch_size: as for `token_pca`.
        patch: `(row, column)` on the grid of the patches.

    Returns:
        float32 array `(batch, h, w)`, -1 to 1; 1 at the patch itself.

    Raises:
        ValueError: as `token_pca`; if the patch is not on the grid.
    """
    tokens = _patch_tokens(model, images, stage, batch_size)
    row, column = patch
    height, width = tokens.shape[1:3]
    if not (0 <= row < height and 0 <= column < width):
        raise ValueError(f"patch must be on the grid of {height} by {width} patches. Received: patch={tuple(patch)}")
    tokens = tokens / np.maximum(np.linalg.norm(tokens, axis=-1, keepdims=True), 1e-12)
    return np.einsum("bhwc,bc->bhw", tokens, tokens[:, row, column]).astype("float32")


def _patch_tokens(model, images, stage, batch_size):
    """float32 array `(batch, h, w, channels)`."""
    parts = composition(model)
    config = parts.marker.content.config
    config.check_one_size("maps of tokens")
    stage = config.token_stage if stage is None else stage
    if stage not in parts.tensors:
        raise ValueError(
            f"unknown stage of model {model.name!r}{nearest(stage, parts.tensors)} "
            f"Received: stage={stage!r}, known: {list(parts.tensors)}"
        )
    tensor = parts.tensors[stage]
    if len(tensor.shape) not in (3, 4):
        raise ValueError(f"a stage must have tokens. Received: stage={stage!r} of the shape {tuple(tensor.shape)}")
    images = inner_images(parts, images)
    if not len(images):
        raise ValueError("there must be at least one image. Received: 0 images")
    core = parts.core(tensor)
    batches = [images[start : start + batch_size] for start in range(0, len(images), batch_size)]
    tokens = np.concatenate([to_numpy(core(batch, training=False)).astype("float32") for batch in batches])
    if tokens.ndim == 4:
        return tokens
    height, width = config.token_grid(tokens.shape[1])
    return tokens[:, -height * width :].reshape(len(tokens), height, width, -1)


def _project(fitted, rows, components):
    """The first principal components of some rows, of all rows: float64 array `(rows, components)`."""
    mean = fitted.mean(axis=0)
    # Of the covariance: there are many more patches than channels.
    _, vectors = np.linalg.eigh((fitted - mean).T @ (fitted - mean))
    axes = vectors[:, ::-1][:, :components]
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=0)[None], axis=0)
    projected = (rows - mean) @ (axes * np.sign(largest))
    return np.pad(projected, ((0, 0), (0, components - projected.shape[1])))
