"""Augmentation beside timm itself (`make test-peers`): the same draws must give the same pixels and targets."""

import random
import sys

import numpy as np
import pytest

if "torch" not in sys.modules:
    pytest.skip("runs in make test-peers, where PyTorch is loaded before TensorFlow", allow_module_level=True)

import tensorflow as tf
import torch
from PIL import Image
from timm.data import auto_augment, mixup, random_erasing
from torchvision import transforms

from keras_vit.data.augment.mixup import blend, cutmix_boxes, paste, smooth_targets
from keras_vit.data.augment.pillow_color import grayscale
from keras_vit.data.augment.policies import color_jitter, make_policy
from keras_vit.data.augment.randaugment import Draw, draw_layers, timm_operations
from keras_vit.data.augment.random_erasing import erasing_boxes

pytestmark = pytest.mark.peers
RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (45, 37, 3), "uint8")
FILL = (124, 116, 104)
RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def _timm_names(increasing):
    return auto_augment._RAND_INCREASING_TRANSFORMS if increasing else auto_augment._RAND_TRANSFORMS


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("increasing", [True, False])
def test_operations_at_their_magnitudes(monkeypatch, increasing, sign, interpolation):
    ours = timm_operations(increasing, FILL, interpolation)
    assert list(ours) == [name.replace("Increasing", "") for name in _timm_names(increasing)]
    monkeypatch.setattr(random, "random", lambda: 0.25 if sign > 0 else 0.75)
    hparams = {"img_mean": FILL, "interpolation": RESAMPLING[interpolation]}
    for name, operation in zip(_timm_names(increasing), ours.values(), strict=True):
        for magnitude in (2.7, 5.0, 9.0, 9.46):
            if name == "Posterize" and magnitude == 2.7:
                magnitude = 2.5  # 1 bit in both; below, Pillow refuses what timm asks of it
            reference = auto_augment.AugmentOp(name, prob=1.0, magnitude=magnitude, hparams=hparams)
            draw = Draw(tf.constant(magnitude, tf.float64) / 10, tf.constant(sign, tf.float64), tf.zeros(2))
            expected = np.asarray(reference(Image.fromarray(IMAGE)))
            np.testing.assert_array_equal(operation(tf.constant(IMAGE), draw), expected, err_msg=f"{name} {magnitude}")


@pytest.mark.parametrize("text", ["rand-m9-mstd0.5-inc1", "rand-m12-n3-p0.8-mmax20-mstd2", "rand-m7-mstd101"])
def test_strings_are_read_as_timm_reads_them(text):
    reference = auto_augment.rand_augment_transform(text, {"img_mean": FILL})
    ours = make_policy(text)
    first = reference.ops[0]
    assert [op.name for op in reference.ops] == _timm_names(ours.increasing)
    assert (reference.num_layers, first.prob, first.magnitude) == (ours.layers, ours.rate, ours.magnitude)
    assert (first.magnitude_max or 10) == ours.maximum
    deviation = float("inf") if ours.deviation > 100 else ours.deviation
    assert first.magnitude_std == deviation


def test_magnitudes_are_distributed_as_timm_s(monkeypatch):
    reference = auto_augment.rand_augment_transform("rand-m9-mstd0.5-inc1", {"img_mean": FILL})
    seen = []
    operation = reference.ops[3]
    operation.prob = 1.0
    monkeypatch.setattr(operation, "level_fn", lambda magnitude, hparams: seen.append(magnitude) or (0.0,))
    for _ in range(2000):
        operation(Image.new("RGB", (2, 2)))
    policy = make_policy("rand-m9-mstd0.5-inc1")
    ours = [10 * float(d.level) for n in range(300) for d in draw_layers(tf.constant([n, 1]), 15, policy)[1]]
    for quantile in (0.05, 0.25, 0.5, 0.75, 0.95):
        assert np.quantile(ours, quantile) == pytest.approx(np.quantile(seen, quantile), abs=0.1)


