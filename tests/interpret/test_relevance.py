"""Chefer's relevance, against goldens and against the formula with attention recorded on a tape."""

import gc
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from golden import GOLDENS, load
from tiny import CONFIG, IMAGES, tiny_vit
from tiny_hybrids import tiny_hybrid

from keras_vit.interpret import relevance, relevance_matrix
from keras_vit.layers.vit import attention as attention_module
from keras_vit.models import SwinConfig, build_model

GRID = CONFIG.grid_size
PATCHES = GRID[0] * GRID[1]


def test_equals_the_golden():
    model, images, _ = load("timm/vit_token_nonsquare")
    golden = np.load(GOLDENS / "interpret" / "vit_token_nonsquare.npz")
    matrix = relevance_matrix(model, images, golden["target"])
    np.testing.assert_allclose(matrix, golden["relevance"], atol=1e-5)
    maps = relevance(model, images, golden["target"], batch_size=1)
    np.testing.assert_allclose(maps, golden["relevance_class_to_patches"], atol=1e-5)
    assert maps.shape == (2, 4, 6)
    assert (maps[0].argmax(), maps[1].argmax()) != (0, 0)


def _recorded_steps(model, images, classes, monkeypatch):
    """`mean over heads of max(0, A * dscore/dA)` of every attention in the order of the forward pass."""
    recorded, softmax = [], attention_module.softmax

    def recording(logits, dtype):
        recorded.append(softmax(logits, dtype))
        return recorded[-1]

    monkeypatch.setattr(attention_module, "softmax", recording)
    images = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(images)
        score = tf.reduce_sum(tf.gather(model(images), classes, axis=1, batch_dims=1))
    gradients = tape.gradient(score, recorded)
    monkeypatch.undo()
    return [np.maximum(a * g, 0).mean(axis=1) for a, g in zip(recorded, gradients, strict=True)]


@pytest.mark.parametrize(
    ("fields", "queries"),
    [
        ({}, [0]),
        ({"distillation_token": True, "num_registers": 2}, [0, 1]),
        ({"norm_placement": "post", "num_registers": 1}, [0]),
        ({"pooling": "gap"}, slice(1, None)),
        ({"pooling": "map", "class_token": False}, None),
        ({"pooling": "map", "num_registers": 2}, None),
    ],
    ids=str,
)
def test_equals_the_formula_for_every_pooling(fields, queries, monkeypatch):
    model, classes = tiny_vit(**fields), [2, 0]
    steps = _recorded_steps(model, IMAGES, classes, monkeypatch)
    pooling = steps.pop() if queries is None else None
    total = np.broadcast_to(np.eye(steps[0].shape[-1]), steps[0].shape)
    for step in steps:
        total = total + step @ total
    received = total if queries is None else total[:, queries]
    received = pooling @ received[:, -pooling.shape[-1] :] if queries is None else received
    received = received.mean(axis=1)
    expected = received[:, -PATCHES:].reshape(-1, *GRID)
    assert expected.std() > 1e-4
    np.testing.assert_allclose(relevance(model, IMAGES, classes), expected, rtol=1e-3, atol=1e-6)


def test_token_and_mean_count_alike(monkeypatch):
    model = tiny_vit(pooling="token_gap")
    steps = _recorded_steps(model, IMAGES, [1, 1], monkeypatch)
    total = np.eye(PATCHES + 1) + steps[0]
    total = total + steps[1] @ total
    expected = (total[:, 0] + total[:, 1:].mean(axis=1)) / 2
    maps = relevance(model, IMAGES, 1)
    np.testing.assert_allclose(maps, expected[:, 1:].reshape(-1, *GRID), rtol=1e-3, atol=1e-6)


def test_classes_by_name_number_and_best():
    model = tiny_vit(labels=("cat", "Dog", "eel"))
    by_name = relevance(model, IMAGES, ["dog", "eel"])
    np.testing.assert_array_equal(by_name, relevance(model, IMAGES, [1, 2]))
    assert np.abs(by_name - relevance(model, IMAGES, "cat")).max() > 1e-4
    best = np.argmax(model(IMAGES), axis=1)
    np.testing.assert_allclose(relevance(model, IMAGES), relevance(model, IMAGES, best), rtol=1e-5)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ("dogg", r"Did you mean 'dog'\? Received: class='dogg'"),
        (3, "from 0 to 2. Received: class=3"),
        (-1, "Received: class=-1"),
        (True, "Received: class=True"),
        ([0, 1, 2], "Received: 3 for 2 images"),
    ],
)
def test_unknown_classes_are_refused(classes, message):
    with pytest.raises(ValueError, match=message):
        relevance(tiny_vit(labels=("cat", "dog", "eel")), IMAGES, classes)


