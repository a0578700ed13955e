"""Grad-CAM of every family, against the formula with a tape around the rest of the model."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tiny import IMAGES, randomize, tiny_vit
from tiny_hybrids import tiny_hybrid

from keras_vit.interpret import grad_cam
from keras_vit.models import ConvNetConfig, SwinConfig, build_model

SWIN = SwinConfig(
    image_size=(12, 20), patch_size=2, window_size=4, embed_dim=8, depths=(1, 2), num_heads=(1, 2), num_classes=3
)


@pytest.fixture(scope="module")
def swin():
    model = build_model(SWIN)
    randomize(model)
    return model, np.random.default_rng(1).uniform(-1, 1, (2, 12, 20, 3)).astype("float32")


def _reference(model, images, classes, stage, grid):
    """Relu of the channels' sum, weighted by the means of their gradients over the patches or positions."""
    output = model.get_layer(stage).output
    features = keras.Model(model.input, output)(images)
    with tf.GradientTape() as tape:
        tape.watch(features)
        outputs = keras.Model(output, model.output)(features)
        score = tf.reduce_sum(tf.gather(outputs, classes, axis=1, batch_dims=1))
    positions = grid[0] * grid[1]
    gradient, features = (
        np.reshape(x, (len(images), -1, x.shape[-1])) for x in (tape.gradient(score, features), features)
    )
    gradient, features = gradient[:, -positions:], features[:, -positions:]
    maps = np.einsum("bnc,bc->bn", features, gradient.mean(axis=1))
    return np.maximum(maps, 0).reshape(-1, *grid)


@pytest.mark.parametrize(
    ("fields", "stage", "default"),
    [
        ({"num_registers": 2}, "encoder_block_0", True),
        ({"distillation_token": True}, "encoder_block_0", True),
        ({"pooling": "gap"}, "encoder_block_1", True),
        ({"pooling": "map", "class_token": False}, "encoder_block_1", True),
        ({}, "patch_encoder", False),
    ],
    ids=str,
)
def test_tokens_equal_the_formula(fields, stage, default):
    model = tiny_vit(**fields)
    expected = _reference(model, IMAGES, [0, 2], stage, (2, 3))
    maps = grad_cam(model, IMAGES, [0, 2], None if default else stage, batch_size=1)
    assert expected.max() > 1e-3
    np.testing.assert_allclose(maps, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("stage", "grid"), [("stage_0", (6, 10)), (None, (3, 5)), ("encoder_block_1", (3, 5))])
def test_stages_of_a_swin_equal_the_formula(swin, stage, grid):
    model, images = swin
    expected = _reference(model, images, [1, 1], stage or "stage_1", grid)
    assert expected.max() > 1e-3
    np.testing.assert_allclose(grad_cam(model, images, 1, stage), expected, rtol=1e-3, atol=1e-5)


def test_features_of_convolutions_equal_the_formula():
    hybrid, images = tiny_hybrid(), np.random.default_rng(0).uniform(-1, 1, (1, 22, 36, 3)).astype("float32")
    expected = _reference(hybrid, images, [2], "stem_stage_0", (6, 9))
    np.testing.assert_allclose(grad_cam(hybrid, images, 2, "stem_stage_0"), expected, rtol=1e-3, atol=1e-6)
    convnet = build_model(ConvNetConfig(image_size=8, widths=(8, 16), depths=(0, 1), num_classes=2))
    images = images[:, :8, :8]
    expected = _reference(convnet, images, [0], "stage_1", (4, 4))
    np.testing.assert_allclose(grad_cam(convnet, images, 0), expected, rtol=1e-3, atol=1e-6)


def test_one_block_leaves_the_embedding():
    model = tiny_vit(num_layers=1)
    np.testing.assert_array_equal(grad_cam(model, IMAGES), grad_cam(model, IMAGES, stage="patch_encoder"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stage": "encoder_block_7"}, "Received: layer='encoder_block_7' of model='vit', known: .*'encoder_block_0'"),
        ({"stage": "representation"}, r"Received: stage='representation' of the shape \(batch, 16\)"),
        ({"images": IMAGES[:0]}, "Received: 0 images"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        grad_cam(**{"model": tiny_vit(), "images": IMAGES, **arguments})
