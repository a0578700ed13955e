"""Attention rollout: a heat map of the patches that contribute to the representation of an image."""

import keras
from keras import ops

from keras_vit.interpret.attention import BlockWithAttention
from keras_vit.layers import TransformerEncoder
from keras_vit.metadata import composition
from keras_vit.validation import check_choice, check_rate

FUSIONS = ("mean", "max", "min")


@keras.saving.register_keras_serializable(package="keras_vit")
class FuseHeads(keras.layers.Layer):
    """One matrix of attention of those of all heads.

    Args:
        fusion: `mean`, `max` or `min` over the heads. Default `mean`.
        discard_ratio: float in [0, 1). The part of an image's values, the smallest ones, that becomes zero; values as
            large as the least that is kept are kept. Default 0.

    Call arguments:
        attention: tensor `(batch, heads, tokens, tokens)`.

    Returns:
        float32 tensor `(batch, tokens, tokens)`.
    """

    def __init__(self, fusion="mean", discard_ratio=0.0, **kwargs):
        super().__init__(**kwargs)
        self.fusion = check_choice(fusion, FUSIONS, "fusion")
        self.discard_ratio = check_rate(discard_ratio, "discard_ratio")
        self.built = True

    def call(self, attention):
        fused = getattr(ops, self.fusion)(ops.cast(attention, "float32"), axis=1)
        values = fused.shape[-1] ** 2
        if not int(self.discard_ratio * values):
            return fused
        ordered = ops.sort(ops.reshape(fused, (-1, values)), axis=-1)
        least = ops.reshape(ordered[:, int(self.discard_ratio * values)], (-1, 1, 1))
        return ops.where(fused < least, 0.0, fused)

    def compute_output_spec(self, attention):
        batch, _, tokens, _ = attention.shape
        return keras.KerasTensor((batch, tokens, tokens), dtype="float32")

    def get_config(self):
        return {**super().get_config(), "fusion": self.fusion, "discard_ratio": self.discard_ratio}


@keras.saving.register_keras_serializable(package="keras_vit")
class RolloutStep(keras.layers.Layer):
    """Propagates the share of every input token in every token through one block.

    The residual connection counts as much as the attention: `(A + I) R`, the rows divided by the sums of those of
    `A + I`.

    Call arguments:
        attention: float32 tensor `(batch, tokens, tokens)`, of all heads together.
        rollout: float32 tensor `(batch, tokens, tokens)`, the result of the step before; `None` in the first one.

    Returns:
        float32 tensor `(batch, tokens, tokens)`, whose rows sum to one.

    Source: Abnar and Zuidema, "Quantifying Attention Flow in Transformers" (arXiv:2005.00928), section 3.
    """

    def call(self, attention, rollout=None):
        before = ops.eye(attention.shape[-1]) if rollout is None else rollout
        reached = attention if rollout is None else ops.matmul(attention, rollout)
        return (reached + before) / (ops.sum(attention, axis=-1, keepdims=True) + 1)

    def compute_output_spec(self, attention, rollout=None):
        return keras.KerasTensor(attention.shape, dtype="float32")


@keras.saving.register_keras_serializable(package="keras_vit")
class HeatMap(keras.layers.Layer):
    """Shares of the patches in some tokens, on the grid of the patches.

    Args:
        grid_size: `(h, w)`. The patches are the last tokens.
        num_queries: int or `None`. How many tokens at the front are asked; their mean counts. `None` asks the patches.

    Call arguments:
        relevance: float32 tensor `(batch, tokens, tokens)`, a row for each token that takes.

    Returns:
        float32 tensor `(batch, h, w)`, which sums to one; zeros where nothing comes from any patch.
    """

    def __init__(self, grid_size, num_queries=None, **kwargs):
        super().__init__(**kwargs)
        self.grid_size = tuple(grid_size)
        self.num_queries = num_queries
        self.built = True

    def call(self, relevance):
        height, width = self.grid_size
        prefix = relevance.shape[-1] - height * width
        queries = relevance[:, prefix:] if self.num_queries is None else relevance[:, : self.num_queries]
        received = ops.mean(queries[:, :, prefix:], axis=1)
        total = ops.sum(received, axis=-1, keepdims=True)
        return ops.reshape(received / ops.where(total > 0, total, 1.0), (-1, height, width))

    def compute_output_spec(self, relevance):
        return keras.KerasTensor((relevance.shape[0], *self.grid_size), dtype="float32")

    def get_config(self):
        return {**super().get_config(), "grid_size": list(self.grid_size), "num_queries": self.num_queries}