def test_a_name_needs_labels():
    with pytest.raises(ValueError, match=r"update_metadata\(model, labels=.* Received: class='dog'"):
        relevance(tiny_vit(), IMAGES, "dog")


def test_models_that_have_no_relevance_are_refused():
    with pytest.raises(ValueError, match=r"needs a model with a classifier; rollout.* Received: model='vit'"):
        relevance(tiny_vit(num_classes=0), IMAGES)
    swin = SwinConfig(
        image_size=16, patch_size=2, window_size=4, embed_dim=8, depths=(1, 1), num_heads=(1, 2), num_classes=2
    )
    with pytest.raises(ValueError, match=r"use grad_cam, .* Received: model='model' with a SwinConfig"):
        relevance(build_model(swin), IMAGES)
    with pytest.raises(ValueError, match="Received: 0 images"):
        relevance(tiny_vit(), IMAGES[:0])


@pytest.mark.parametrize(("dtype", "limit"), [("mixed_bfloat16", 0.06), ("mixed_float16", 0.02)])
def test_mixed_precision_is_near(dtype, limit):
    expected, found = relevance(tiny_vit(), IMAGES, 1), relevance(tiny_vit(dtype=dtype), IMAGES, 1)
    assert found.dtype == "float32"
    np.testing.assert_allclose(found, expected, atol=limit * expected.max())


def test_small_gradients_survive_float16():
    """A score so flat that its gradient is below the least number of float16."""
    models = {dtype: tiny_vit(dtype=dtype) for dtype in (None, "mixed_float16")}
    for model in models.values():
        kernel = model.get_layer("head").kernel
        kernel.assign(kernel * 1e-6)
    expected, found = (relevance(model, IMAGES, 1) for model in models.values())
    assert expected.max() > 0
    np.testing.assert_allclose(found, expected, atol=0.05 * expected.max())


def test_hybrids_saved_and_composed_models(tmp_path):
    hybrid = tiny_hybrid()
    images = np.random.default_rng(0).uniform(-1, 1, (1, 22, 36, 3)).astype("float32")
    assert relevance(hybrid, images).shape == (1, *hybrid.get_layer("metadata").content.config.grid_size)
    model = tiny_vit(distillation_token=True)
    expected = relevance(model, IMAGES, 1)
    model.save(tmp_path / "vit.keras")
    np.testing.assert_allclose(relevance(keras.models.load_model(tmp_path / "vit.keras"), IMAGES, 1), expected)
    front = keras.layers.Rescaling(1 / 127.5, offset=-1.0)
    around = keras.Sequential([keras.Input((16, 24, 3)), keras.layers.RandomFlip(), front, model])
    np.testing.assert_allclose(relevance(around, (IMAGES + 1) * 127.5, 1), expected, rtol=1e-3, atol=1e-5)


def test_two_classes_of_one_output_are_opposite():
    model = tiny_vit(num_classes=1, labels=("no", "yes"))
    second = relevance(model, IMAGES, "yes")
    assert np.abs(second - relevance(model, IMAGES, "no")).max() > 1e-4
    is_second = np.array(model(IMAGES))[:, 0] > 0
    best = relevance(model, IMAGES)
    np.testing.assert_allclose(best, relevance(model, IMAGES, list(is_second.astype(int))), rtol=1e-5)


def test_the_model_stays_as_it_is():
    model = tiny_vit(pooling="map")
    config, outputs = model.to_json(), np.array(model(IMAGES))
    relevance(model, IMAGES)
    assert model.to_json() == config
    np.testing.assert_array_equal(model(IMAGES), outputs)


def test_explaining_again_builds_nothing_and_keeps_no_model():
    model = tiny_vit()
    first = relevance(model, IMAGES, 1)
    block = model.get_layer("encoder_norm")
    nodes = len(block._inbound_nodes)
    kernel = model.get_layer("head").kernel
    np.testing.assert_array_equal(relevance(model, IMAGES, 1), first)
    assert len(block._inbound_nodes) == nodes
    kernel.assign(2 * kernel)
    assert relevance(model, IMAGES, 1).max() > first.max()
    reference = weakref.ref(model)
    del model, block, kernel
    gc.collect()
    assert reference() is None
