"""Integrated gradients and SmoothGrad, against their formulas."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny import IMAGES, randomize, tiny_vit

from keras_vit.interpret import integrated_gradients, pixel_heat_map, smooth_grad
from keras_vit.models import SwinConfig, build_model


@pytest.fixture(scope="module")
def model():
    return tiny_vit(distillation_token=True, labels=("cat", "dog", "eel"))


def _gradient(model, images, number):
    images = tf.constant(images, "float32")
    with tf.GradientTape() as tape:
        tape.watch(images)
        score = tf.reduce_sum(model(images)[:, number])
    return tape.gradient(score, images).numpy()


def test_integrated_gradients_add_up_to_the_score(model):
    baseline = np.random.default_rng(0).uniform(-1, 1, IMAGES.shape[1:]).astype("float32")
    found = integrated_gradients(model, IMAGES, "dog", baseline)
    gained = np.array(model(IMAGES) - model(baseline[None]))[:, 1]
    assert np.abs(gained).min() > 1e-3
    np.testing.assert_allclose(found.sum(axis=(1, 2, 3)), gained, atol=1e-4)


def test_integrated_gradients_equal_the_rule_of_captum(model):
    points, weights = np.polynomial.legendre.leggauss(5)
    expected = sum(w / 2 * _gradient(model, IMAGES * (p + 1) / 2, 2) for p, w in zip(points, weights, strict=True))
    found = integrated_gradients(model, IMAGES, 2, steps=5, batch_size=2)
    np.testing.assert_allclose(found, IMAGES * expected, atol=1e-5)


def test_smooth_grad_is_the_mean_of_gradients_of_noisy_images(model):
    np.testing.assert_allclose(smooth_grad(model, IMAGES, 0, noise=0, steps=1), _gradient(model, IMAGES, 0), atol=1e-5)
    unit = np.random.default_rng(3).standard_normal((3, *IMAGES.shape[1:]), dtype="float32")
    noisy = IMAGES[0] + 0.2 * (IMAGES[0].max() - IMAGES[0].min()) * unit
    expected = _gradient(model, noisy, 0).mean(axis=0)
    found = smooth_grad(model, IMAGES[:1], 0, noise=0.2, steps=3, seed=3, batch_size=2)
    np.testing.assert_allclose(found[0], expected, atol=1e-5)


def test_the_best_class_is_the_default(model):
    best = list(np.argmax(model(IMAGES), axis=1))
    found = integrated_gradients(model, IMAGES, steps=2)
    np.testing.assert_array_equal(found, integrated_gradients(model, IMAGES, best, steps=2))


def test_layers_in_front_change_no_attribution(model):
    around = keras.Sequential([keras.Input((16, 24, 3)), keras.layers.Rescaling(1 / 127.5, offset=-1.0), model])
    expected = integrated_gradients(model, IMAGES, "cat", steps=2)
    found = integrated_gradients(around, (IMAGES + 1) * 127.5, 0, steps=2)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_swin_and_half_precision():
    config = SwinConfig(
        image_size=16, patch_size=2, window_size=4, embed_dim=8, depths=(1, 1), num_heads=(1, 2), num_classes=2
    )
    images = IMAGES[:, :, :16]
    full, half = (build_model(config, dtype=dtype) for dtype in (None, "mixed_bfloat16"))
    randomize(full)
    randomize(half)
    expected, found = (integrated_gradients(model, images, 1, steps=4) for model in (full, half))
    assert found.dtype == "float32"
    np.testing.assert_allclose(found, expected, atol=0.1 * np.abs(expected).max())


def test_heat_maps_of_pixels_and_patches():
    attributions = np.arange(-24, 24, dtype="float32").reshape(1, 4, 4, 3)
    maps = pixel_heat_map(attributions)
    np.testing.assert_array_equal(maps[0, 0, 0], 24 + 23 + 22)
    patches = pixel_heat_map(attributions, (2, 1))
    np.testing.assert_allclose(patches[0, :, 0], [maps[0, :2].mean(), maps[0, 2:].mean()])
    assert pixel_heat_map(np.ones((1, 5, 7, 1)), (2, 3)).shape == (1, 2, 3)


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (integrated_gradients, {"steps": 0}, "Received: steps=0"),
        (smooth_grad, {"steps": 1.5}, "Received: steps=1.5"),
        (smooth_grad, {"noise": -1.0}, "Received: noise=-1.0"),
        (smooth_grad, {"images": IMAGES[:0]}, "Received: 0 images"),
    ],
)
def test_bad_arguments_are_refused(model, function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(**{"model": model, "images": IMAGES, **arguments})
