"""Mixup, cutmix and erasing: what is drawn, and that the targets say what the pixels show."""

import numpy as np
import pytest
import tensorflow as tf

from keras_vit.config import AugmentConfig
from keras_vit.data.augment.mixup import cutmix_boxes, mix_weighted, mixup, smooth_targets
from keras_vit.data.augment.random_erasing import boxes_mask, erasing_boxes, random_erasing

SEED = tf.constant([3, 4])


def _numbered(count, size=8):
    """Images whose pixels are their number, of a class each: what is mixed can be read off both."""
    images = tf.ones((count, size, size, 1)) * tf.range(float(count))[:, None, None, None]
    return images, tf.eye(count)


def _partner_weights(targets):
    """The part of the partner, whose row is the reversed batch's, in every row of targets."""
    return np.fliplr(targets).diagonal()


def _many(config, count, batch=4, size=8):
    """Images and targets of many batches, `(count, batch, ...)`."""
    images, targets = _numbered(batch, size)

    @tf.function
    def run():
        def one(number):
            return mix_weighted(images, targets, config, tf.stack([1, number]))

        return tf.map_fn(one, tf.range(count), fn_output_signature=(tf.float32, tf.float32))

    return [part.numpy() for part in run()]


def test_smoothing_is_timm_s():
    rows = smooth_targets(tf.eye(4), 0.1).numpy()
    np.testing.assert_allclose(rows[0], [0.925, 0.025, 0.025, 0.025], atol=1e-7)
    assert smooth_targets(rows, 0.0) is rows


def test_big_vision_mixup_rolls_and_keeps_the_larger_part():
    images, targets = _numbered(4)
    for number in range(20):
        mixed, rows = mixup(images, targets, 0.8, tf.constant([1, number]))
        weight = float(rows[0, 0])
        assert 0.5 <= weight <= 1
        np.testing.assert_allclose(
            mixed[:, 0, 0, 0], weight * np.arange(4) + (1 - weight) * np.roll(np.arange(4), 1), atol=1e-6
        )
        np.testing.assert_allclose(rows, weight * np.eye(4) + (1 - weight) * np.roll(np.eye(4), 1, 0), atol=1e-6)


@pytest.mark.parametrize("alpha", [0.02, 0.8])
def test_weights_have_the_variance_of_their_beta(alpha):
    images, targets = _numbered(512, size=1)
    config = AugmentConfig(mixup=alpha, mixup_mode="sample")
    weights = np.concatenate(
        [_partner_weights(mix_weighted(images, targets, config, tf.constant([1, n]))[1].numpy()) for n in range(6)]
    )
    assert not np.isnan(weights).any()
    assert abs(weights.mean() - 0.5) < 0.03
    assert weights.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.06)


def test_mixup_of_single_images_blends_each_by_its_own_weight():
    images, targets = _numbered(64)
    mixed, rows = (
        part.numpy() for part in mix_weighted(images, targets, AugmentConfig(mixup=0.8, mixup_mode="sample"), SEED)
    )
    partner = _partner_weights(rows)
    assert len(np.unique(partner)) > 50
    numbers = np.arange(64)
    expected = (1 - partner) * numbers + partner * numbers[::-1]
    np.testing.assert_allclose(mixed, np.broadcast_to(expected[:, None, None, None], mixed.shape), rtol=1e-5)


def test_the_weight_of_cutmix_is_the_area_that_was_pasted():
    images, targets = _numbered(256, size=13)
    mixed, rows = (
        part.numpy() for part in mix_weighted(images, targets, AugmentConfig(cutmix=1.0, mixup_mode="sample"), SEED)
    )
    numbers = np.arange(256)
    pasted = mixed[..., 0] == numbers[::-1, None, None]
    assert np.all(pasted | (mixed[..., 0] == numbers[:, None, None])), "pixels pass unchanged"
    np.testing.assert_allclose(_partner_weights(rows), pasted.mean((1, 2)), atol=1e-6)
    np.testing.assert_allclose(rows.sum(1), 1, atol=1e-6)
    assert pasted.mean() == pytest.approx(0.36, abs=0.06), "half of Beta(1, 1), less what the border cuts"


