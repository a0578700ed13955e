"""What keras-cv's layers do, as `keras_vit.data.augment.policies` and the recipes tell it."""

import collections

import keras_cv
import numpy as np
import pytest
import tensorflow as tf

from keras_vit.config.files import load_recipe, load_recipe_module
from keras_vit.data import Split, training_dataset
from keras_vit.data.augment.policies import KerasCVPolicy, make_policy, mix
from keras_vit.data.augment.randaugment import timm_operations
from keras_vit.preprocessing import InputSpec

COUNT, SIZE = 128, 32


@pytest.fixture(scope="module", params=["MixUp", "CutMix"])
def mixed(request):
    """A name, and images of one number each and their one-hot targets, mixed; those that met another image."""
    tf.random.set_seed(0)
    numbers = np.arange(COUNT, dtype="float32")
    images, targets = mix(
        tf.constant(np.tile(numbers[:, None, None, None], (1, SIZE, SIZE, 1))), tf.eye(COUNT), request.param, 1.0
    )
    own = np.diagonal(targets)
    return request.param, images.numpy()[own < 1, ..., 0], targets.numpy()[own < 1], numbers[own < 1]


def test_every_image_is_mixed_by_a_weight_of_its_own(mixed):
    """A published recipe draws one a batch."""
    _, _, targets, numbers = mixed
    weights = targets[np.arange(len(numbers)), numbers.astype(int)]
    assert len(np.unique(weights.round(4))) > 10
    partners = targets.copy()
    partners[np.arange(len(numbers)), numbers.astype(int)] = 0
    assert np.all(np.count_nonzero(partners, axis=1) == 1)
    # A permutation: neither the neighbor nor the mirrored place.
    steps = (partners.argmax(1) - numbers.astype(int)) % COUNT
    assert len(np.unique(steps)) > COUNT / 4


def test_the_weight_of_cutmix_is_not_that_of_the_pasted_area(mixed):
    """Where the border has cut the box. Should this fail, keras-cv corrects it, and its docstring here is wrong."""
    name, images, targets, numbers = mixed
    if name == "MixUp":
        levels = targets @ np.arange(COUNT, dtype="float32")
        np.testing.assert_allclose(images[:, 0, 0], levels, rtol=1e-4)
        return
    pasted = images != numbers[:, None, None]
    areas = pasted.mean((1, 2))
    told = 1 - targets[np.arange(len(numbers)), numbers.astype(int)]
    edges = (pasted[:, [0, -1]].any((1, 2))) | (pasted[:, :, [0, -1]].any((1, 2)))
    assert np.count_nonzero(~edges) > 5
    np.testing.assert_allclose(told[~edges], areas[~edges], atol=1e-5)
    assert np.all(told[edges] > areas[edges] - 1e-5)
    assert np.count_nonzero(told > areas + 0.05) > 10


def test_randaugment_has_ten_operations_of_its_own():
    layer = keras_cv.layers.RandAugment(value_range=(0, 255))
    counts = collections.Counter(type(operation).__name__ for operation in layer.layers)
    once = ("AutoContrast", "Equalization", "Solarization", "RandomColorDegeneration")
    once += ("RandomContrast", "RandomBrightness")
    assert counts == {**dict.fromkeys(once, 1), "RandomShear": 2, "RandomTranslation": 2}
    assert (layer.augmentations_per_image, layer.magnitude_stddev) == (3, 0.15)
    assert layer.rate == pytest.approx(10 / 11)
    moves = [operation for operation in layer.layers if hasattr(operation, "fill_mode")]
    assert [operation.fill_mode for operation in moves] == ["reflect"] * 4
    timm = make_policy("rand-m9-mstd0.5-inc1")
    assert timm.layers == 2
    assert len(timm_operations(True, (0, 0, 0), "bicubic")) == 15


