"""Figures: what they show, in which proportions."""

import numpy as np
import pytest

from keras_vit.interpret import TokenPCA
from keras_vit.interpret.plots import (
    attention_heads_figure,
    blend,
    distance_figure,
    filters_figure,
    heat_map_figure,
    pca_figure,
    positions_figure,
)

PIXELS = np.random.default_rng(0).integers(0, 256, (32, 64, 3), "uint8")


def _panels(figure):
    return [axes for axes in figure.axes if axes.images]


def test_cold_places_stay_as_they_are_and_hot_ones_change():
    heat = np.zeros((2, 4))
    heat[0, 3] = 1
    blended = blend(PIXELS, heat)
    assert blended.shape == (32, 64, 3)
    np.testing.assert_allclose(blended[20:, :20], PIXELS[20:, :20] / 255, atol=1e-6)
    assert np.abs(blended[4, 60] - PIXELS[4, 60] / 255).max() > 0.1
    assert (blended.min() >= 0) & (blended.max() <= 1)


def test_a_flat_map_and_gray_images_are_drawn():
    np.testing.assert_allclose(blend(PIXELS[..., :1], np.ones((2, 4))), np.repeat(PIXELS[..., :1], 3, -1) / 255)


def test_heat_maps_beside_the_image():
    figure = heat_map_figure(PIXELS, {"relevance": np.ones((2, 4)), "rollout": np.eye(2)}, "dog 0.9")
    panels = _panels(figure)
    assert [axes.get_title() for axes in panels] == ["", "relevance", "rollout"]
    assert figure.get_suptitle() == "dog 0.9"
    width, height = figure.get_size_inches()
    assert width > 3 * height
    np.testing.assert_array_equal(panels[0].images[0].get_array(), PIXELS)


def test_a_panel_for_every_head():
    attention = np.random.default_rng(0).random((3, 9, 9))
    panels = _panels(attention_heads_figure(PIXELS, attention, (2, 4)))
    assert [axes.get_title() for axes in panels] == ["", "head 0", "head 1", "head 2"]
    np.testing.assert_allclose(panels[2].images[0].get_array(), blend(PIXELS, attention[1, 0, 1:].reshape(2, 4)))


@pytest.mark.parametrize(("grid", "drawn"), [((2, 3), 6), ((20, 4), 64)])
def test_positions_are_a_grid_of_maps(grid, drawn):
    similarity = np.random.default_rng(0).random((*grid, *grid))
    panels = [axes for axes in _panels(positions_figure(similarity)) if axes.images[0].get_array().shape == grid]
    assert len(panels) == drawn
    np.testing.assert_array_equal(panels[-1].images[0].get_array(), similarity[-1, -1])


def test_filters_distances_and_components():
    filters = np.random.default_rng(0).normal(size=(9, 4, 4, 3))
    shown = [axes.images[0].get_array() for axes in _panels(filters_figure(filters))]
    assert len(shown) == 9
    assert all(abs(np.abs(values - 0.5).max() - 0.5) < 1e-6 for values in shown)
    axes = distance_figure([np.full((2, 3), 4.0), np.full((2, 6), 8.0)]).axes[0]
    assert [len(points.get_offsets()) for points in axes.collections] == [3, 6]
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [4, 8])
    colors = np.random.default_rng(0).random((2, 2, 4, 3)).astype("float32")
    pca = TokenPCA(colors, np.ones((2, 2, 4), bool), colors)
    panels = _panels(pca_figure([PIXELS, PIXELS], pca))
    assert len(panels) == 4
    np.testing.assert_array_equal(panels[3].images[0].get_array(), colors[1])
