"""The two calls of the pipeline, and the padded crops of batches."""

import ast
import pathlib

import numpy as np
import pytest
import tensorflow as tf

import keras_vit.data
from keras_vit.config import AugmentConfig
from keras_vit.data import Split, training_dataset
from keras_vit.data.augment import augment
from keras_vit.data.augment import policies as kerascv
from keras_vit.data.augment.augment import affine, augment_batch, augment_image, batch_policy, changes_images
from keras_vit.data.augment.mixup import smooth_targets
from keras_vit.data.augment.policies import make_policy
from keras_vit.data.augment.random_crop import crop_and_flip
from keras_vit.data.pipeline import transforms
from keras_vit.preprocessing import InputSpec

RNG = np.random.default_rng(0)
SEED = tf.constant([1, 2])
IMAGE = tf.constant(RNG.integers(0, 256, (12, 12, 3), "uint8"))
BATCH = RNG.integers(0, 256, (200, 6, 7, 2), "uint8")
SPEC = InputSpec(size=12, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), interpolation="bilinear")


def _windows(padded, flip):
    """Every 6 x 7 window of a padded image, by its place and whether it is mirrored."""
    found = {}
    for top in range(padded.shape[0] - 5):
        for left in range(padded.shape[1] - 6):
            window = padded[top : top + 6, left : left + 7]
            found[window.tobytes()] = (top, left, False)
            if flip:
                found[window[:, ::-1].tobytes()] = (top, left, True)
    return found


@pytest.mark.parametrize("mode", ["constant", "reflect"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_crops_are_windows_of_the_padded_image(mode, dtype):
    color = np.array([7, 9], dtype)
    images = BATCH.astype(dtype)
    cropped = crop_and_flip(tf.constant(images), 2, mode, color, True, SEED).numpy()
    assert cropped.dtype == images.dtype
    seen = set()
    for image, window in zip(images, cropped, strict=True):
        if mode == "reflect":
            padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), "reflect")
        else:
            padded = np.stack([np.pad(image[..., c], 2, constant_values=color[c]) for c in (0, 1)], -1)
        seen.add(_windows(padded, True)[window.tobytes()])
    assert {top for top, _, _ in seen} == {left for _, left, _ in seen} == set(range(5))
    assert len(seen) > 45, "of 50 places and mirrorings"


def test_half_of_the_images_are_mirrored():
    mirrored = crop_and_flip(tf.constant(BATCH), 0, "constant", (0, 0), True, SEED).numpy()
    same = np.all(mirrored == BATCH, axis=(1, 2, 3))
    assert np.all(same | np.all(mirrored == BATCH[:, :, ::-1], axis=(1, 2, 3)))
    assert 75 < same.sum() < 125


def test_without_a_policy_a_single_image_passes():
    config = AugmentConfig(padding=4, flip=True, mixup=0.2)
    assert not changes_images(config)
    assert augment_image(IMAGE, config, SEED, SPEC) is IMAGE