def rollout_model(model, fusion="mean", discard_ratio=0.0):
    """A model that returns heat maps beside the outputs of a Vision Transformer, in one forward pass.

    Where a token is pooled, the map is that token's attention rollout through all blocks; with a distillation token,
    the mean of both. Where the patches are pooled (`gap`, `map`) it is the attention that a patch receives in the last
    block, averaged over the patches that give it.

    Args:
        model: a Vision Transformer or hybrid, or any model built around one.
        fusion: `mean`, `max` or `min` over the heads. Default `mean`.
        discard_ratio: float in [0, 1). Part of the attention of each block, the smallest values, that does not count.
            Default 0.

    Returns:
        A `keras.Model` from images to a dict: `heat_map`, float32 `(batch, h, w)`, the patches of an image, each map
        with a sum of one; and `outputs`, those of `model`. It shares the layers of `model`, which stays as it is.

    Raises:
        ValueError: if the model has no blocks in which every token attends to every other.
    """
    parts = composition(model)
    blocks = [layer for layer in parts.inner.layers if isinstance(layer, TransformerEncoder)]
    config = parts.marker.content.config
    config.check_one_size("explanations")
    if not config.has_global_attention or not blocks:
        raise ValueError(
            "a rollout needs blocks in which every token attends to every other, as a Vision Transformer's; those of a "
            "Swin Transformer attend inside windows. Explain its classes with grad_cam, integrated_gradients or "
            "smooth_grad. "
            f"Received: model={model.name!r} with a {type(config).__name__}"
        )
    is_rollout = config.pooling in ("token", "token_gap")
    asked = blocks if is_rollout else blocks[-1:]
    tokens, relevance = asked[0].input, None
    for block in asked:
        tokens, attention = BlockWithAttention(block, dtype=block.dtype_policy, name=block.name)(tokens)
        fused = FuseHeads(fusion, discard_ratio, dtype="float32", name=f"{block.name}_heads")(attention)
        step = RolloutStep(dtype="float32", name=f"{block.name}_rollout")
        relevance = step(fused, relevance) if is_rollout else fused
    num_queries = 1 + int(config.distillation_token) if is_rollout else None
    heat_map = HeatMap(config.grid_size, num_queries, dtype="float32", name="heat_map")(relevance)
    outputs = {"heat_map": heat_map, "outputs": _rest(parts, blocks[-1], tokens)}
    return parts.with_front(outputs, f"{model.name}_rollout")


def _rest(parts, block, tokens):
    """Applies what a model does to the tokens after its last block."""
    try:
        return keras.Model(block.output, parts.outputs, name="outputs")(tokens)
    except ValueError:  # a head that starts from several blocks
        return parts.outputs


def rollout(model, images, fusion="mean", discard_ratio=0.0, batch_size=32):
    """Heat maps of some images: which patches are in what the classifier sees.

    Args:
        model: as for `rollout_model`.
        images: array `(batch, height, width, channels)`, as the model takes them.
        fusion, discard_ratio: as for `rollout_model`.
        batch_size: int. Default 32.

    Returns:
        float32 array `(batch, h, w)`, the patches of an image, each map with a sum of one.

    Raises:
        ValueError: as `rollout_model`.
    """
    maps = rollout_model(model, fusion, discard_ratio)
    return maps.predict(images, batch_size=batch_size, verbose=0)["heat_map"]
