"""`InputSpec` in the graph: the pixels of Pillow, at the cost of what is seen alone."""

import numpy as np
import pytest
import tensorflow as tf
from hostile import picture

from keras_vit import InputSpec
from keras_vit.image_ops.resize import resize


@pytest.mark.parametrize("crop_fraction", [None, 0.875, 1.0])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
def test_the_graph_resizes_as_pillow_does(crop_fraction, interpolation):
    spec = InputSpec(size=(24, 32), crop_fraction=crop_fraction, interpolation=interpolation)
    smooth, noisy = [], []
    # None that shrinks in height much more than in width: Pillow 13 begins such images with the other pass.
    for size in ((64, 48), (90, 33), (20, 20), (500, 130), (32, 24)):
        for pixels, differences in ((np.asarray(picture(1, size)), smooth), (_noise(size), noisy)):
            differences.append(np.abs(resize(tf.constant(pixels), spec).numpy() - spec.resize(pixels)).ravel())
    smooth, noisy = np.concatenate(smooth), np.concatenate(noisy)
    # Noise overshoots at every edge, which is cut off between the passes; exact halves are rounded twice.
    assert (smooth.max(), noisy.max()) <= (1, 2)
    assert max(np.mean(smooth > 0), np.mean(noisy > 0)) < 0.05


def _noise(size):
    return np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype="uint8")


@pytest.mark.parametrize("crop_fraction", [None, 0.9])
def test_the_nearest_pixels_are_those_of_pillow(crop_fraction):
    spec = InputSpec(size=(24, 32), crop_fraction=crop_fraction, interpolation="nearest")
    # Sizes for which no center lies between two pixels, where the two choose differently.
    for size in ((41, 31), (97, 89), (11, 13)):
        pixels = _noise(size)
        np.testing.assert_array_equal(resize(tf.constant(pixels), spec), spec.resize(pixels))


def test_images_of_one_row_or_column_cost_no_more_than_others():
    """Resized as a whole, before the crop, they would have 400,000 columns, and gigabytes."""
    spec = InputSpec(size=(24, 32))
    for shape in ((1, 16_384, 3), (16_384, 1, 3)):
        pixels = np.broadcast_to(np.arange(16_384).reshape(*shape[:2], 1) // 64, shape).astype("uint8")
        resized = resize(tf.constant(pixels), spec).numpy()
        # The middle, stretched so much that two of its values are seen.
        assert np.abs(resized - 127.5).max() <= 1


def test_batches_are_resized_as_single_images():
    spec, pixels = InputSpec(size=(24, 32), crop_fraction=0.9), np.stack([_noise((61, 40)), _noise((61, 40))[::-1]])
    single = [resize(tf.constant(image), spec) for image in pixels]
    np.testing.assert_array_equal(resize(tf.constant(pixels), spec), single)
    assert resize(tf.constant(pixels[:0]), spec).shape == (0, 24, 32, 3)
