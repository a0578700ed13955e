"""Views of a model that depend on no class: reach of the heads, positions, filters of the patches."""

import math

import keras
import numpy as np

from keras_vit.backend.runtime import to_numpy
from keras_vit.interpret.taps import inner_images
from keras_vit.layers import PatchEncoder, SwinBlock, TransformerEncoder
from keras_vit.metadata import composition
from keras_vit.validation import check_positive


def attention_distance(model, images, batch_size=8):
    """The mean distance in pixels over which each attention head looks.

    For each patch the distances of the centers of all patches from its own are averaged with its attention as weights;
    the mean over all patches is the distance of the head. Tokens in front of the patches are left out of queries and
    keys, and the weights of a patch are not normalized again. In a Swin Transformer the distances are those inside a
    window.

    Args:
        model: a model with encoder blocks, or any model built around one.
        images: array `(batch, height, width, channels)`, as the model takes them.
        batch_size: int. Default 8.

    Returns:
        List of float32 arrays `(batch, heads)`, one a block: pixels of the image that enters the Transformer. Blocks
        of a Swin Transformer differ in the number of heads; of other models `numpy.stack` makes one array.

    Raises:
        ValueError: if the model has no encoder blocks; without images.

    Source: Dosovitskiy et al., arXiv:2010.11929, appendix D.7 and figure 7, right.
    """
    parts = composition(model)
    parts.marker.content.config.check_one_size("attention distances")
    blocks = [layer for layer in parts.inner.layers if isinstance(layer, TransformerEncoder | SwinBlock)]
    if not blocks:
        raise ValueError(f"attention distances need encoder blocks. Received: model={model.name!r}")
    images = inner_images(parts, images)
    if not len(images):
        raise ValueError("there must be at least one image. Received: 0 images")
    grids = parts.marker.content.config.attention_grids()
    entering = parts.core([block.input for block in blocks])
    found = [[] for _ in blocks]
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        tokens = entering(batch, training=False)
        tokens = tokens if isinstance(tokens, list) else [tokens]
        for i, (block, x) in enumerate(zip(blocks, tokens, strict=True)):
            _, attention = block(x, return_attention=True)
            found[i].append(_distances(to_numpy(attention).astype("float32"), *grids[i], len(batch)))
    return [np.concatenate(parts) for parts in found]


def _distances(attention, grid, pitch, batch):
    """float32 array `(batch, heads)` of attention `(batch * windows, heads, tokens, tokens)`."""
    rows, columns = np.divmod(np.arange(math.prod(grid)), grid[1])
    rows, columns = (np.subtract.outer(x, x) * side for x, side in zip((rows, columns), pitch, strict=True))
    distances = np.hypot(rows, columns).astype("float32")
    patches = len(distances)
    means = (attention[:, :, -patches:, -patches:] * distances).sum(axis=-1).mean(axis=-1)
    return means.reshape(batch, -1, means.shape[-1]).mean(axis=1)


def position_similarity(model):
    """The cosine similarity of the position embeddings of all pairs of patches.

    Args:
        model: a model with absolute positions, learned or fixed, or any model built around one.

    Returns:
        float32 array `(h, w, h, w)`: entry `[i, j]` is the map of the similarities to the patch in row i, column j.

    Raises:
        ValueError: if the model has no absolute positions, as Swin Transformers.

    Source: Dosovitskiy et al., arXiv:2010.11929, figure 7, center.
    """
    parts = composition(model)
    encoders = [layer for layer in parts.inner.layers if isinstance(layer, PatchEncoder)]
    if not encoders:
        raise ValueError(
            "the similarity of positions needs a model with a position embedding; a Swin Transformer has relative "
            f"positions in its attention instead. Received: model={model.name!r}"
        )
    (encoder,) = encoders
    table = to_numpy(keras.ops.convert_to_tensor(encoder.positions)).astype("float64")[0]
    table = table[encoder.num_positioned_prefix :]
    table = table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
    return (table @ table.T).reshape(*encoder.grid_size, *encoder.grid_size).astype("float32")


def patch_filters(model, components=28):
    """The principal components of the filters that embed the patches.

    Args:
        model: a model of any family with patches, or any model built around one. Of a hybrid the filters are those of
            the first convolution.
        components: int. Default 28; at most as many as a filter has numbers, or as there are filters.

    Returns:
        float32 array `(components, height, width, channels)`, each of length one, the one with the largest variance
        first. The sign makes the largest number positive.

    Raises:
        ValueError: if the model has no patches; if `components` is not positive.

    Source: Dosovitskiy et al., arXiv:2010.11929, figure 7, left.
    """
    check_positive(components, "components")
    parts = composition(model)
    config, layers = parts.marker.content.config, {layer.name: layer for layer in parts.inner.layers}
    layer = layers.get(config.kernel_layer)
    if layer is None:
        raise ValueError(
            f"the filters of patches need a model with patches. Received: model={model.name!r} with a "
            f"{type(config).__name__}"
        )
    kernel = next(weight for weight in layer.weights if weight.path.endswith("kernel"))
    shape = kernel.shape[:3] if len(kernel.shape) == 4 else (*config.patch_size, config.num_channels)
    filters = to_numpy(keras.ops.convert_to_tensor(kernel)).astype("float64").reshape(math.prod(shape), -1).T
    _, _, found = np.linalg.svd(filters - filters.mean(axis=0), full_matrices=False)
    found = found[:components]
    largest = np.take_along_axis(found, np.abs(found).argmax(axis=1)[:, None], axis=1)
    return (found * np.sign(largest)).reshape(-1, *shape).astype("float32")
