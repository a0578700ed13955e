"""Patches in the order of einops and of a strided convolution's kernel."""

import keras
import numpy as np
import pytest
from einops import rearrange

from keras_vit.layers import PatchEncoder, Patches

RNG = np.random.default_rng(1)
SIZES = [((8, 8), (4, 4), 3), ((6, 20), (3, 5), 1), ((12, 4), (2, 4), 5), ((4, 6), (1, 6), 2)]


@pytest.mark.parametrize(("image_size", "patch_size", "channels"), SIZES)
def test_equals_einops(image_size, patch_size, channels):
    images = RNG.normal(size=(2, *image_size, channels)).astype("float32")
    p1, p2 = patch_size
    expected = rearrange(images, "b (h p1) (w p2) c -> b (h w) (p1 p2 c)", p1=p1, p2=p2)
    np.testing.assert_array_equal(Patches(patch_size)(images), expected)


@pytest.mark.parametrize(("image_size", "patch_size", "channels"), SIZES)
def test_with_projection_equals_strided_convolution(image_size, patch_size, channels):
    images = RNG.normal(size=(2, *image_size, channels)).astype("float32")
    patches = Patches(patch_size)(images)
    grid = tuple(s // p for s, p in zip(image_size, patch_size, strict=True))
    encoder = PatchEncoder(8, grid, class_token=False)
    encoder.build(patches.shape)
    encoder.positions.assign(keras.ops.zeros_like(encoder.positions))
    kernel = keras.ops.reshape(encoder.projection.kernel, (*patch_size, channels, 8))
    expected = keras.ops.conv(images, kernel, strides=patch_size, data_format="channels_last")
    np.testing.assert_allclose(encoder(patches), keras.ops.reshape(expected, (2, -1, 8)), atol=1e-5)


def test_the_remainder_is_dropped_only_on_request():
    images = RNG.normal(size=(1, 7, 5, 2)).astype("float32")
    with pytest.raises(ValueError, match=r"image_size=\(7, 5\), patch_size=\(3, 2\)"):
        Patches((3, 2))(images)
    layer = Patches((3, 2), drop_remainder=True)
    np.testing.assert_array_equal(layer(images), Patches((3, 2))(images[:, :6, :4]))
    assert layer.compute_output_shape((None, 7, 5, 2)) == (None, 4, 12)
    assert Patches.from_config(layer.get_config()).drop_remainder


def test_unknown_image_size_is_read_from_the_images():
    layer = Patches((2, 3))
    assert layer.compute_output_shape((None, None, None, 3)) == (None, None, 18)
    model = keras.Sequential([keras.Input((None, None, 3)), layer])
    assert model(np.zeros((1, 4, 9, 3))).shape == (1, 6, 18)


@pytest.mark.parametrize("shape", [(2, 8, 8), (1, 2, 8, 8, 3)])
def test_rank_other_than_four_raises(shape):
    with pytest.raises(ValueError, match=r"images must have the shape \(batch, height, width, channels\). Received"):
        Patches(4)(np.zeros(shape, "float32"))


def test_patch_that_does_not_divide_the_image_raises():
    with pytest.raises(ValueError, match=r"image_size=\(8, 9\), patch_size=\(4, 4\)"):
        Patches(4)(np.zeros((1, 8, 9, 3), "float32"))


@pytest.mark.parametrize("patch_size", [0, -1, 2.0, "4", (4,), (4, 4, 4), (4, 0), True])
def test_patch_size_must_be_a_positive_int_or_pair(patch_size):
    with pytest.raises(ValueError, match="Received: patch_size="):
        Patches(patch_size)
