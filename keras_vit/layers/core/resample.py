"""Resizing of tables and kernels on a grid, as the sources of the weights do it: in NumPy, or in a graph.

Four rules are in use for positions. They differ by more than rounding, so weights must be resized by their own rule:

* `bicubic_antialias`: timm and DINOv2's register models (`torch.nn.functional.interpolate(antialias=True)`,
  cubic a = -0.5, support grows when shrinking).
* `bicubic`: Hugging Face and timm without antialias (cubic a = -0.75, borders clamped).
* `bicubic_offset`: DINOv2 without registers (as `bicubic`, but sampled at 1 / ((new + 0.1) / old)).
* `bilinear_corners`: Google's ViT (`scipy.ndimage.zoom(order=1)`, corners aligned).

Two rules are in use for the relative position biases of Swin Transformers:

* `bicubic`: as above (microsoft/Swin-Transformer `load_pretrained`).
* `geometric`: timm's `resize_rel_pos_bias_table` (the old positions spread in a geometric progression, linear
  interpolation between them).

All are separable: one small matrix for each axis. The rules of positions are written once for NumPy and for
`keras.ops`, as `xp`: a size that is known only when a graph runs is a tensor.
"""

import numpy as np

from keras_vit.validation import check_choice

METHODS = ("bicubic_antialias", "bicubic", "bicubic_offset", "bilinear_corners")
BIAS_METHODS = ("geometric", "bicubic")


def _floats(x, xp, dtype="float64"):
    return xp.array(x, dtype=dtype)


def _cubic(x, a, xp=np):
    """The cubic convolution kernel of Keys at distances `x`."""
    x = xp.abs(x)
    inner = ((a + 2) * x - (a + 3)) * x * x + 1
    outer = a * (((x - 5) * x + 8) * x - 4)
    return xp.where(x <= 1, inner, xp.where(x < 2, outer, 0.0))


def _placed(weights, columns, old, xp):
    """A matrix `(new, old)` that has `weights` in `columns`, one in each row, and zeros elsewhere."""
    return weights[:, None] * _floats(columns[:, None] == xp.arange(old, dtype="float64")[None], xp)


def _antialias_matrix(old, new, xp=np):
    scale = old / _floats(new, xp)
    width = xp.maximum(scale, 1.0)
    centers = scale * (xp.arange(new, dtype="float64")[:, None] + 0.5)
    sources = xp.arange(old, dtype="float64")[None, :] + 0.5
    # PIL and torch cut the support at whole samples; the kernel is zero beyond it anyway.
    weights = _cubic((sources - centers) / width, -0.5, xp)
    return weights / xp.sum(weights, axis=1, keepdims=True)


def _clamped_matrix(old, new, scale, xp=np):
    # torch computes the sample positions in float32; in float64 a 37 x 37 table differs by 1e-5.
    half = np.float32(0.5)
    positions = (xp.arange(new, dtype="float32") + half) * _floats(scale, xp, "float32") - half
    positions = _floats(positions, xp)
    base = xp.floor(positions)
    taps = [
        _placed(_cubic(positions - (base + tap), -0.75, xp), xp.clip(base + tap, 0, old - 1), old, xp)
        for tap in (-1, 0, 1, 2)
    ]
    return sum(taps)


def _corner_matrix(old, new, xp=np):
    positions = xp.arange(new, dtype="float64") * ((old - 1) / xp.maximum(_floats(new, xp) - 1, 1.0))
    base = xp.minimum(xp.floor(positions), float(max(old - 2, 0)))
    fraction = positions - base
    following = xp.minimum(base + 1, float(old - 1))
    return _placed(1 - fraction, base, old, xp) + _placed(fraction, following, old, xp)


def _geometric_ratio(terms, total):
    """The ratio of a geometric progression whose first terms sum up to `total`; timm searches from 1.01 to 1.5."""
    left, right = 1.01, 1.5
    while right - left > 1e-6:
        ratio = (left + right) / 2
        if (1 - ratio**terms) / (1 - ratio) > total:
            right = ratio
        else:
            left = ratio
    return ratio


