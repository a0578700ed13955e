"""Infers fields of a config from the shapes of a file's arrays."""

import math

from keras_vit.models.hybrid import stem_stride
from keras_vit.validation import as_pair


def axes(shapes, key, count):
    """Returns the shape of an array that determines the architecture.

    Args:
        shapes: dict from key to shape.
        key: str.
        count: int. How many axes it must have.

    Raises:
        KeyError: if there is no such key.
        ValueError: if it has another number of axes.
    """
    if len(shapes[key]) != count:
        raise ValueError(
            f"an array that determines the architecture must have the axes of its layout, {count}. "
            f"Received: {key!r} of shape {tuple(shapes[key])}"
        )
    return tuple(shapes[key])


def ratio_of_widths(pairs):
    """Finds the shortest decimal that gives the widths inside the MLPs, which are truncated to integers.

    Args:
        pairs: of ints, the width of a token and that inside the MLP, one for each stage.

    Raises:
        ValueError: if no ratio gives all of them.
    """
    least = max(inner / outer for outer, inner in pairs)
    for digits in range(17):
        ratio = math.ceil(least * 10**digits) / 10**digits
        if all(int(outer * ratio) == inner for outer, inner in pairs):
            return ratio
    raise ValueError(f"the MLPs of all stages must be of one mlp_ratio. Received: widths {pairs} of tokens and MLPs")


def kernel_sizes(shapes, key):
    """Returns width, channels and patch size of a patch kernel `(hidden_dim, channels, h, w)`."""
    width, channels, *patch_size = axes(shapes, key, 4)
    return width, channels, tuple(patch_size)


def count_classes(shapes, kernels, biases, outputs=0):
    """Counts the classes by the first array of a head that exists, 0 without one; the load reports missing arrays.

    Args:
        shapes: dict from key to shape.
        kernels, biases: keys.
        outputs: int. The axis of a kernel that counts the classes.
    """
    kernel = next((key for key in kernels if key in shapes), None)
    if kernel is not None:
        return axes(shapes, kernel, 2)[outputs]
    return next((axes(shapes, key, 1)[0] for key in biases if key in shapes), 0)


def grid_of_table(entries, num_prefix, grids=(), square=False, spare=False):
    """Infers the grid of a position table, and the number of its entries that belong to prefix tokens.

    The number of entries does not determine the grid: it is the first of `grids` that fits, else square.

    Args:
        entries: int.
        num_prefix: int. Class and distillation token of the model.
        grids: of `(h, w)` and `None`, the most likely first.
        square: bool. Whether the source has only square tables: a square number of entries is then a square grid.
        spare: bool. Whether a table that fits nothing else may be a square after one unused entry.

    Returns:
        A pair: `(h, w)`, and the entries of prefix tokens, `num_prefix` or 0; 1 where there is a spare one.

    Raises:
        ValueError: if the number fits neither.
    """
    prefixes, known = tuple(dict.fromkeys((num_prefix, 0))), [grid for grid in grids if grid is not None]
    fitting = [(tuple(grid), p) for grid in known for p in prefixes if entries - p == math.prod(grid)]
    sides = [(math.isqrt(max(entries - p, 0)), p) for p in dict.fromkeys((*prefixes, *[1] * spare))]
    squares = [((side, side), p) for side, p in sides if side and side * side == entries - p]
    candidates = [*(c for c in squares if square and c[1] == num_prefix), *fitting, *squares]
    if candidates:
        return candidates[0]
    raise ValueError(
        "a position table must be square or fit image_size, which a file does not state; pass image_size=(h, w). "
        f"Received: {entries} entries with {num_prefix} prefix tokens, grids {known}"
    )


def window_of_table(entries, windows=()):
    """Infers the window of a table of relative position biases: the first of `windows` that fits, else square.

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
        f"state; pass window_size=(h, w). Received: {entries} entries, windows {list(windows)}"
    )


def position_fields(entries, num_prefix, fields, known_fields, square=False, spare=False):
    """Infers `image_size`, `position_on_prefix` and, if true, `drop_remainder` from a position table.

    Args:
        entries: int, those of the table.
        num_prefix: int. Class and distillation token of the model.
        fields: dict with `patch_size`, of a hybrid also with `stem_depths`.
        known_fields: dict; its `image_size` is used if the table has as many entries as such an image has
            patches. It may have pixels beyond the last whole patch.
        square, spare: as for `grid_of_table`.
    """
    image_size, patch_size = known_fields.get("image_size"), fields["patch_size"]
    stride = stem_stride(fields["stem_depths"]) if "stem_depths" in fields else 1
    grid, rest = None, False
    if image_size is not None:
        image_size = as_pair(image_size, "image_size")
        # A ResNet rounds up, a grid of patches down.
        parts = [divmod(-(-side // stride), patch) for side, patch in zip(image_size, patch_size, strict=True)]
        if all(whole for whole, _ in parts):
            grid, rest = tuple(whole for whole, _ in parts), any(part for _, part in parts)
    table_grid, prefix = grid_of_table(entries, num_prefix, (grid,), square, spare)
    on_prefix = 0 < prefix <= num_prefix
    if table_grid != grid:
        size = tuple(side * patch * stride for side, patch in zip(table_grid, patch_size, strict=True))
        return {"image_size": size, "position_on_prefix": on_prefix}
    dropped = {"drop_remainder": True} if rest else {}
    return {"image_size": image_size, "position_on_prefix": on_prefix, **dropped}
