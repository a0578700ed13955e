"""PatchEncoder: order of the tokens, positions on the prefix or not, and tables of other grids."""

import keras
import numpy as np
import pytest

from keras_vit.layers import PatchEncoder
from keras_vit.layers.core.resample import METHODS, resize_positions
from keras_vit.layers.vit import patch_encoder
from keras_vit.layers.vit.positions import sincos2d

GRID = (2, 3)
PATCHES = np.random.default_rng(2).normal(size=(2, 6, 12)).astype("float32")


def _encoder(**fields):
    layer = PatchEncoder(8, GRID, distillation_token=True, num_registers=2, **fields)
    layer.build(PATCHES.shape)
    for seed, weight in enumerate(layer.weights):
        weight.assign(keras.random.normal(weight.shape, seed=seed))
    return layer


def _parts(layer):
    weights = {w.name: w.numpy() for w in layer.weights}
    projected = PATCHES @ weights["kernel"] + weights["bias"]
    rows = (np.repeat(weights[f"{name}_token"], 2, axis=0) for name in ("class", "distillation"))
    return (*rows, np.repeat(weights["register_tokens"], 2, axis=0), projected, weights["position_embedding"])


def test_tokens_with_positions_on_prefix():
    layer = _encoder(position_on_prefix=True)
    cls, dist, registers, patches, table = _parts(layer)
    assert table.shape == (1, 2 + 6, 8)
    expected = [cls + table[:, :1], dist + table[:, 1:2], registers, patches + table[:, 2:]]
    np.testing.assert_allclose(layer(PATCHES), np.concatenate(expected, axis=1), atol=1e-5)


def test_tokens_without_positions_on_prefix():
    layer = _encoder(position_on_prefix=False)
    cls, dist, registers, patches, table = _parts(layer)
    assert table.shape == (1, 6, 8)
    np.testing.assert_allclose(layer(PATCHES), np.concatenate([cls, dist, registers, patches + table], 1), atol=1e-5)


@pytest.mark.parametrize("position_on_prefix", [True, False])
def test_registers_carry_no_position(position_on_prefix):
    layer = _encoder(position_on_prefix=position_on_prefix)
    layer.positions.assign(layer.positions + 100.0)
    registers = next(w for w in layer.weights if w.name == "register_tokens")
    np.testing.assert_array_equal(layer(PATCHES)[:1, 2:4], registers)


def test_fixed_positions_leave_the_class_token_alone():
    layer = PatchEncoder(8, GRID, position_embedding="sincos2d", position_on_prefix=True)
    tokens = layer(np.zeros_like(PATCHES))
    np.testing.assert_array_equal(tokens[:1, :1], layer.weights[0])
    np.testing.assert_allclose(tokens[:1, 1:], sincos2d(GRID, 8), atol=1e-6)


@pytest.mark.parametrize("fields", [{}, {"class_token": False}, {"position_on_prefix": False, "dtype": "bfloat16"}])
def test_large_fixed_positions_are_assembled_from_their_axes(fields, monkeypatch):
    layer = PatchEncoder(8, GRID, position_embedding="sincos2d", **fields)
    expected = layer(PATCHES)
    monkeypatch.setattr(patch_encoder, "MAX_CONSTANT_BYTES", 0)
    np.testing.assert_array_equal(layer(PATCHES), expected)


@pytest.mark.parametrize(("grid", "hidden_dim"), [((2, 3), 8), ((4, 1), 12), ((3, 5), 4)])
def test_sincos2d_equals_the_formula(grid, hidden_dim):
    quarter = hidden_dim // 4
    table = sincos2d(grid, hidden_dim)
    assert table.shape == (1, grid[0] * grid[1], hidden_dim)
    for row in range(grid[0]):
        for column in range(grid[1]):
            angles = [10_000.0 ** (-i / max(quarter - 1, 1)) for i in range(quarter)]
            functions = ((np.sin, column), (np.cos, column), (np.sin, row), (np.cos, row))
            expected = [function(place * angle) for function, place in functions for angle in angles]
            np.testing.assert_allclose(table[0, row * grid[1] + column], expected, atol=1e-6)


def _model(grid, method="bicubic_antialias", **fields):
    encoder = PatchEncoder(8, grid, distillation_token=True, position_resize=method, name="patch_encoder", **fields)
    inputs = keras.Input((grid[0] * grid[1], 12))
    return keras.Model(inputs, encoder(inputs)), encoder


@pytest.mark.parametrize("suffix", ["x.weights.h5", "x.keras"])
@pytest.mark.parametrize("method", METHODS)
def test_weights_of_another_grid_are_resized_with_a_warning(method, suffix, tmp_path):
    old_model, old = _model((4, 4))
    new_model, new = _model((3, 6), method)
    old_model.save_weights(tmp_path / suffix) if suffix != "x.keras" else old_model.save(tmp_path / suffix)
    with pytest.warns(UserWarning, match=rf"positions of the grid \(4, 4\) are resized to \(3, 6\) \({method}\)"):
        new_model.load_weights(tmp_path / suffix)
    expected = resize_positions(old.positions.numpy(), (4, 4), (3, 6), num_prefix=2, method=method)
    np.testing.assert_array_equal(new.positions, expected)
    np.testing.assert_array_equal(new.projection.kernel, old.projection.kernel)


def test_weights_of_the_same_grid_are_loaded_silently(tmp_path, recwarn):
    old_model, old = _model((4, 4))
    new_model, new = _model((4, 4))
    old_model.save_weights(tmp_path / "x.weights.h5")
    new_model.load_weights(tmp_path / "x.weights.h5")
    np.testing.assert_array_equal(new.positions, old.positions)
    assert not [w for w in recwarn if "resized" in str(w.message)]


def test_weights_with_other_tokens_raise(tmp_path):
    old_model, _ = _model((4, 4))
    new_model, _ = _model((4, 4), num_registers=2)
    old_model.save_weights(tmp_path / "x.weights.h5")
    with pytest.raises(ValueError, match=r"register_tokens.*Received"):
        new_model.load_weights(tmp_path / "x.weights.h5")


def test_another_number_of_patches_than_the_grid_raises():
    with pytest.raises(
        ValueError, match=r"\(batch, 6, patch_dim\) for grid_size=\(2, 3\). Received: shape=\(1, 5, 4\)"
    ):
        PatchEncoder(8, GRID)(np.zeros((1, 5, 4), "float32"))


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"hidden_dim": 0}, "hidden_dim=0"),
        ({"grid_size": 0}, "grid_size=0"),
        ({"position_embedding": "learnt"}, "'learned'.*position_embedding='learnt'"),
        ({"position_resize": "nearest"}, "position_resize='nearest'"),
        ({"hidden_dim": 6, "position_embedding": "sincos2d"}, "hidden_dim=6"),
        ({"dropout_rate": 1.0}, "rate=1.0"),
    ],
)
def test_arguments_are_checked(fields, rule):
    with pytest.raises(ValueError, match=rule):
        PatchEncoder(**{"hidden_dim": 8, "grid_size": GRID, **fields})