def test_a_batch_has_one_weight_and_switches_between_mixup_and_cutmix():
    mixed, rows = _many(AugmentConfig(mixup=0.8, cutmix=1.0, mixup_mode="batch"), 400)
    partner = np.stack([_partner_weights(r) for r in rows])
    np.testing.assert_allclose(partner, np.repeat(partner[:, :1], 4, 1), atol=1e-6)
    # Every pixel of image 0 shows 0, its partner's 3, or, by mixup, something in between.
    first = mixed[:, 0, :, :, 0]
    blended = np.all(first == first[:, :1, :1], axis=(1, 2))
    np.testing.assert_allclose(first.mean((1, 2)), 3 * partner[:, 0], atol=1e-5)
    assert abs(np.mean(blended) - 0.5) < 0.12, "cutmix of no or all pixels looks blended, too"
    assert np.all(np.isin(first[~blended], [0, 3]))


def test_rates_of_mixing_and_of_cutmix():
    mixed, _ = _many(AugmentConfig(mixup=5.0, mixup_mode="batch", mixup_prob=0.3), 400)
    assert abs(np.mean(mixed[:, 0, 0, 0, 0] > 0) - 0.3) < 0.07
    mixed, _ = _many(AugmentConfig(mixup=5.0, cutmix=5.0, mixup_mode="batch", mixup_switch_prob=0.2), 400)
    pasted = np.any(mixed[:, 0] == 3.0, axis=(1, 2, 3))
    assert abs(pasted.mean() - 0.2) < 0.06


@pytest.mark.parametrize("mixing", ["batch", "sample"])
def test_mixing_is_a_function_of_the_seed(mixing):
    config = AugmentConfig(mixup=0.8, cutmix=1.0, mixup_mode=mixing)
    first, second, other = (
        mix_weighted(*_numbered(6), config, tf.constant(seed))[1].numpy() for seed in ([1, 2], [1, 2], [1, 3])
    )
    np.testing.assert_array_equal(first, second)
    assert np.any(first != other)


def test_boxes_of_cutmix():
    centers = tf.constant([[0.5, 0.5], [0.0, 0.999], [0.5, 0.5]])
    boxes, weights = cutmix_boxes(tf.constant([0.75, 0.75, 1.0]), centers, (9, 20))
    # sqrt(0.25) of 9 x 20 is 4 x 10, from center - half to center + half
    np.testing.assert_array_equal(boxes, [[2, 5, 4, 10], [0, 14, 2, 6], [4, 10, 0, 0]])
    np.testing.assert_allclose(weights, [1 - 40 / 180, 1 - 12 / 180, 1.0], atol=1e-6)


def test_the_mask_of_boxes():
    mask = boxes_mask(tf.constant([[1, 2, 3, 4], [0, 0, 0, 0]]), (5, 7)).numpy()
    expected = np.zeros((2, 5, 7), bool)
    expected[0, 1:4, 2:6] = True
    np.testing.assert_array_equal(mask, expected)


def test_erased_boxes_have_the_areas_and_ratios_of_timm():
    top, left, height, width = erasing_boxes(4000, (64, 96), 0.25, SEED).numpy().T
    erased = height > 0
    assert abs(erased.mean() - 0.25) < 0.025
    assert np.all(top >= 0)
    assert np.all(top + height <= 64)
    assert np.all(left + width <= 96)
    area = (height * width)[erased] / (64 * 96)
    assert area.min() > 0.017
    assert area.max() < 0.345
    assert area.mean() == pytest.approx((0.02 + 1 / 3) / 2, abs=0.015)
    log_ratio = np.log(height[erased] / width[erased])
    assert np.abs(log_ratio).max() < np.log(1 / 0.3) + 0.15
    room = 64 - height[erased]
    assert (top[erased] / room).mean() == pytest.approx(0.5, abs=0.03)
    assert np.any(top[erased] == room), "the last place counts"


def test_erasing_fills_boxes_with_normal_noise_and_nothing_else():
    images = tf.fill((64, 24, 24, 3), 7.0)
    erased = random_erasing(images, 0.5, SEED).numpy()
    changed = erased != 7.0
    mask = boxes_mask(erasing_boxes(64, (24, 24), 0.5, SEED), (24, 24)).numpy()
    np.testing.assert_array_equal(changed, np.repeat(mask[..., None], 3, -1))
    noise = erased[changed]
    assert noise.mean() == pytest.approx(0, abs=0.03)
    assert noise.std() == pytest.approx(1, abs=0.03)
    assert len(np.unique(noise)) > 0.99 * len(noise), "every pixel and channel has its own"


def test_no_box_where_none_is_smaller_than_the_image():
    boxes = erasing_boxes(50, (1, 1), 1.0, SEED).numpy()
    np.testing.assert_array_equal(boxes[:, 2:], 0)
    images = tf.ones((50, 1, 1, 3))
    np.testing.assert_array_equal(random_erasing(images, 1.0, SEED), images)
