"""Fixed sine-cosine positions on a grid, in NumPy or in a graph."""

import numpy as np

POSITION_EMBEDDINGS = ("learned", "sincos2d", "sincos2d_moco")


def sincos2d(grid_size, hidden_dim, temperature=10_000.0, endpoint=True):
    """Computes the fixed two-dimensional position table of big_vision, MoCo-v3 and MAE.

    Args:
        grid_size: `(h, w)`.
        hidden_dim: int, a multiple of 4.
        temperature: float. Frequencies are `temperature ** (-i / (hidden_dim / 4 - 1))`.
        endpoint: bool. `False` divides by `hidden_dim / 4` instead, as MoCo-v3 and MAE do. Default True: big_vision's.

    Returns:
        float32 array `(1, h * w, hidden_dim)`, channels `[sin x, cos x, sin y, cos y]`.

    Sources: big_vision `models/vit.py` `posemb_sincos_2d`; facebookresearch/mae `util/pos_embed.py`.
    """
    columns, rows = sincos_axes(grid_size, hidden_dim, temperature, endpoint)
    shape = (*grid_size, hidden_dim // 2)
    table = np.concatenate([np.broadcast_to(axis, shape) for axis in (columns, rows)], axis=-1)
    return table.reshape(1, -1, hidden_dim)


def sincos_axes(grid_size, hidden_dim, temperature=10_000.0, endpoint=True, xp=np):
    """Computes the two halves of that table's channels, each of which depends on one axis only.

    Args:
        grid_size, hidden_dim, temperature, endpoint: as for `sincos2d`; with `keras.ops` the sides may be tensors.
        xp: `numpy` or `keras.ops`.

    Returns:
        float32 arrays or tensors: of the columns, `(1, w, hidden_dim / 2)`, and of the rows, `(h, 1, hidden_dim / 2)`.
    """
    quarter = hidden_dim // 4
    frequencies = temperature ** -(np.arange(quarter) / max(quarter - endpoint, 1))
    rows, columns = (xp.arange(side, dtype="float64")[:, None] * frequencies for side in grid_size)
    rows, columns = (xp.array(xp.concatenate([xp.sin(x), xp.cos(x)], axis=1), dtype="float32") for x in (rows, columns))
    return columns[None], rows[:, None]
