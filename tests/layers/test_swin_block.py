"""A Swin block and the merging of patches: placement of norms, windows, padding."""

import keras
import numpy as np
import pytest

from keras_vit.layers import PatchMerging, SwinBlock
from keras_vit.layers.swin.windows import shift_mask

RNG = np.random.default_rng(0)
PADDED = {"resolution": (5, 7), "window_size": 4, "shift": 2}


def _random(layer, shape):
    layer.build(shape)
    for seed, weight in enumerate(layer.weights):
        mean = 1.0 if weight.path.endswith("gamma") else 0.0
        weight.assign(keras.random.normal(weight.shape, mean, stddev=0.4, seed=seed))
    return layer


def _block(version=1, **fields):
    fields = {"resolution": (4, 6), "window_size": (2, 3), "shift": (1, 1), **fields}
    block = SwinBlock(2, 16, version=version, **fields)
    return _random(block, (None, int(np.prod(block.resolution)), 8))


def _attend(block, grid):
    """Rolls, cuts, attends, assembles and rolls back, window by window with NumPy; without padding."""
    (h, w), (height, width) = grid.shape[1:3], block.attention.window_size
    shift, outputs = block.shift, np.zeros_like(grid)
    rolled = np.roll(grid, [-s for s in shift], axis=(1, 2))
    mask = shift_mask((h, w), (height, width), shift)
    number = 0
    for top in range(0, h, height):
        for left in range(0, w, width):
            window = rolled[:, top : top + height, left : left + width]
            part = None if mask is None else mask[number : number + 1]
            result = np.array(block.attention(window.reshape(len(grid), -1, grid.shape[-1]), part))
            outputs[:, top : top + height, left : left + width] = result.reshape(window.shape)
            number += 1
    return np.roll(outputs, shift, axis=(1, 2))


@pytest.mark.parametrize("fields", [{}, {"shift": 0}, {"window_size": (4, 2), "shift": (0, 1)}], ids=str)
@pytest.mark.parametrize("version", [1, 2])
def test_two_residual_branches(version, fields):
    block, tokens = _block(version, **fields), RNG.normal(size=(2, 24, 8)).astype("float32")

    def attend(x):
        return _attend(block, np.array(x).reshape(2, 4, 6, 8)).reshape(2, 24, 8)

    if version == 1:
        x = tokens + attend(block.attention_norm(tokens))
        expected = x + np.array(block.mlp(block.mlp_norm(x)))
    else:
        x = tokens + np.array(block.attention_norm(attend(tokens)))
        expected = x + np.array(block.mlp_norm(block.mlp(x)))
    np.testing.assert_allclose(block(tokens), expected, atol=1e-5)


@pytest.mark.parametrize("pad_first", [False, True])
def test_padding_before_or_after_the_shift(pad_first):
    block = _block(pad_first=pad_first, **PADDED)
    whole = _block(**{**PADDED, "resolution": (8, 8)})
    tokens, fill = RNG.normal(size=(2, 35, 8)).astype("float32"), ((0, 0), (0, 3), (0, 1), (0, 0))
    normed = np.array(block.attention_norm(tokens)).reshape(2, 5, 7, 8)
    if pad_first:
        branch = _attend(whole, np.pad(normed, fill))[:, :5, :7]
    else:  # undo the rolls that `_attend` makes around the padding
        rolled = np.pad(np.roll(normed, (-2, -2), axis=(1, 2)), fill)
        attended = np.roll(_attend(whole, np.roll(rolled, (2, 2), axis=(1, 2))), (-2, -2), axis=(1, 2))
        branch = np.roll(attended[:, :5, :7], (2, 2), axis=(1, 2))
    x = tokens + branch.reshape(2, 35, 8)
    np.testing.assert_allclose(block(tokens), x + np.array(block.mlp(block.mlp_norm(x))), atol=1e-5)


def test_padding_before_and_after_the_shift_differ():
    tokens = RNG.normal(size=(1, 35, 8)).astype("float32")
    first, last = (np.array(_block(pad_first=pad_first, **PADDED)(tokens)) for pad_first in (True, False))
    assert np.abs(first - last).max() > 1e-2


def test_attention_of_every_window_is_returned():
    block, tokens = _block(resolution=(3, 5)), RNG.normal(size=(2, 15, 8)).astype("float32")
    outputs, probabilities = block(tokens, return_attention=True)
    assert probabilities.shape == (2 * 4, 2, 6, 6)
    np.testing.assert_allclose(np.sum(probabilities, axis=-1), 1, atol=1e-6)
    np.testing.assert_array_equal(outputs, block(tokens))
    for batch, windows in ((None, None), (3, 12)):
        symbolic = block(keras.KerasTensor((batch, 15, 8)), return_attention=True)
        assert [s.shape for s in symbolic] == [(batch, 15, 8), (windows, 2, 6, 6)]


def test_stochastic_depth_drops_whole_branches():
    block = _block(drop_path_rate=0.9)
    tokens = RNG.normal(size=(64, 24, 8)).astype("float32")
    unchanged = (np.abs(np.array(block(tokens, training=True)) - tokens) < 1e-6).all(axis=(1, 2))
    assert 0.5 < unchanged.mean() < 1


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("resolution", [(4, 6), (3, 5)])
def test_merging_puts_columns_after_rows(version, resolution):
    layer = _random(PatchMerging(resolution, version), (None, int(np.prod(resolution)), 2))
    grid = RNG.normal(size=(2, *resolution, 2)).astype("float32")
    padded = np.pad(grid, ((0, 0), (0, resolution[0] % 2), (0, resolution[1] % 2), (0, 0)))
    parts = [padded[:, row::2, column::2] for row, column in ((0, 0), (1, 0), (0, 1), (1, 1))]
    x = np.concatenate(parts, axis=-1).reshape(2, -1, 8)
    expected = layer.reduction(layer.norm(x)) if version == 1 else layer.norm(layer.reduction(x))
    np.testing.assert_allclose(layer(grid.reshape(2, -1, 2)), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: _block(shift=(2, 0)), r"Received: shift=\(2, 0\)"),
        (lambda: _block()(np.zeros((1, 25, 8))), r"Received: shape=\(1, 25, 8\)"),
        (lambda: PatchMerging(4)(np.zeros((1, 15, 8))), r"resolution=\(4, 4\). Received: shape=\(1, 15, 8\)"),
        (lambda: PatchMerging(4, version=0), "version=0"),
    ],
)
def test_errors_state_the_rule(make, rule):
    with pytest.raises(ValueError, match=rule):
        make()
