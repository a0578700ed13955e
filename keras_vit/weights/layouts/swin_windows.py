"""Infers the windows of a Swin Transformer, and those of its pretraining, from a file."""

import math

from keras_vit.models import SwinConfig
from keras_vit.validation import as_pair
from keras_vit.weights.config.shapes import axes, window_of_table

# Farther than any window reaches: log2(8 * x + 1) / log2(8) of 4000 windows beside each other.
_FARTHEST = 5


def window_of_coordinates(table):
    """The window of training that a file's coordinates `(1, 2 h - 1, 2 w - 1, 2)` tell, or 0 if they tell none."""
    if table.ndim != 4 or table.shape[0] != 1 or not table.size:
        return 0
    farthest, reach = float(table[0, -1, 0, 0]), table.shape[1] // 2
    # The farthest coordinate is log2(8 * reach / (window - 1) + 1) / log2(8).
    return round(8 * reach / (8**farthest - 1)) + 1 if 0 < farthest < _FARTHEST else 0


def _window(shapes, attention, windows):
    """The window of a block's table or buffer, or `None` if there is neither."""
    table, index = f"{attention}.relative_position_bias_table", shapes.get(f"{attention}.relative_position_index")
    if table in shapes:
        return window_of_table(axes(shapes, table, 2)[0], windows)
    if not index:
        return None
    # A pair of tokens each, in a square or in a row.
    tokens = index[0] if len(index) == 2 else math.isqrt(index[0])
    return (math.isqrt(tokens),) * 2


def told_sizes(shapes, firsts, patch_size, hints):
    """`window_size` and `image_size`, as far as tables and buffers tell them.

    Args:
        shapes: dict from key to shape.
        firsts: keys of the attention of each stage's first block.
        patch_size: `(h, w)`.
        hints: dict; its `window_size` and `image_size` say which are meant where they are not square.

    Returns:
        A dict, empty where nothing tells.
    """
    window = _window(shapes, firsts[0], _wanted_windows(patch_size, hints))
    if window is None:
        return {}
    try:
        last = _window(shapes, firsts[-1], [window]) or window
    except ValueError:  # a table that is not square, cut by an image that is neither
        last = window
    # The published models have as many tokens in the last stage as in its window.
    grid = tuple(side * 2 ** (len(firsts) - 1) for side in last)
    image_size = tuple(side * patch for side, patch in zip(grid, patch_size, strict=True))
    mask = f"{firsts[0].replace('.blocks.0.', '.blocks.1.').removesuffix('.attn')}.attn_mask"
    if mask in shapes:
        pixels = tuple(side * patch for side, patch in zip(window, patch_size, strict=True))
        image_size = _size_of_windows(axes(shapes, mask, 3)[0], pixels, hints.get("image_size"))
    return {"window_size": window} | ({"image_size": image_size} if image_size else {})


def image_of_windows(shapes, firsts, fields, hints):
    """The `image_size` of hints as a field, where the windows of all stages are those that version 2 has at this size.

    Args:
        shapes, firsts, hints: as for `told_sizes`.
        fields: dict of all other fields of the config.

    Returns:
        A dict, empty where the size of the image is another one or cannot be told.
    """
    if fields["version"] == 1 or "window_size" not in fields or hints.get("image_size") is None:
        return {}
    try:
        config = SwinConfig(**fields | {"image_size": hints["image_size"]})
        found = tuple(_window(shapes, first, []) for first in firsts)
    except ValueError:
        return {}
    return {"image_size": config.image_size} if found == config.windows else {}


def _wanted_windows(patch_size, hints):
    """The `window_size` of hints, and what is left of it on the grid of their `image_size`."""
    if hints.get("window_size") is None:
        return []
    window = as_pair(hints["window_size"], "window_size")
    if hints.get("image_size") is None:
        return [window]
    size = as_pair(hints["image_size"], "image_size")
    grid = tuple(side // patch for side, patch in zip(size, patch_size, strict=True))
    return [window, tuple(min(sides) for sides in zip(window, grid, strict=True))]


def _size_of_windows(count, pixels, wanted):
    """The size of an image of so many windows of so many pixels: as wanted if that fits, else square or `None`."""
    if wanted is not None:
        wanted = as_pair(wanted, "image_size")
        # Only Microsoft's files hold masks, and its windows divide an image.
        parts = [divmod(side, step) for side, step in zip(wanted, pixels, strict=True)]
        if not any(rest for _, rest in parts) and count == math.prod(whole for whole, _ in parts):
            return wanted
    side = math.isqrt(count)
    return tuple(side * step for step in pixels) if side * side == count else None
