"""What the shapes of a file tell of the architecture, and what they do not."""

import dataclasses
import math

from keras_vit.models import SIZES, HybridConfig, ViTConfig
from keras_vit.validation import as_pair

# What arrays tell for certain; where a file's own description says otherwise, it is not of these arrays.
_CERTAIN = ("hidden_dim", "embed_dim", "num_layers", "depths", "mlp_dim", "num_channels", "patch_size", "num_classes")


def grid_of_table(entries, num_prefix, grids=()):
    """The grid of a position table and how many of its entries belong to prefix tokens.

    A table says how many entries it has, not how they lie. It is taken to be of the first of `grids` where the
    number fits, else square.

    Args:
        entries: int.
        num_prefix: int. Class and distillation token of the model.
        grids: of `(h, w)` and `None`, the most likely first.

    Returns:
        A pair: `(h, w)`, and the entries of prefix tokens, `num_prefix` or 0.

    Raises:
        ValueError: if the number fits neither.
    """
    prefixes, known = tuple(dict.fromkeys((num_prefix, 0))), [grid for grid in grids if grid is not None]
    for grid in known:
        for prefix in prefixes:
            if entries - prefix == math.prod(grid):
                return tuple(grid), prefix
    for prefix in prefixes:
        side = math.isqrt(max(entries - prefix, 0))
        if side and side * side == entries - prefix:
            return (side, side), prefix
    raise ValueError(
        "a position table must be square or fit image_size, which a file does not tell; pass image_size=(h, w). "
        f"Received: {entries} entries with {num_prefix} prefix tokens, grids {known}"
    )


def window_of_table(entries, windows=()):
    """The window of a table of relative position biases: the first of `windows` that fits, else square.

    Args:
        entries: int.
        windows: of `(h, w)`, the most likely first.

    Returns:
        `(h, w)`.

    Raises:
        ValueError: if the number fits neither.
    """
    for height, width in windows:
        if entries == (2 * height - 1) * (2 * width - 1):
            return height, width
    side = math.isqrt(entries)
    if side * side == entries and side % 2:
        return ((side + 1) // 2,) * 2
    raise ValueError(
        "a table of relative position biases must be of a square window or fit window_size, which a file does not "
        f"tell; pass window_size=(h, w). Received: {entries} entries, windows {list(windows)}"
    )


def kernel_sizes(shape):
    """Width, channels and patch size of a convolution kernel `(hidden_dim, channels, h, w)`.

    Raises:
        ValueError: if it has another number of axes.
    """
    if len(shape) != 4:
        raise ValueError(f"a patch kernel must have four axes. Received: shape={tuple(shape)}")
    return shape[0], shape[1], tuple(shape[2:])


def position_fields(entries, num_prefix, patch_size, hints):
    """`image_size` and `position_on_prefix` of the model that a table was written from.

    Args:
        entries: int, those of the table.
        num_prefix: int. Class and distillation token of the model.
        patch_size: `(h, w)`.
        hints: dict; its `image_size` says which grid is meant where several have so many entries.
    """
    wanted = hints.get("image_size")
    grid = (
        None
        if wanted is None
        else tuple(-(-s // p) for s, p in zip(as_pair(wanted, "image_size"), patch_size, strict=True))
    )
    table_grid, prefix = grid_of_table(entries, num_prefix, (grid,))
    size = tuple(side * patch for side, patch in zip(table_grid, patch_size, strict=True))
    return {"image_size": size, "position_on_prefix": prefix > 0}


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


def infer_config(checkpoint, layout, description, wanted=None, defaults=None):
    """The config of the model that a checkpoint was written from.

    Args:
        checkpoint: `Checkpoint`, with single blocks.
        layout: its layout.
        description: `Description` of the file; the config in it is the answer, if the arrays agree.
        wanted: dict of fields that a user asks for. They decide what neither arrays nor description tell.
        defaults: dict of fields that decide it before `wanted` does.

    Returns:
        A config.

    Raises:
        ValueError: if a key is missing without which nothing can be told, if what no file tells is unknown, or if
            the description contradicts the arrays.
    """
    told, others = description.told, {**(wanted or {}), **(defaults or {})}
    inferred = {
        **_infer(checkpoint, layout, {**(defaults or {}), **(wanted or {}), **told}),
        **layout.infer_values(checkpoint),
    }
    if description.config is not None:
        _check_agreement(checkpoint, description.config, inferred)
        return description.config
    known = {field.name for field in dataclasses.fields(layout.config_class)}
    others, told = ({name: v for name, v in group.items() if name in known} for group in (others, told))
    return layout.make_config({**others, **layout.settle(inferred, told)})


def _infer(checkpoint, layout, hints):
    try:
        return layout.infer(checkpoint.shapes, hints)
    except KeyError as error:
        raise ValueError(
            f"a checkpoint of layout {layout.name!r} must have the key {error}. Received: {str(checkpoint.path)!r}"
        ) from error
    except (IndexError, TypeError) as error:
        raise ValueError(
            f"the arrays of a checkpoint must have the axes of its layout. Received: {str(checkpoint.path)!r}, read "
            f"as layout {layout.name!r} ({error})"
        ) from error


def _check_agreement(checkpoint, config, inferred):
    for name in _CERTAIN:
        if name in inferred and inferred[name] != getattr(config, name, None):
            raise ValueError(
                "the config that keras_vit wrote into a checkpoint must be that of its arrays. Received: "
                f"{str(checkpoint.path)!r} with {name}={getattr(config, name, None)!r} for arrays of {inferred[name]!r}"
            )
