"""Fixed sine-cosine positions on a grid. Pure NumPy."""

import numpy as np


def sincos2d(grid_size, hidden_dim, temperature=10_000.0):
    """The fixed two-dimensional position table of MoCo-v3 and big_vision.

    Args:
        grid_size: `(h, w)`.
        hidden_dim: int, a multiple of 4.
        temperature: float. Frequencies are `temperature ** (-i / (hidden_dim / 4 - 1))`.

    Returns:
        float32 array `(1, h * w, hidden_dim)`, channels `[sin x, cos x, sin y, cos y]`.

    Source: big_vision `models/vit.py` `posemb_sincos_2d`.
    """
    rows, columns = np.mgrid[: grid_size[0], : grid_size[1]]
    quarter = hidden_dim // 4
    frequencies = temperature ** -(np.arange(quarter) / max(quarter - 1, 1))
    x = columns.reshape(-1, 1) * frequencies
    y = rows.reshape(-1, 1) * frequencies
    table = np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=1)
    return table[None].astype("float32")