def _geometric_matrix(old, new):
    distances = np.cumsum(_geometric_ratio(old // 2, new // 2) ** np.arange(old // 2))
    positions = np.concatenate([-distances[::-1], [0], distances])
    # Beyond the outermost position, if the ratio is at its limit, the value of the border is used.
    return np.stack([np.interp(np.arange(new) - new // 2, positions, row) for row in np.eye(old)], axis=1)


def _axis_matrix(old, new, method, xp=np):
    """The matrix `(new, old)` that resizes one axis; `geometric` is in NumPy alone."""
    if method == "bicubic_antialias":
        return _antialias_matrix(old, new, xp)
    if method == "bicubic":
        return _clamped_matrix(old, new, old / _floats(new, xp), xp)
    if method == "bicubic_offset":
        return _clamped_matrix(old, new, old / (_floats(new, xp) + 0.1), xp)
    if method == "geometric":
        return _geometric_matrix(old, new)
    return _corner_matrix(old, new, xp)


def position_matrices(old_grid, new_grid, method, xp=np):
    """The matrices by which positions of one grid become those of another, whose size may be known in a graph only.

    Args:
        old_grid: `(h, w)`, ints.
        new_grid: `(new_h, new_w)`, ints, or for `xp=keras.ops` also tensors of a backend that has float64 in graphs.
        method: one of `METHODS`.
        xp: `numpy` or `keras.ops`.

    Returns:
        Float64 arrays or tensors `(new_h, h)` and `(new_w, w)`; for equal grids identities, whatever the method.
    """
    check_choice(method, METHODS, "method")
    pairs = list(zip(old_grid, new_grid, strict=True))
    same = (pairs[0][0] == pairs[0][1]) & (pairs[1][0] == pairs[1][1])
    matrices = []
    for old, new in pairs:
        diagonal = xp.arange(new, dtype="float64")[:, None] == xp.arange(old, dtype="float64")[None]
        matrices.append(xp.where(same, _floats(diagonal, xp), _axis_matrix(old, new, method, xp)))
    return tuple(matrices)


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
    return _resize(grid, size, method)


def _resize(grid, size, method):
    rows, columns = (_axis_matrix(old, new, method) for old, new in zip(grid.shape[:2], size, strict=True))
    return _apply_matrices(grid, rows, columns)


def _apply_matrices(grid, rows, columns):
    """Multiplies each of the first two axes of `(h, w, ...)` by its matrix, in float64."""
    resized = np.einsum("ah,bw,hw...->ab...", rows, columns, grid.astype("float64"), optimize=True)
    return resized.astype(grid.dtype)


def resize_positions(table, old_grid, new_grid, num_prefix=0, method="bicubic_antialias"):
    """Resizes a position table without the entries of prefix tokens, which stay as they are.

    Args:
        table: array `(1, num_prefix + h * w, hidden_dim)`.
        old_grid: `(h, w)` of the table.
        new_grid: `(h, w)` of the result.
        num_prefix: int. Entries of the class and distillation token at the front.
        method: one of `METHODS`.

    Returns:
        Array `(1, num_prefix + new_h * new_w, hidden_dim)`; for equal grids the table itself.

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


def resize_bias_table(table, old_window, new_window, method):
    """Resizes a table of relative position biases.

    Args:
        table: array `((2 h - 1) * (2 w - 1), heads)`.
        old_window: `(h, w)` of the table.
        new_window: `(h, w)` of the result.
        method: one of `BIAS_METHODS`.

    Returns:
        Array `((2 new_h - 1) * (2 new_w - 1), heads)`; for equal windows the table itself.

    Raises:
        ValueError: if the table does not fit the old window.
    """
    check_choice(method, BIAS_METHODS, "method")
    old, new = (tuple(2 * side - 1 for side in window) for window in (old_window, new_window))
    if table.ndim != 2 or table.shape[0] != old[0] * old[1]:
        raise ValueError(
            f"table must have shape ({old[0] * old[1]}, heads) for this window. "
            f"Received: shape={table.shape}, old_window={tuple(old_window)}"
        )
    return table if old == new else _resize(table.reshape(*old, -1), new, method).reshape(-1, table.shape[1])


def resample_kernel(kernel, patch_size):
    """Resamples a patch kernel for another patch size: on resized patches it gives the results of the old kernel.

    Args:
        kernel: array `(h, w, channels, hidden_dim)`.
        patch_size: `(new_h, new_w)`.

    Returns:
        Array `(new_h, new_w, channels, hidden_dim)`.

    Source: Beyer et al., "FlexiViT" (arXiv:2212.08013), section 3.4; timm `resample_patch_embed` (bicubic, antialias).
    """
    if kernel.shape[:2] == tuple(patch_size):
        return kernel
    # The pseudo-inverse of a Kronecker product is that of its factors.
    rows, columns = (
        np.linalg.pinv(_antialias_matrix(old, new)).T for old, new in zip(kernel.shape[:2], patch_size, strict=True)
    )
    return _apply_matrices(kernel, rows, columns)
