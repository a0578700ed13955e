"""What the shapes of a file tell of the architecture, and what they do not."""

import math

from keras_vit.models import SIZES, HybridConfig, ViTConfig
from keras_vit.validation import as_pair


def grid_of_table(entries, num_prefix, grid_size=None):
    """The grid of a position table and how many of its entries belong to prefix tokens.

    A table says how many entries it has, not how they lie. It is taken to be of `grid_size` where the number
    fits, else square.

    Args:
        entries: int.
        num_prefix: int. Class and distillation token of the model.
        grid_size: `(h, w)` of the model, or `None`.

    Returns:
        A pair: `(h, w)`, and the entries of prefix tokens, `num_prefix` or 0.

    Raises:
        ValueError: if the number fits neither.
    """
    for prefix in dict.fromkeys((num_prefix, 0)):
        if grid_size is not None and entries - prefix == math.prod(grid_size):
            return tuple(grid_size), prefix
    for prefix in dict.fromkeys((num_prefix, 0)):
        side = math.isqrt(max(entries - prefix, 0))
        if side and side * side == entries - prefix:
            return (side, side), prefix
    raise ValueError(
        "a position table must be square or fit image_size, which a file does not tell; pass image_size=(h, w). "
        f"Received: {entries} entries with {num_prefix} prefix tokens, grid_size={grid_size}"
    )


def position_fields(entries, num_prefix, patch_size, hints):
    """`image_size` and `position_on_prefix` of a model, given its table's number of entries."""
    wanted = hints.get("image_size")
    grid = (
        None
        if wanted is None
        else tuple(-(-s // p) for s, p in zip(as_pair(wanted, "image_size"), patch_size, strict=True))
    )
    table_grid, prefix = grid_of_table(entries, num_prefix, grid)
    size = tuple(side * patch for side, patch in zip(table_grid, patch_size, strict=True))
    return {"image_size": size if wanted is None else wanted, "position_on_prefix": prefix > 0}


def published_heads(hidden_dim, num_layers, mlp_dim):
    """The number of heads of the published size with these numbers, or `None`."""
    sizes = {(width, depth, mlp): heads for width, depth, heads, mlp in SIZES.values()}
    return sizes.get((hidden_dim, num_layers, mlp_dim))


def complete_vit(fields):
    """The config of inferred fields, a hybrid or not, with the heads of the published size where nothing tells them.

    Raises:
        ValueError: if the number of heads is unknown.
    """
    if "num_heads" not in fields:
        heads = published_heads(fields["hidden_dim"], fields["num_layers"], fields["mlp_dim"])
        if heads is None:
            raise ValueError(
                "the number of attention heads cannot be told from this file; pass num_heads=. "
                f"Received: hidden_dim={fields['hidden_dim']}"
            )
        fields = {**fields, "num_heads": heads}
    return (HybridConfig if "stem_depths" in fields else ViTConfig)(**fields)


def infer_config(checkpoint, layout, hints):
    """The config of a checkpoint.

    Args:
        checkpoint: `Checkpoint`, with single blocks.
        layout: its layout.
        hints: dict of fields that are known from elsewhere; they win.

    Raises:
        ValueError: if a key is missing without which nothing can be told, or what no file tells is unknown.
    """
    try:
        fields = layout.infer(checkpoint.shapes, hints)
    except KeyError as error:
        raise ValueError(
            f"a checkpoint of layout {layout.name!r} must have the key {error}. Received: {str(checkpoint.path)!r}"
        ) from error
    return layout.make_config({**fields, **hints})