@pytest.mark.parametrize("weight", [0.05, 0.4, 0.83])
@pytest.mark.parametrize("center", [(0, 0), (17, 20), (44, 36)])
def test_cutmix_boxes_and_weights(monkeypatch, weight, center):
    places = iter(center)
    monkeypatch.setattr(np.random, "randint", lambda low, high, size=None: next(places))
    (top, bottom, left, right), corrected = mixup.cutmix_bbox_and_lam((4, 3, 45, 37), weight)
    fractions = tf.constant([[(center[0] + 0.5) / 45, (center[1] + 0.5) / 37]])
    boxes, weights = cutmix_boxes(tf.constant([weight]), fractions, (45, 37))
    np.testing.assert_array_equal(boxes, [[top, left, bottom - top, right - left]])
    np.testing.assert_allclose(weights, [corrected], atol=1e-6)


@pytest.mark.parametrize("uses_cutmix", [True, False])
def test_a_mixed_batch(monkeypatch, uses_cutmix):
    images = RNG.normal(size=(6, 12, 10, 3)).astype("float32")
    labels = np.array([0, 3, 1, 4, 2, 2])
    monkeypatch.setattr(np.random, "rand", lambda *shape: 0.3 if uses_cutmix else 0.7)
    monkeypatch.setattr(np.random, "beta", lambda a, b, size=None: 0.6)
    monkeypatch.setattr(np.random, "randint", lambda low, high, size=None: 4)
    mixer = mixup.Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, label_smoothing=0.1, num_classes=5)
    expected, targets = mixer(torch.tensor(images.transpose(0, 3, 1, 2)), torch.tensor(labels))
    weights, partners = tf.constant([0.6]), images[::-1]
    if uses_cutmix:
        boxes, weights = cutmix_boxes(weights, tf.constant([[4.5 / 12, 4.5 / 10]]), (12, 10))
        mixed = paste(images, partners, boxes)
    else:
        mixed = blend(images, partners, weights)
    np.testing.assert_allclose(mixed, expected.numpy().transpose(0, 2, 3, 1), atol=1e-6)
    rows = smooth_targets(tf.one_hot(labels, 5), 0.1)
    np.testing.assert_allclose(weights * rows + (1 - weights) * rows[::-1], targets.numpy(), atol=1e-6)


def test_erased_areas_are_distributed_as_timm_s():
    random.seed(0)
    eraser = random_erasing.RandomErasing(0.5, mode="pixel", device="cpu")
    reference = (eraser(torch.zeros((2000, 1, 24, 32))).numpy() != 0).mean((1, 2, 3))
    _, _, heights, widths = erasing_boxes(8000, (24, 32), 0.5, tf.constant([1, 2])).numpy().T
    ours = heights * widths / (24 * 32)
    assert np.mean(ours > 0) == pytest.approx(np.mean(reference > 0), abs=0.04)
    for quantile in (0.6, 0.75, 0.9, 0.99):
        assert np.quantile(ours, quantile) == pytest.approx(np.quantile(reference, quantile), abs=0.03)


def test_gray_of_torchvision():
    expected = np.asarray(transforms.Grayscale(3)(Image.fromarray(IMAGE)))
    np.testing.assert_array_equal(grayscale(IMAGE), expected)


def test_color_jitter_is_torchvision_s_given_its_draws(monkeypatch):
    """The orders and the factors are those that ours drew."""
    jitter = transforms.ColorJitter(0.3, 0.3, 0.3)
    for number in range(12):
        seed = tf.constant([number, 5])
        uniform = tf.random.stateless_uniform((2, 3), tf.random.fold_in(seed, 3)).numpy()
        factors = 0.7 + 0.6 * uniform[0]
        order = torch.tensor([*np.argsort(uniform[1]), 3])
        drawn = (order, *map(float, factors), None)
        monkeypatch.setattr(jitter, "get_params", lambda *ranges, drawn=drawn: drawn)
        expected = np.asarray(jitter(Image.fromarray(IMAGE)))
        np.testing.assert_array_equal(color_jitter(tf.constant(IMAGE), 0.3, seed), expected)
