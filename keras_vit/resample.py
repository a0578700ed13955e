"""Resize tables that live on a grid, as the sources of the weights do it. Pure NumPy.

Four rules are in use, and they differ by more than rounding, so the rule belongs to the weights:

* `bicubic_antialias`: timm and DINOv2's register models (`torch.nn.functional.interpolate(antialias=True)`,
  cubic a = -0.5, support grows when shrinking).
* `bicubic`: Hugging Face and timm without antialias (cubic a = -0.75, borders clamped).
* `bicubic_offset`: DINOv2 without registers (as `bicubic`, but sampled at 1 / ((new + 0.1) / old)).
* `bilinear_corners`: Google's ViT (`scipy.ndimage.zoom(order=1)`, corners aligned).

All are separable: one small matrix an axis.
"""

import numpy as np

from keras_vit.validation import check_choice

METHODS = ("bicubic_antialias", "bicubic", "bicubic_offset", "bilinear_corners")


def _cubic(x, a):
    """Keys' cubic convolution kernel at distances `x`."""
    x = np.abs(x)
    inner = ((a + 2) * x - (a + 3)) * x * x + 1
    outer = a * (((x - 5) * x + 8) * x - 4)
    return np.where(x <= 1, inner, np.where(x < 2, outer, 0.0))


def _antialias_matrix(old, new):
    scale = old / new
    width = max(scale, 1.0)
    centers = scale * (np.arange(new)[:, None] + 0.5)
    sources = np.arange(old)[None, :] + 0.5
    # The support is cut at whole samples as PIL and torch do; the kernel is zero beyond it anyway.
    weights = _cubic((sources - centers) / width, -0.5)
    return weights / weights.sum(axis=1, keepdims=True)


def _clamped_matrix(old, new, scale):
    # torch finds the sample positions in float32; in float64 a 37 x 37 table differs by 1e-5.
    positions = (np.arange(new, dtype="float32") + np.float32(0.5)) * np.float32(scale) - np.float32(0.5)
    base = np.floor(positions).astype(int)
    matrix = np.zeros((new, old))
    for tap in (-1, 0, 1, 2):
        weights = _cubic(positions - (base + tap), -0.75)
        np.add.at(matrix, (np.arange(new), np.clip(base + tap, 0, old - 1)), weights)
    return matrix


def _corner_matrix(old, new):
    positions = np.arange(new) * ((old - 1) / max(new - 1, 1))
    base = np.minimum(np.floor(positions).astype(int), max(old - 2, 0))
    fraction = positions - base
    matrix = np.zeros((new, old))
    np.add.at(matrix, (np.arange(new), base), 1 - fraction)
    np.add.at(matrix, (np.arange(new), np.minimum(base + 1, old - 1)), fraction)
    return matrix


def _axis_matrix(old, new, method):
    """The `(new, old)` matrix that resizes one axis."""
    if method == "bicubic_antialias":
        return _antialias_matrix(old, new)
    if method == "bicubic":
        return _clamped_matrix(old, new, old / new)
    if method == "bicubic_offset":
        return _clamped_matrix(old, new, old / (new + 0.1))
    return _corner_matrix(old, new)


def resize_grid(grid, size, method="bicubic_antialias"):
    """Resizes an array on a grid.

    Args:
        grid: array `(h, w, channels)`.
        size: `(new_h, new_w)`.
        method: one of `METHODS`.

    Returns:
        Array `(new_h, new_w, channels)` of the dtype of `grid`; computed in float64.
    """
    check_choice(method, METHODS, "method")
    rows = _axis_matrix(grid.shape[0], size[0], method)
    columns = _axis_matrix(grid.shape[1], size[1], method)
    resized = np.einsum("ah,bw,hwc->abc", rows, columns, grid.astype("float64"), optimize=True)
    return resized.astype(grid.dtype)


def resize_positions(table, old_grid, new_grid, num_prefix=0, method="bicubic_antialias"):
    """Resizes a position table, leaving the entries of prefix tokens as they are.

    Args:
        table: array `(1, num_prefix + h * w, hidden_dim)`.
        old_grid: `(h, w)` of the table.
        new_grid: `(h, w)` wanted.
        num_prefix: int. Entries of the class and distillation token at the front.
        method: one of `METHODS`.

    Returns:
        Array `(1, num_prefix + new_h * new_w, hidden_dim)`; equal grids give the table unchanged.

    Raises:
        ValueError: if the table does not fit the old grid.
    """
    expected = num_prefix + old_grid[0] * old_grid[1]
    if table.ndim != 3 or table.shape[:2] != (1, expected):
        raise ValueError(
            f"table must have shape (1, {expected}, hidden_dim) for this grid and prefix. "
            f"Received: shape={table.shape}, old_grid={tuple(old_grid)}, num_prefix={num_prefix}"
        )
    if tuple(old_grid) == tuple(new_grid):
        return table
    prefix, patches = table[:, :num_prefix], table[0, num_prefix:]
    resized = resize_grid(patches.reshape(*old_grid, -1), new_grid, method)
    return np.concatenate([prefix, resized.reshape(1, -1, table.shape[-1])], axis=1)
