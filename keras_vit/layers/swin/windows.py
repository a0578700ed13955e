"""Windows of a grid of tokens, and the constants that depend on them only."""

import numpy as np
from keras import ops

WINDOW_RULES = ("timm", "microsoft", "huggingface")
# Added to the logits of pairs from different regions, as in every public implementation.
MASK_VALUE = -100.0


def window_and_shift(resolution, window_size, rule):
    """Computes the window of a stage and the shift of its odd blocks.

    A window is never larger than the grid, and a grid of one window is not shifted. `timm` decides this for each
    axis, `microsoft` and `huggingface` by the smaller side for both.

    Args:
        resolution: `(h, w)`, tokens of the stage.
        window_size: `(h, w)`, the requested window.
        rule: one of `WINDOW_RULES`.

    Returns:
        Two pairs `(h, w)`: window and shift.

    Source: `SwinTransformerBlock` of timm (`_calc_window_shift`) and of microsoft/Swin-Transformer.
    """
    if rule == "timm":
        window = tuple(min(r, w) for r, w in zip(resolution, window_size, strict=True))
        return window, tuple(w // 2 if r > w else 0 for r, w in zip(resolution, window, strict=True))
    if min(resolution) <= min(window_size):
        return (min(resolution),) * 2, (0, 0)
    return tuple(window_size), tuple(w // 2 for w in window_size)


def window_and_shift_by_height(height, window_size):
    """Computes window and shift of a stage as transformers' Swin V2 does, which uses only the height of the grid.

    Args:
        height: int, rows of the stage without those that an odd grid loses in the merging.
        window_size: int, the requested window.

    Returns:
        Two pairs `(h, w)`: window and shift.

    Source: transformers `modeling_swinv2.py`, `Swinv2Layer._compute_window_shift`.
    """
    window = min(max(height, 1), window_size)
    return (window,) * 2, ((0 if height <= window_size else window_size // 2),) * 2


def padded_size(resolution, window_size):
    """Returns the smallest grid of whole windows that holds `resolution`, `(h, w)`."""
    return tuple(-(-r // w) * w for r, w in zip(resolution, window_size, strict=True))


def pad_grid(grid, size):
    """Pads `(batch, h, w, channels)` with zeros below and to the right, up to `size`."""
    below, right = size[0] - grid.shape[1], size[1] - grid.shape[2]
    return ops.pad(grid, ((0, 0), (0, below), (0, right), (0, 0))) if below or right else grid


def partition_windows(grid, window_size):
    """Cuts `(batch, h, w, channels)` into `(batch * windows, tokens, channels)`: image-major, row by row."""
    (height, width), (_, columns, channels) = window_size, grid.shape[1:]
    # Columns and channels stay together, so that two axes are swapped once.
    x = ops.reshape(grid, (-1, height, columns // width, width * channels))
    x = ops.transpose(x, (0, 2, 1, 3))  # (batch * h / height, columns / width, height, width * channels)
    return ops.reshape(x, (-1, height * width, channels))


def merge_windows(windows, window_size, size):
    """Assembles a grid of `size` from its windows: the inverse of `partition_windows`."""
    (height, width), channels = window_size, windows.shape[-1]
    x = ops.reshape(windows, (-1, size[1] // width, height, width * channels))
    x = ops.transpose(x, (0, 2, 1, 3))  # (batch * h / height, height, columns / width, width * channels)
    return ops.reshape(x, (-1, *size, channels))


def shift_regions(size, window_size, shift):
    """Numbers the regions that the cyclic shift brings together: tokens that were neighbors have the same number.

    Args:
        size: `(h, w)`, the padded grid.
        window_size, shift: `(h, w)`.

    Returns:
        int32 array `(windows, tokens)`, or `None` without a shift.

    Source: Liu et al., arXiv:2103.14030, figure 4.
    """
    if not any(shift):
        return None
    regions = [np.zeros(side, int) for side in size]
    for region, side, window, offset in zip(regions, size, window_size, shift, strict=True):
        if offset:
            region[side - window : side - offset], region[side - offset :] = 1, 2
    grid = 3 * regions[0][:, None] + regions[1]
    (h, w), (height, width) = size, window_size
    windows = grid.reshape(h // height, height, w // width, width).transpose(0, 2, 1, 3)
    return windows.reshape(-1, height * width).astype("int32")


def shift_mask(size, window_size, shift, mask_value=MASK_VALUE):
    """Computes the mask that is added to the logits, so that tokens attend to those of their own region only.

    Args:
        size: `(h, w)`, the padded grid.
        window_size, shift: `(h, w)`.
        mask_value: float. Of pairs from different regions.

    Returns:
        float32 array `(windows, tokens, tokens)` of 0 and `mask_value`, or `None` without a shift.
    """
    regions = shift_regions(size, window_size, shift)
    if regions is None:
        return None
    return np.where(regions[:, :, None] == regions[:, None, :], 0, mask_value).astype("float32")


def region_mask(regions, mask_value=MASK_VALUE):
    """Computes `shift_mask` from the result of `shift_regions`, as operations of a graph."""
    return ops.where(ops.equal(regions[:, :, None], regions[:, None, :]), 0.0, mask_value)


def token_offsets(window_size):
    """Numbers a window's tokens so that differences identify relative positions: int32 `(tokens,)`.

    The row of the bias table for the tokens i and j is `offsets[i] - offsets[j] + offsets[-1]`.
    """
    rows, columns = (axis.ravel() for axis in np.indices(window_size))
    return (rows * (2 * window_size[1] - 1) + columns).astype("int32")


def relative_position_index(window_size):
    """Returns the row of the bias table for every pair of tokens of a window: int32 `(tokens * tokens,)`."""
    offsets = token_offsets(window_size)
    return (offsets[:, None] - offsets + offsets[-1]).ravel()


def log_coordinates(window_size, pretrained_window_size):
    """Computes the relative positions of a window on a logarithmic scale, in the order of the bias table.

    Args:
        window_size: `(h, w)`.
        pretrained_window_size: `(h, w)`, the window whose farthest position has coordinate 1.

    Returns:
        float32 array `((2 h - 1) * (2 w - 1), 2)` of (row, column).

    Source: Liu et al., arXiv:2111.09883, equation 4; the factor 8 is that of microsoft/Swin-Transformer.
    """
    axes = [
        np.arange(1 - side, side, dtype="float32") * np.float32(8) / np.float32(max(pretrained_side - 1, 1))
        for side, pretrained_side in zip(window_size, pretrained_window_size, strict=True)
    ]
    coordinates = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    return np.sign(coordinates) * np.log2(np.abs(coordinates) + 1) / np.float32(3)  # log2(8)
