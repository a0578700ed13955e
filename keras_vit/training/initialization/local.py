"""Convolution-like initialization: every attention head attends to a neighboring patch."""

import itertools

import keras
import numpy as np

# Standard deviation of the position frequencies, radians per patch, and the logit of the patch that a head attends to,
# which gets 70 % of the attention on a grid of 8 by 8.
_FREQUENCY, _LOGIT = 1.2, 8.0
# Model of the standard deviation of DCT coefficients of natural image patches, for pixels with standard deviation 1:
# the constant part per pixel of the side, slope and power of the decay with the frequency, the factors of gray and of
# the two opponent colors, and a floor.
_CONSTANT, _SLOPE, _POWER, _COLOR_FACTORS, _FLOOR = 1.5, 3.5, 1.3, (1.0, 1 / 3, 1 / 9), 0.3
_OPPONENT_COLORS = ((1, 1, 1), (1, 0, -1), (1, -2, 1))
_NEIGHBORS = tuple(itertools.product((-1, 0, 1), repeat=2))


def initialize_local_attention(variables, config, random):
    """Initializes position embeddings, patch projection and attention so that heads attend to neighboring patches.

    Position embeddings are cosines and sines of random frequencies in a subspace as wide as a head. Queries and keys
    only read that subspace. The queries are rotated by the offset of a neighbor, so that their product with the keys is
    largest there; the values then form a convolution over 3 by 3 patches. Patches are projected to the remaining
    dimensions by a cosine transform scaled to similar variances, since natural images are nearly constant and gray. The
    residual branches start with output zero.

    Args:
        variables: dict from path to variable.
        config: `ViTConfig` with learned position embeddings.
        random: `numpy.random.Generator`.

    Raises:
        ValueError: if the position embeddings are not learned.

    Sources: the idea, solved for numerically there: Zheng et al., "Structured Initialization for Attention in Vision
        Transformers" (arXiv:2404.01139); whitened patches: Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU"
        (arXiv:2404.00498); zeros at the end of branches: Goyal et al. (arXiv:1706.02677), section 5.1.
    """
    if config.position_embedding != "learned":
        raise ValueError(
            "local initialization needs position_embedding='learned'. "
            f"Received: position_embedding={config.position_embedding!r}"
        )
    width, size = config.hidden_dim, config.hidden_dim // config.num_heads
    count = size // 2
    basis = _orthonormal(width, random)
    position_basis, rest = basis[: 2 * count], basis[2 * count :]
    frequencies = _sample_frequencies(count, random)

    table = variables["patch_encoder/position_embedding"]
    first = int(table.shape[1]) - config.grid_size[0] * config.grid_size[1]
    value = np.zeros(table.shape, "float32")
    # Position embeddings and patches have the same norm.
    value[0, first:] = np.sqrt(width / count) * _sinusoids(_grid(config.grid_size), frequencies) @ position_basis
    table.assign(value)
    variables["patch_encoder/projection/kernel"].assign(_patch_kernel(config, rest, random))

    # Position embeddings make up half of the variance after the preceding norm.
    strength = np.sqrt(2 * _LOGIT * np.sqrt(size) / width)
    keys = np.zeros((width, size))
    keys[:, : 2 * count] = strength * position_basis.T
    for block in range(config.num_layers):
        prefix = f"encoder_block_{block}/"
        offsets = _offsets(config.num_heads, random)
        queries = [keys @ _rotation(frequencies @ offset, size) for offset in offsets]
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


def _sinusoids(positions, frequencies):
    """Computes `(positions, 2 * frequencies)`: cosines, then sines."""
    angles = positions @ frequencies.T
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)


def _sample_frequencies(count, random, candidates=300):
    """Draws frequencies `(count, 2)`: of several sets the one whose attention to distant patches is smallest."""
    offsets = _grid((15, 8)) - (7, 0)
    far = offsets[np.abs(offsets).sum(axis=1) > 2]
    sets = [_FREQUENCY * random.normal(size=(count, 2)) for _ in range(candidates)]
    return min(sets, key=lambda frequencies: np.cos(far @ frequencies.T).mean(axis=1).max())


def _offsets(num_heads, random):
    """Draws a neighbor for every head; all nine are used before one repeats."""
    repeats = -(-num_heads // len(_NEIGHBORS))
    order = np.concatenate([random.permutation(len(_NEIGHBORS)) for _ in range(repeats)])
    return np.array(_NEIGHBORS)[order[:num_heads]]


def _rotation(angles, size):
    """Builds the rotation `(size, size)` that adds angles to those of `_sinusoids`, which shifts positions."""
    count = len(angles)
    rotation = np.eye(size)
    i = np.arange(count)
    rotation[i, i], rotation[count + i, count + i] = np.cos(angles), np.cos(angles)
    rotation[i, count + i], rotation[count + i, i] = np.sin(angles), -np.sin(angles)
    return rotation


def _patch_kernel(config, rest, random):
    """Builds the kernel `(patch_dim, width)`: a scaled cosine transform, rotated at random into the subspace `rest`."""
    height, width = config.patch_size
    rows, columns = _dct_matrix(height), _dct_matrix(width)
    colors = _orthonormal_colors(config.num_channels)
    transform = np.einsum("ui,vj,wc->uvwijc", rows, columns, colors)
    radius = np.hypot(*np.indices((height, width)))[..., None]
    color_factors = np.array(_COLOR_FACTORS if config.num_channels == 3 else [1.0] * config.num_channels)
    stddev = _CONSTANT * np.sqrt(height * width) * color_factors / (1 + _SLOPE * radius**_POWER)
    scaled = (transform / (stddev + _FLOOR)[..., None, None, None]).reshape(height * width * len(color_factors), -1)
    mixture = random.normal(size=(len(scaled), len(rest))) / np.sqrt(len(rest))
    kernel = scaled.T @ mixture @ rest
    # Expected variance of the features of a patch.
    shrunk = stddev / (stddev + _FLOOR)
    return kernel * np.sqrt(config.hidden_dim / np.square(shrunk).sum())


def _orthonormal_colors(num_channels):
    if num_channels != 3:
        return np.eye(num_channels)
    colors = np.array(_OPPONENT_COLORS, float)
    return colors / np.linalg.norm(colors, axis=1, keepdims=True)


def _dct_matrix(size):
    """Builds the matrix of the orthonormal cosine transform (DCT-II)."""
    rows = np.cos(np.pi * np.outer(np.arange(size), 2 * np.arange(size) + 1) / (2 * size))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
