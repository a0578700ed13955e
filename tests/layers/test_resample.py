"""The resampler against the results of timm, Google and DINOv2 for the same tables and kernels."""

import json

import numpy as np
import pytest
from golden import GOLDENS

from keras_vit.layers.core.resample import (
    BIAS_METHODS,
    METHODS,
    resample_kernel,
    resize_bias_table,
    resize_grid,
    resize_positions,
)

INDEX = json.loads((GOLDENS / "interpolation" / "index.json").read_text())
POSITIONS, BIASES, KERNELS = (
    {name: case for name, case in INDEX.items() if key in case} for key in ("old_grid", "old_window", "old_patch")
)
TABLE = np.random.default_rng(6).normal(size=(1, 2 + 12, 5)).astype("float32")


def _method(case):
    """The method that a golden was made with."""
    if "scipy" in case["method"]:
        return "bilinear_corners"
    if case["antialias"]:
        return "bicubic_antialias"
    return "bicubic_offset" if case.get("scale_factor_offset") else "bicubic"


def test_the_goldens_cover_every_method():
    assert {_method(case) for case in POSITIONS.values()} == set(METHODS)
    assert {_bias_method(name) for name in BIASES} == set(BIAS_METHODS)
    assert len(POSITIONS) + len(BIASES) + len(KERNELS) == len(INDEX)
    assert {case["new_patch"] > case["old_patch"] for case in KERNELS.values()} == {True, False}


def _bias_method(name):
    return "geometric" if "geometric" in name else "bicubic"


def _arrays(name):
    return np.load(GOLDENS / "interpolation" / f"{name}.npz")


@pytest.mark.parametrize("name", BIASES)
def test_relative_position_biases_equal_the_reference(name):
    case, arrays = INDEX[name], _arrays(name)
    windows = ((case["old_window"],) * 2, (case["new_window"],) * 2)
    outputs = resize_bias_table(arrays["input"], *windows, _bias_method(name))
    assert outputs.dtype == "float32"
    np.testing.assert_allclose(outputs, arrays["output"], atol=5e-6, rtol=0)


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_equal_the_reference(name):
    case, arrays = INDEX[name], _arrays(name)
    outputs = resample_kernel(arrays["input"].transpose(2, 3, 1, 0), (case["new_patch"],) * 2)
    assert outputs.dtype == "float32"
    # The reference inverts in float32.
    np.testing.assert_allclose(outputs.transpose(3, 2, 0, 1), arrays["output"], atol=1e-5, rtol=0)


def test_a_kernel_on_a_larger_patch_gives_what_it_gave_on_the_smaller_one():
    generator = np.random.default_rng(0)
    kernel, patch = generator.normal(size=(3, 4, 2, 5)), generator.normal(size=(3, 4, 2))
    larger = resize_grid(patch, (7, 9))
    expected = np.einsum("hwc,hwcd->d", patch, kernel)
    np.testing.assert_allclose(np.einsum("hwc,hwcd->d", larger, resample_kernel(kernel, (7, 9))), expected)
    assert resample_kernel(kernel, (3, 4)) is kernel


@pytest.mark.parametrize("method", BIAS_METHODS)
def test_the_axes_of_a_window_are_resized_each_by_itself(method):
    table = np.random.default_rng(1).normal(size=(3 * 9, 2))
    resized = resize_bias_table(table, (2, 5), (4, 3), method)
    assert resized.shape == (7 * 5, 2)
    transposed = table.reshape(3, 9, 2).transpose(1, 0, 2).reshape(-1, 2)
    expected = resized.reshape(7, 5, 2).transpose(1, 0, 2).reshape(-1, 2)
    np.testing.assert_allclose(resize_bias_table(transposed, (5, 2), (3, 4), method), expected)
    assert resize_bias_table(table, (2, 5), (2, 5), method) is table
    np.testing.assert_allclose(resize_bias_table(np.full((3, 1), 2.0), (1, 2), (2, 1), method), 2.0)


def test_a_bias_table_that_does_not_fit_its_window_raises():
    with pytest.raises(ValueError, match=r"\(25, heads\).*Received: shape=\(24, 1\), old_window=\(3, 3\)"):
        resize_bias_table(np.zeros((24, 1)), (3, 3), (4, 4), "bicubic")
    with pytest.raises(ValueError, match="Received: method='bicubic_offset'"):
        resize_bias_table(np.zeros((25, 1)), (3, 3), (4, 4), "bicubic_offset")


@pytest.mark.parametrize("name", POSITIONS)
def test_equals_the_reference(name):
    case, arrays = INDEX[name], _arrays(name)
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
    with pytest.raises(ValueError, match=r"'bicubic'.*Received: method='bicubik'"):
        resize_positions(TABLE, (3, 4), (2, 2), 2, "bicubik")


@pytest.mark.parametrize(
    ("table", "grid", "prefix"), [(TABLE, (3, 4), 1), (TABLE, (4, 4), 2), (TABLE[0], (3, 4), 2), (TABLE[:0], (3, 4), 2)]
)
def test_a_table_that_does_not_fit_its_grid_raises(table, grid, prefix):
    with pytest.raises(ValueError, match=rf"table.*\(1, {prefix + grid[0] * grid[1]}, hidden_dim\)"):
        resize_positions(table, grid, (2, 2), prefix)