@pytest.mark.parametrize("policy", ["rand-m9-mstd0.5-inc1", "randaugment(2, 10)", "three_augment"])
def test_a_policy_is_a_function_of_the_seed(policy):
    config = AugmentConfig(policy=policy, flip=True, padding=2)
    dataset = tf.data.Dataset.range(6).map(
        lambda number: augment_image(IMAGE, config, tf.cast(tf.stack([number, number]), tf.int32), SPEC)
    )
    assert dataset.element_spec == tf.TensorSpec((12, 12, 3), tf.uint8)
    first, second = (list(dataset.as_numpy_iterator()) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    # big_vision's translations and cutouts leave little of so small an image
    assert len({image.tobytes() for image in first}) > 2


def _recorded(monkeypatch, config, jitters=False):
    """What `augment_image` hands to a policy, and what it makes of the policy's result."""
    handed = {}

    class Policy:
        def __call__(self, image, seed, fill, interpolation):
            handed.update(image=image, fill=fill, interpolation=interpolation)
            return image

    Policy.jitters = jitters
    monkeypatch.setattr(augment, "make_policy", lambda text: Policy())
    handed["result"] = augment_image(IMAGE, config, SEED, SPEC)
    return handed


def test_a_policy_fills_with_the_mean_and_interpolates_as_the_crop(monkeypatch):
    handed = _recorded(monkeypatch, AugmentConfig(policy="three_augment"))
    assert handed["fill"] == (124, 116, 104)
    assert handed["interpolation"] == "bilinear"
    handed = _recorded(monkeypatch, AugmentConfig(policy="three_augment", crop_interpolation="random"))
    assert handed["interpolation"] == "random"


def test_crop_and_mirror_come_before_the_policy(monkeypatch):
    config = AugmentConfig(policy="three_augment", flip=True, padding=3, fill=9)
    expected = crop_and_flip(IMAGE[None], 3, "constant", (9, 9, 9), True, SEED)[0]
    np.testing.assert_array_equal(_recorded(monkeypatch, config)["image"], expected)


def test_single_images_are_mirrored_half_of_the_time(monkeypatch):
    """As before a policy, without one that hides it."""
    monkeypatch.setattr(augment, "changes_images", lambda config: True)
    dataset = tf.data.Dataset.range(200).map(
        lambda number: augment_image(IMAGE, AugmentConfig(flip=True), tf.cast(tf.stack([1, number]), tf.int32), SPEC)
    )
    flipped = np.stack(list(dataset.as_numpy_iterator()))
    same = np.all(flipped == IMAGE, axis=(1, 2, 3))
    assert np.all(same | np.all(flipped == IMAGE[:, ::-1], axis=(1, 2, 3)))
    assert 75 < same.sum() < 125


def test_jitter_rests_beside_randaugment(monkeypatch):
    config = AugmentConfig(policy="three_augment", color_jitter=0.4)
    np.testing.assert_array_equal(_recorded(monkeypatch, config, jitters=False)["result"], IMAGE)
    assert np.any(_recorded(monkeypatch, config, jitters=True)["result"] != IMAGE)
    assert np.any(augment_image(IMAGE, AugmentConfig(color_jitter=0.4), SEED, SPEC) != IMAGE)


def _batch(config, images=None):
    pixels = BATCH[:8] if images is None else images
    spec = InputSpec(size=pixels.shape[1:3], mean=(0.4, 0.5), std=(0.2, 0.3))
    x, y = spec.normalize(pixels), tf.one_hot(tf.range(8), 8)
    return x, *augment_batch(tf.constant(x), y, config, SEED, spec)


def test_a_batch_without_augmentation_passes():
    before, images, targets = _batch(AugmentConfig())
    np.testing.assert_array_equal(images, before)
    np.testing.assert_array_equal(targets, np.eye(8))


@pytest.mark.parametrize(
    "config", [AugmentConfig(padding=2, fill=255), AugmentConfig(shift=3.0, fill=255)], ids=["crop", "affine"]
)
def test_what_moves_into_a_normalized_batch_has_the_fill_color(config):
    black = np.zeros((8, 6, 7, 2), "uint8")
    _, images, _ = _batch(config, black)
    pixels = images.numpy() * (0.2, 0.3) * 255 + np.array([0.4, 0.5]) * 255
    assert pixels.max() == pytest.approx(255, abs=1e-3)
    assert pixels.min() == pytest.approx(0, abs=1e-3)
    np.testing.assert_allclose(pixels[..., 0], pixels[..., 1], atol=1e-3)


def test_an_affine_change_of_a_normalized_batch_is_that_of_its_pixels():
    config = AugmentConfig(shift=1.0, rotation=20.0, zoom=0.1, shear=0.1, flip=True, fill=30)
    _, images, _ = _batch(config)
    pixels = images.numpy() * (0.2, 0.3) * 255 + np.array([0.4, 0.5]) * 255
    np.testing.assert_allclose(pixels, affine(BATCH[:8], config, SEED), atol=1e-3)


def test_the_batch_does_not_mirror_again_what_the_image_stage_has():
    before, images, _ = _batch(AugmentConfig(policy="three_augment", flip=True, padding=2))
    np.testing.assert_array_equal(images, before)


def test_smoothing_after_mixing_is_smoothing_before():
    """So the pipeline may smooth whenever it likes, once."""
    config = AugmentConfig(mixup=0.8, cutmix=1.0, mixup_mode="batch")
    images, targets = tf.zeros((8, 6, 7, 2)), tf.eye(8)
    spec = InputSpec(size=(6, 7), mean=(0.5, 0.5), std=(0.5, 0.5))
    _, after = augment_batch(images, targets, config, SEED, spec)
    _, before = augment_batch(images, smooth_targets(targets, 0.2), config, SEED, spec)
    assert np.any(after != targets)
    np.testing.assert_allclose(before, smooth_targets(after, 0.2), atol=1e-6)


def test_erasing_comes_before_mixing():
    """An erased pixel of a partner shows in the blend."""
    zeros = tf.zeros((8, 6, 7, 2))
    spec = InputSpec(size=(6, 7), mean=(0.5, 0.5), std=(0.5, 0.5))
    erased, _ = augment_batch(zeros, tf.eye(8), AugmentConfig(random_erasing_prob=1.0), SEED, spec)
    both, targets = augment_batch(zeros, tf.eye(8), AugmentConfig(random_erasing_prob=1.0, mixup=0.8), SEED, spec)
    weight = targets[0, 0]
    np.testing.assert_allclose(both, weight * erased + (1 - weight) * tf.roll(erased, 1, 0), atol=1e-6)


def test_keras_cv_changes_images_and_mixes_batches():
    config = AugmentConfig(policy='keras_cv("RandomFlip")')
    dataset = tf.data.Dataset.range(20).map(lambda number: augment_image(IMAGE, config, SEED, SPEC))
    flipped = [np.array_equal(image, IMAGE[:, ::-1]) for image in dataset.as_numpy_iterator()]
    assert 2 < sum(flipped) < 18
    spec = InputSpec(size=(6, 7), mean=(0.5, 0.5), std=(0.5, 0.5))
    mixing = AugmentConfig(mixup=0.8, cutmix=1.0, mixup_mode="keras_cv")
    batches = tf.data.Dataset.from_tensors((spec.normalize(BATCH[:8]), np.eye(8, dtype="float32"))).repeat(3)
    for images, targets in batches.map(lambda x, y: augment_batch(x, y, mixing, SEED, spec)):
        assert images.shape == (8, 6, 7, 2)
        np.testing.assert_allclose(tf.reduce_sum(targets, 1), 1, atol=1e-5)
        assert np.any(targets != np.eye(8))


def test_an_unknown_layer_of_keras_cv_is_refused():
    with pytest.raises(ValueError, match=r"a class of keras_cv.layers. Received: 'RandomNonsense'"):
        kerascv.KerasCVPolicy("RandomNonsense")(IMAGE, SEED, (0, 0, 0), "bilinear")


def test_keras_cv_is_imported_only_when_used():
    importing = []
    for path in pathlib.Path(keras_vit.data.__file__).parent.glob("*.py"):
        for node in ast.parse(path.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            importing += [path.name for name in names if name.split(".")[0] == "keras_cv"]
    assert importing == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mixup_mode": "both"}, "mixup_mode must be one of"),
        ({"cutmix": 1.0}, r"mixup_mode=.big_vision., cutmix=1\.0"),
        ({"random_erasing_prob": 1.5}, r"random_erasing_prob must be in \[0, 1\]"),
        ({"padding": -1}, "padding must be an int of at least 0"),
        ({"padding_mode": "edge"}, "padding_mode must be one of"),
        ({"crop_scale": (0.5, 0.2)}, "crop_scale"),
        ({"crop_scale": (0.08, 2.0)}, "crop_scale"),
        ({"crop_ratio": (0.0, 1.0)}, "crop_ratio"),
        ({"crop_interpolation": "cubic"}, "crop_interpolation must be one of"),
        ({"color_jitter": -0.1}, r"color_jitter=-0\.1"),
    ],
)
def test_the_config_refuses_what_makes_no_sense(fields, message):
    with pytest.raises(ValueError, match=message):
        AugmentConfig(**fields)


