"""First weights of a Vision Transformer that looks at neighbouring patches, as a convolutional network would."""

import itertools

import keras
import numpy as np

# Deviation of the frequencies of positions, radians a patch, and the logit of the patch that a head looks at: seven
# tenths of the attention go to it on a grid of 8 by 8.
_FREQUENCY, _LOGIT = 1.2, 8.0
# Deviations of the cosine transform of patches of natural images with pixels of deviation 1: of the constant part a
# pixel of the side, how it falls with the frequency, what grey, first and second colour have of it, and a floor.
_CONSTANT, _SLOPE, _POWER, _COLOURS, _FLOOR = 1.5, 3.5, 1.3, (1.0, 1 / 3, 1 / 9), 0.3
_OPPONENTS = ((1, 1, 1), (1, 0, -1), (1, -2, 1))
_NEIGHBOURS = tuple(itertools.product((-1, 0, 1), repeat=2))


def initialize_locally(variables, config, random):
    """Draws positions, patches and attention so that every head attends to one neighbour of each patch.

    Positions are cosines and sines of random frequencies in a subspace as wide as a head. Queries and keys read that
    subspace alone, the queries turned by the offset of a neighbour, so that their product is largest there: a shift,
    from which the values make a convolution of 3 by 3 patches. Patches are projected on the rest of the width, their
    cosine transform scaled to about equal parts, as natural images are nearly constant and grey. Branches begin with
    the output zero.

    Args:
        variables: dict from path to variable.
        config: `ViTConfig` with learned positions.
        random: `numpy.random.Generator`.

    Raises:
        ValueError: if the positions are not learned.

    Sources: the idea, solved for numerically there: Zheng et al., "Structured Initialization for Attention in Vision
        Transformers" (arXiv:2404.01139); whitened patches: Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU"
        (arXiv:2404.00498); zeros at the end of branches: Goyal et al. (arXiv:1706.02677), section 5.1.
    """
    if config.position_embedding != "learned":
        raise ValueError(
            f"local initialization needs learned positions. Received: position_embedding={config.position_embedding!r}"
        )
    width, size = config.hidden_dim, config.hidden_dim // config.num_heads
    count = size // 2
    basis = _orthonormal(width, random)
    position_basis, rest = basis[: 2 * count], basis[2 * count :]
    frequencies = _spread(count, random)

    table = variables["patch_encoder/position_embedding"]
    first = int(table.shape[1]) - config.grid_size[0] * config.grid_size[1]
    value = np.zeros(table.shape, "float32")
    # Positions and patches are of the same norm.
    value[0, first:] = np.sqrt(width / count) * _waves(_grid(config.grid_size), frequencies) @ position_basis
    table.assign(value)
    variables["patch_encoder/projection/kernel"].assign(_patch_kernel(config, rest, random))

    # What the norm in front leaves of positions: half of the variance.
    strength = np.sqrt(2 * _LOGIT * np.sqrt(size) / width)
    keys = np.zeros((width, size))
    keys[:, : 2 * count] = strength * position_basis.T
    for block in range(config.num_layers):
        prefix = f"encoder_block_{block}/"
        offsets = _offsets(config.num_heads, random)
        queries = [keys @ _turn(frequencies @ offset, size) for offset in offsets]
        qkv = variables[prefix + "attention/qkv/kernel"]
        values = keras.ops.convert_to_numpy(qkv)[:, 2 * width :]
        qkv.assign(np.concatenate([*queries, *[keys] * config.num_heads, values], axis=1))
        for end in ("attention/projection/kernel", "mlp/dense_2/kernel"):
            variables[prefix + end].assign(np.zeros(variables[prefix + end].shape))


def _orthonormal(width, random):
    return np.linalg.qr(random.normal(size=(width, width)))[0]


def _grid(grid_size):
    rows, columns = np.indices(grid_size)
    return np.stack([rows.ravel(), columns.ravel()], axis=1)


def _waves(positions, frequencies):
    """`(positions, 2 * frequencies)`: cosines, then sines."""
    angles = positions @ frequencies.T
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)


def _spread(count, random, draws=300):
    """Frequencies `(count, 2)`, the set of several draws whose attention leaks least to patches far away."""
    offsets = _grid((15, 8)) - (7, 0)
    far = offsets[np.abs(offsets).sum(axis=1) > 2]
    sets = [_FREQUENCY * random.normal(size=(count, 2)) for _ in range(draws)]
    return min(sets, key=lambda frequencies: np.cos(far @ frequencies.T).mean(axis=1).max())


def _offsets(num_heads, random):
    """A neighbour for every head; all nine before one comes twice."""
    rounds = -(-num_heads // len(_NEIGHBOURS))
    order = np.concatenate([random.permutation(len(_NEIGHBOURS)) for _ in range(rounds)])
    return np.array(_NEIGHBOURS)[order[:num_heads]]


def _turn(angles, size):
    """`(size, size)` that adds angles to those of `_waves`: `_waves(p) @ _turn(a)` are the waves of `p + offset`."""
    count = len(angles)
    turn = np.eye(size)
    i = np.arange(count)
    turn[i, i], turn[count + i, count + i] = np.cos(angles), np.cos(angles)
    turn[i, count + i], turn[count + i, i] = np.sin(angles), -np.sin(angles)
    return turn


def _patch_kernel(config, rest, random):
    """`(patch_dim, width)`: the scaled cosine transform of patches, turned at random into the subspace `rest`."""
    height, width = config.patch_size
    rows, columns = _cosines(height), _cosines(width)
    colours = _orthonormal_colours(config.num_channels)
    transform = np.einsum("ui,vj,wc->uvwijc", rows, columns, colours)
    radius = np.hypot(*np.indices((height, width)))[..., None]
    shares = np.array(_COLOURS if config.num_channels == 3 else [1.0] * config.num_channels)
    deviation = _CONSTANT * np.sqrt(height * width) * shares / (1 + _SLOPE * radius**_POWER)
    scaled = (transform / (deviation + _FLOOR)[..., None, None, None]).reshape(height * width * len(shares), -1)
    mixing = random.normal(size=(len(scaled), len(rest))) / np.sqrt(len(rest))
    kernel = scaled.T @ mixing @ rest
    # The variance of a patch's features, were all its coefficients as large as expected.
    shrunk = deviation / (deviation + _FLOOR)
    return kernel * np.sqrt(config.hidden_dim / np.square(shrunk).sum())


def _orthonormal_colours(num_channels):
    if num_channels != 3:
        return np.eye(num_channels)
    colours = np.array(_OPPONENTS, float)
    return colours / np.linalg.norm(colours, axis=1, keepdims=True)


def _cosines(size):
    """The orthonormal cosine transform (DCT-II)."""
    rows = np.cos(np.pi * np.outer(np.arange(size), 2 * np.arange(size) + 1) / (2 * size))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
