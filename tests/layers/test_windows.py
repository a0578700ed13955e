"""Windows: partition, padding, and the constants, each against a slow loop."""

import numpy as np
import pytest

from keras_vit.layers.swin.windows import (
    MASK_VALUE,
    log_coordinates,
    merge_windows,
    pad_grid,
    padded_size,
    partition_windows,
    region_mask,
    relative_position_index,
    shift_mask,
    shift_regions,
    window_and_shift,
)

GRID = np.random.default_rng(0).normal(size=(2, 6, 8, 3)).astype("float32")


@pytest.mark.parametrize("window", [(2, 4), (3, 2), (6, 8), (1, 1)])
def test_windows_are_image_major_and_row_by_row(window):
    height, width = window
    expected = [
        GRID[image, top : top + height, left : left + width].reshape(-1, 3)
        for image in range(2)
        for top in range(0, 6, height)
        for left in range(0, 8, width)
    ]
    windows = partition_windows(GRID, window)
    np.testing.assert_array_equal(windows, expected)
    np.testing.assert_array_equal(merge_windows(windows, window, (6, 8)), GRID)


def test_padding_is_below_and_to_the_right():
    padded = np.array(pad_grid(GRID, (7, 10)))
    np.testing.assert_array_equal(padded[:, :6, :8], GRID)
    assert not padded[:, 6:].any()
    assert not padded[:, :, 8:].any()
    assert pad_grid(GRID, (6, 8)) is GRID
    assert (padded_size((7, 9), (4, 3)), padded_size((8, 9), (4, 3))) == ((8, 9), (8, 9))


@pytest.mark.parametrize(
    ("rule", "resolution", "window", "expected"),
    [
        ("timm", (14, 14), (7, 7), ((7, 7), (3, 3))),
        ("timm", (7, 9), (7, 7), ((7, 7), (0, 3))),
        ("timm", (4, 9), (7, 7), ((4, 7), (0, 3))),
        ("timm", (8, 8), (4, 2), ((4, 2), (2, 1))),
        ("timm", (2, 3), (4, 4), ((2, 3), (0, 0))),
        ("microsoft", (14, 14), (7, 7), ((7, 7), (3, 3))),
        ("microsoft", (7, 14), (7, 7), ((7, 7), (0, 0))),
        ("huggingface", (4, 9), (7, 7), ((4, 4), (0, 0))),
        ("huggingface", (8, 9), (7, 7), ((7, 7), (3, 3))),
    ],
)
def test_window_and_shift(rule, resolution, window, expected):
    assert window_and_shift(resolution, window, rule) == expected


@pytest.mark.parametrize("shift", [(1, 2), (0, 1), (2, 0)])
def test_the_mask_joins_tokens_that_were_neighbors(shift):
    size, window = (6, 8), (3, 4)
    mask = shift_mask(size, window, shift)
    assert (mask.shape, mask.dtype) == ((4, 12, 12), np.float32)
    # Where each token came from: two tokens of a window are neighbors if they lie less than a window apart.
    rows, columns = (np.array(partition_windows(a[None, ..., None], window))[..., 0] for a in np.indices(size))
    rows = np.where(rows + shift[0] >= size[0], rows + shift[0] - size[0], rows + shift[0])
    columns = np.where(columns + shift[1] >= size[1], columns + shift[1] - size[1], columns + shift[1])
    near = [abs(a[:, :, None] - a[:, None, :]) < side for a, side in ((rows, window[0]), (columns, window[1]))]
    np.testing.assert_array_equal(mask, np.where(near[0] & near[1], 0, MASK_VALUE))
    np.testing.assert_array_equal(region_mask(shift_regions(size, window, shift)), mask)


def test_without_shift_there_is_no_mask():
    assert shift_regions((6, 8), (3, 4), (0, 0)) is None


@pytest.mark.parametrize("window", [(2, 3), (4, 4), (1, 5)])
def test_relative_position_index_names_each_offset_once(window):
    height, width = window
    index = relative_position_index(window).reshape(height * width, -1)
    table = [(down, across) for down in range(1 - height, height) for across in range(1 - width, width)]
    places = [(row, column) for row in range(height) for column in range(width)]
    for i, (row, column) in enumerate(places):
        for j, (other_row, other_column) in enumerate(places):
            assert table[index[i, j]] == (row - other_row, column - other_column)


def test_log_coordinates():
    coordinates = log_coordinates((2, 3), (3, 2)).reshape(3, 5, 2)
    # One row of two to the pretrained border is 8 / 2 = 4, one column of one is 8 / 1: log2(1 + x) / 3.
    rows, columns = np.log2([1, 5]) / 3, np.log2([1, 9, 17]) / 3
    np.testing.assert_allclose(coordinates[:, 0, 0], [-rows[1], 0, rows[1]], rtol=1e-6)
    np.testing.assert_allclose(coordinates[0, :, 1], [-columns[2], -columns[1], 0, columns[1], columns[2]], rtol=1e-6)
    assert coordinates.dtype == np.float32
    assert not log_coordinates((1, 1), (1, 1)).any()