@pytest.mark.parametrize(
    ("options", "repeats"),
    [
        pytest.param({"padding": 2, "flip": True}, 1, marks=pytest.mark.long),
        ({"crop_scale": (0.5, 1.0), "flip": True}, 3),
    ],
)
def test_small_images_are_changed_together_as_they_would_be_alone(options, repeats, monkeypatch):
    config = AugmentConfig(policy="rand-m9-mstd0.5-inc1", crop_interpolation="random", **options)
    split = Split(RNG.integers(0, 256, (48, 12, 12, 3), "uint8"), np.arange(48) % 5)

    def batches():
        return list(training_dataset(split, 5, SPEC, 12, 2, 0, config, repeats=repeats)[0])

    assert batch_policy(config, SPEC)
    together = batches()
    monkeypatch.setattr(transforms, "batch_policy", lambda *_: None)
    for ours, alone in zip(together, batches(), strict=True):
        for a, b in zip(ours, alone, strict=True):
            np.testing.assert_array_equal(a, b)


def test_large_images_and_other_policies_are_changed_one_by_one():
    timm = AugmentConfig(policy="rand-m9")
    assert batch_policy(timm, InputSpec(96)) is make_policy("rand-m9")
    assert batch_policy(timm, InputSpec(97)) is None
    for policy in (None, "randaugment(2, 10)", "three_augment", "keras_cv"):
        assert batch_policy(AugmentConfig(policy=policy), SPEC) is None
    assert batch_policy(AugmentConfig(policy="rand-m9", color_jitter=0.4), SPEC), "jitter rests beside it"