def test_random_flip_mirrors_every_second_image():
    images = np.zeros((400, 2, 3, 1), "float32")
    images[:, :, 0] = 1
    flipped = keras_cv.layers.RandomFlip("horizontal", seed=1)(images, training=True).numpy()
    mirrored = flipped[:, 0, 2, 0] == 1
    assert 160 < mirrored.sum() < 240
    np.testing.assert_array_equal(flipped[mirrored], images[mirrored][:, :, ::-1])
    np.testing.assert_array_equal(flipped[~mirrored], images[~mirrored])


def _crops(area, ratio, count=1000):
    """Heights and widths of keras-cv's crops of an image twice as wide as high, as parts of its sides."""
    y, x = np.meshgrid(np.linspace(0, 1, 5), np.linspace(0, 1, 10), indexing="ij")
    images = np.tile(np.stack([y, x], -1).astype("float32"), (count, 1, 1, 1))
    layer = keras_cv.layers.RandomCropAndResize((2, 2), area, ratio, seed=1)
    crops = layer(images, training=True).numpy()
    return np.moveaxis(crops[:, 1, 1] - crops[:, 0, 0], -1, 0)


def test_random_crop_and_resize_draws_other_ratios():
    heights, widths = _crops((0.2, 0.5), (3 / 4, 4 / 3))
    areas, ratios = heights * widths, widths / heights
    assert 0.2 - 1e-4 < areas.min() < 0.21
    assert 0.49 < areas.max() < 0.5 + 1e-4
    assert areas.mean() == pytest.approx(0.35, abs=0.01)
    # Of the image's own ratio, which is 2, and uniform: the median of a uniform logarithm would be 1.
    assert 3 / 4 - 1e-3 < ratios.min() < 0.77
    assert 1.31 < ratios.max() < 4 / 3 + 1e-3
    assert np.median(ratios) > 1.02


def test_random_crop_and_resize_cuts_long_sides():
    heights, widths = _crops((0.9, 1.0), (3 / 4, 4 / 3), count=200)
    assert max(heights.max(), widths.max()) < 1 + 1e-5
    assert (heights * widths).min() < 0.88


def test_random_crop_and_resize_reads_single_points():
    stripes = np.zeros((1, 9, 9, 1), "float32")
    stripes[:, :, ::2] = 255
    layer = keras_cv.layers.RandomCropAndResize((3, 3), (1.0, 1.0), (1.0, 1.0), seed=1)
    np.testing.assert_allclose(layer(stripes, training=True), 255, atol=1e-3)


def test_the_same_seed_gives_another_image():
    policy = KerasCVPolicy("RandomFlip")
    image = tf.constant(np.arange(12, dtype="uint8").reshape(2, 2, 3))
    seen = {policy(image, tf.constant([1, 2]), (0, 0, 0), "bilinear").numpy().tobytes() for _ in range(32)}
    assert len(seen) == 2


def test_the_overrides_of_the_recipes_make_batches():
    overrides = ['augment.policy=keras_cv("RandAugment")', "augment.mixup_mode=keras_cv"]
    recipe = load_recipe("deit_tiny_i1k", overrides)
    assert (
        "--set augment.policy='keras_cv(\"RandAugment\")' --set augment.mixup_mode=keras_cv"
        in load_recipe_module("deit_tiny_i1k").__doc__
    )
    images = np.random.default_rng(0).integers(0, 256, (8, 20, 20, 3)).astype("uint8")
    split, spec = Split(images, np.arange(8)), InputSpec(size=16)
    dataset, steps = training_dataset(split, 8, spec, 8, 1, 0, recipe.augment)
    ((images, targets),) = dataset
    assert (steps, images.shape, targets.shape) == (1, (8, 16, 16, 3), (8, 8))
    assert np.isfinite(images).all()
    np.testing.assert_allclose(tf.reduce_sum(targets, 1), 1, atol=1e-5)
    assert np.any(np.max(targets, axis=1) < 1)
