"""The resampler beside what timm, Google and DINOv2 gave for the same tables."""

import json

import numpy as np
import pytest
from golden import GOLDENS

from keras_vit.resample import METHODS, resize_grid, resize_positions

INDEX = json.loads((GOLDENS / "interpolation" / "index.json").read_text())
TABLE = np.random.default_rng(6).normal(size=(1, 2 + 12, 5)).astype("float32")


def _method(case):
    """Which of our rules a golden follows."""
    if "scipy" in case["method"]:
        return "bilinear_corners"
    if case["antialias"]:
        return "bicubic_antialias"
    return "bicubic_offset" if case.get("scale_factor_offset") else "bicubic"


def test_the_goldens_cover_every_method():
    assert {_method(case) for case in INDEX.values()} == set(METHODS)


@pytest.mark.parametrize("name", INDEX)
def test_equals_the_reference(name):
    case, arrays = INDEX[name], np.load(GOLDENS / "interpolation" / f"{name}.npz")
    grids = case["old_grid"], case["new_grid"]
    outputs = resize_positions(arrays["input"], *grids, case["num_prefix_tokens"], _method(case))
    assert outputs.dtype == "float32"
    np.testing.assert_allclose(outputs, arrays["output"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", METHODS)
def test_equal_grids_are_the_identity(method):
    np.testing.assert_array_equal(resize_positions(TABLE, (3, 4), [3, 4], 2, method), TABLE)


@pytest.mark.parametrize("method", METHODS)
def test_prefix_entries_stay_and_a_constant_stays_constant(method):
    table = np.full_like(TABLE, 3.0)
    table[:, :2] = TABLE[:, :2]
    resized = resize_positions(table, (3, 4), (5, 2), 2, method)
    np.testing.assert_array_equal(resized[:, :2], TABLE[:, :2])
    np.testing.assert_allclose(resized[:, 2:], 3.0, rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_a_single_row_or_column_can_be_resized(method):
    resized = resize_grid(TABLE[0, :4].reshape(1, 4, 5), (3, 1), method)
    assert resized.shape == (3, 1, 5)
    np.testing.assert_allclose(resized, np.broadcast_to(resized[:1], resized.shape), atol=1e-6)


def test_the_source_dtype_is_kept():
    assert resize_grid(np.ones((2, 2, 1), "float16"), (3, 3)).dtype == "float16"


def test_unknown_method_names_the_nearest():
    with pytest.raises(ValueError, match=r"method must be one of.*Did you mean 'bicubic'.*Received: method='bicubik'"):
        resize_positions(TABLE, (3, 4), (2, 2), 2, "bicubik")


@pytest.mark.parametrize(
    ("table", "grid", "prefix"), [(TABLE, (3, 4), 1), (TABLE, (4, 4), 2), (TABLE[0], (3, 4), 2), (TABLE[:0], (3, 4), 2)]
)
def test_a_table_that_does_not_fit_its_grid_raises(table, grid, prefix):
    with pytest.raises(ValueError, match=rf"table must have shape \(1, {prefix + grid[0] * grid[1]}, hidden_dim\)"):
        resize_positions(table, grid, (2, 2), prefix)
