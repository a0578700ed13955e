"""Infers the windows of a Swin Transformer, and those of its pretraining, from a file."""

import math

from keras_vit.models import SwinConfig
from keras_vit.validation import as_pair
from keras_vit.weights.config.shapes import axes, window_of_table

# Farther than any window reaches: log2(8 * x + 1) / log2(8) of 4000 windows beside each other.
_FARTHEST = 5


def window_of_coordinates(table):
    """Infers the window of training from a file's coordinates `(1, 2 h - 1, 2 w - 1, 2)`; 0 if they are invalid."""
    if table.ndim != 4 or table.shape[0] != 1 or not table.size:
        return 0
    farthest, reach = float(table[0, -1, 0, 0]), table.shape[1] // 2
    # The farthest coordinate is log2(8 * reach / (window - 1) + 1) / log2(8).
    return round(8 * reach / (8**farthest - 1)) + 1 if 0 < farthest < _FARTHEST else 0


def _window(shapes, attention, windows):
    """Infers the window of a block from its table or buffer, or `None` without both."""
    table, index = f"{attention}.relative_position_bias_table", shapes.get(f"{attention}.relative_position_index")
    if table in shapes:
        return window_of_table(axes(shapes, table, 2)[0], windows)
    if not index:
        return None
    # A pair of tokens each, in a square or in a row.
    tokens = index[0] if len(index) == 2 else math.isqrt(index[0])
    return (math.isqrt(tokens),) * 2


def window_fields(shapes, firsts, patch_size, known_fields):
    """Infers `window_size` and `image_size`, as far as tables and buffers determine them.

    Args:
        shapes: dict from key to shape.
        firsts: keys of the attention of each stage's first block.
        patch_size: `(h, w)`.
        known_fields: dict; its `window_size` and `image_size` select sizes that are not square.

    Returns:
        A dict, empty if nothing can be inferred.
    """
    window = _window(shapes, firsts[0], _candidate_windows(patch_size, known_fields))
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
        image_size = _size_of_windows(axes(shapes, mask, 3)[0], pixels, known_fields.get("image_size"))
    return {"window_size": window} | ({"image_size": image_size} if image_size else {})


def image_size_field(shapes, firsts, fields, known_fields):
    """Confirms the known `image_size` of version 2: its windows at this size must be those of the file in all stages.

    Args:
        shapes, firsts, known_fields: as for `window_fields`.
        fields: dict of all other fields of the config.

    Returns:
        A dict with `image_size`, empty if it is another one or unknown.
    """
    if fields["version"] == 1 or "window_size" not in fields or known_fields.get("image_size") is None:
        return {}
    try:
        config = SwinConfig(**fields | {"image_size": known_fields["image_size"]})
        windows = tuple(_window(shapes, first, []) for first in firsts)
    except ValueError:
        return {}
    return {"image_size": config.image_size} if windows == config.windows else {}


def _candidate_windows(patch_size, known_fields):
    """Lists the known `window_size`, and its part on the grid of the known `image_size`."""
    if known_fields.get("window_size") is None:
        return []
    window = as_pair(known_fields["window_size"], "window_size")
    if known_fields.get("image_size") is None:
        return [window]
    size = as_pair(known_fields["image_size"], "image_size")
    grid = tuple(side // patch for side, patch in zip(size, patch_size, strict=True))
    return [window, tuple(min(sides) for sides in zip(window, grid, strict=True))]


def _size_of_windows(count, pixels, image_size):
    """Infers the image size from the number of windows and their pixels: `image_size` if it fits, else square."""
    if image_size is not None:
        image_size = as_pair(image_size, "image_size")
        # Only Microsoft's files hold masks, and its windows divide an image.
        parts = [divmod(side, step) for side, step in zip(image_size, pixels, strict=True)]
        if not any(rest for _, rest in parts) and count == math.prod(whole for whole, _ in parts):
            return image_size
    side = math.isqrt(count)
    return tuple(side * step for step in pixels) if side * side == count else None
