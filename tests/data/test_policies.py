"""Policies of single images: their strings, their draws and big_vision's operations."""

import collections

import numpy as np
import pytest
import tensorflow as tf

from keras_vit.data.augment import pillow_color as operations
from keras_vit.data.augment import randaugment
from keras_vit.data.augment import tpu_autoaugment as tpu_operations
from keras_vit.data.augment.policies import KerasCVPolicy, ThreeAugment, color_jitter, make_policy
from keras_vit.data.augment.randaugment import Draw, TimmRandAugment, TPURandAugment, apply_layers, draw_layers

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (20, 24, 3), "uint8")
FILL = (124, 116, 104)
DRAW = Draw(tf.constant(0.9, tf.float64), tf.constant(1.0, tf.float64), tf.constant([0.4, 0.6]))


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("rand-m9-mstd0.5-inc1", TimmRandAugment(magnitude=9.0, deviation=0.5, increasing=True)),
        ("rand-m15-n3-mmax20-p0.8-inc0", TimmRandAugment(magnitude=15.0, layers=3, maximum=20.0, rate=0.8)),
        ("rand", TimmRandAugment()),
        ("randaugment(2, 10)", TPURandAugment(2, 10)),
        ("randaugment(layers=1)", TPURandAugment(1)),
        ("three_augment", ThreeAugment()),
        ("three_augment()", ThreeAugment()),
        ("keras_cv", KerasCVPolicy()),
        ("keras_cv('RandomFlip', mode='vertical')", KerasCVPolicy("RandomFlip", (("mode", "vertical"),))),
    ],
)
def test_policies_are_read(text, policy):
    assert make_policy(text) == policy
    assert make_policy(text) is make_policy(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rand-m9-tweights", r"Received: 'tweights' in 'rand-m9-tweights'"),
        ("rand-9", r"Received: '9' in 'rand-9'"),
        ("randaugment(2, 10, 3)", r"Received: 'randaugment\(2, 10, 3\)'"),
        ("randaugment(magnitude)", r"Received: 'randaugment\(magnitude\)'"),
        ("autoaugment", r"one of \['keras_cv', 'randaugment', 'three_augment'\].*Received: 'autoaugment'"),
        ("2 10", r"Received: '2 10'"),
    ],
)
def test_other_strings_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        make_policy(text)


def _draws(policy, choices, count=3000):
    """Operations `(count, layers)`, levels and signs of many seeds."""

    @tf.function
    def many():
        def one(number):
            indices, draws = draw_layers(tf.stack([7, number]), choices, policy)
            return indices, tf.stack([d.level for d in draws]), tf.stack([d.sign for d in draws])

        return tf.map_fn(one, tf.range(count), fn_output_signature=(tf.int32, tf.float64, tf.float64))

    return [part.numpy() for part in many()]


def test_timm_draws_each_operation_alike_and_half_the_layers_pass():
    indices, levels, signs = _draws(TimmRandAugment(magnitude=9.0, deviation=0.5, increasing=True), 15)
    assert indices.shape == (3000, 2)
    assert abs(np.mean(indices == 15) - 0.5) < 0.03
    counts = np.bincount(indices[indices < 15], minlength=15)
    assert counts.min() > 150
    assert counts.max() < 260
    assert abs(np.corrcoef(indices[:, 0], indices[:, 1])[0, 1]) < 0.06
    assert levels.max() == 1.0, "noise above magnitude 10 is clipped"
    assert abs(np.median(levels) - 0.9) < 0.005
    assert abs(np.mean(levels < 0.85) - 0.159) < 0.02, "one standard deviation below"
    assert abs(signs.mean()) < 0.05
    assert abs(np.mean(signs[:, 0] * signs[:, 1])) < 0.06
    assert abs(np.corrcoef(levels[:, 0], levels[:, 1])[0, 1]) < 0.06


def test_big_vision_carries_out_every_layer_at_one_magnitude():
    indices, levels, _ = _draws(TPURandAugment(2, 15.0), 16, count=1000)
    assert (indices.min(), indices.max()) == (0, 15)
    np.testing.assert_array_equal(levels, 1.5)


def test_an_infinite_deviation_is_a_uniform_magnitude():
    _, levels, _ = _draws(TimmRandAugment(magnitude=8.0, deviation=101.0), 15, count=1000)
    assert levels.max() <= 0.8
    assert abs(levels.mean() - 0.4) < 0.03


def test_only_the_drawn_branch_runs():
    ran = []

    def branch(name):
        def apply(image, draw):
            def note(level):
                ran.append(name)
                return level

            noted = tf.py_function(note, [draw.level], tf.float64)
            return image + tf.cast(0 * noted, tf.uint8)

        return apply

    policy = TimmRandAugment(layers=3, rate=0.6)
    branches = [branch(name) for name in range(15)]

    def drawn(number):
        seed = tf.cast(tf.stack([3, number]), tf.int32)
        indices, draws = draw_layers(seed, 15, policy)
        return apply_layers(tf.constant(IMAGE), indices, draws, branches), indices

    expected = [i for _, indices in tf.data.Dataset.range(8).map(drawn) for i in indices.numpy() if i < 15]
    assert ran == expected
    assert len(set(ran)) > 3


@pytest.mark.parametrize("interpolation", ["bilinear", "random"])
def test_every_operation_of_timm_changes_the_image(interpolation):
    table = randaugment.timm_operations(True, FILL, interpolation)
    assert len(table) == 15
    for name, operation in table.items():
        changed = operation(tf.constant(IMAGE // 2 + 20), DRAW)
        assert changed.dtype == tf.uint8
        assert changed.shape == IMAGE.shape
        assert np.any(changed != IMAGE // 2 + 20), name


def test_every_operation_takes_an_image_of_one_channel():
    gray = IMAGE[..., :1]
    for table in (randaugment.timm_operations(False, FILL[:1], "bilinear"), randaugment.tpu_library_operations()):
        for name, operation in table.items():
            assert operation(tf.constant(gray), DRAW).shape == gray.shape, name


def test_a_coin_decides_between_bilinear_and_bicubic():
    rotate = {name: randaugment.timm_operations(True, FILL, name)["Rotate"] for name in randaugment.INTERPOLATIONS}
    for number, name in ((0.4, "bilinear"), (0.6, "bicubic")):
        draw = DRAW._replace(uniform=tf.constant([number, 0.0]))
        np.testing.assert_array_equal(rotate["random"](IMAGE, draw), rotate[name](IMAGE, draw))
    assert np.any(rotate["bilinear"](IMAGE, DRAW) != rotate["bicubic"](IMAGE, DRAW))


def test_an_interpolation_that_pillow_cannot_transform_with_is_refused():
    with pytest.raises(ValueError, match=r"the interpolation of timm's RandAugment must be one of .*'lanczos'"):
        TimmRandAugment()(tf.constant(IMAGE), tf.constant([1, 2]), FILL, "lanczos")


def test_three_augment_does_one_of_three_alike():
    image = tf.constant(IMAGE)
    gray, solarized = operations.grayscale(image).numpy(), operations.solarize(image).numpy()

    def one(number):
        return ThreeAugment()(image, tf.cast(tf.stack([5, number]), tf.int32), FILL, "bicubic")

    seen = collections.Counter()
    for changed in tf.data.Dataset.range(300).map(one).as_numpy_iterator():
        if np.array_equal(changed, gray):
            seen["gray"] += 1
        elif np.array_equal(changed, solarized):
            seen["solarized"] += 1
        else:
            assert changed.astype(float).std() < IMAGE.std(), "a blur evens out"
            seen["blurred"] += 1
    assert min(seen.values()) > 70
    assert sum(seen.values()) == 300


def test_color_jitter_stays_within_its_strength_and_draws_the_order():
    image = tf.fill((4, 4, 3), tf.constant(100, tf.uint8))

    def one(number):
        return color_jitter(image, 0.3, tf.cast(tf.stack([5, number]), tf.int32))

    # An image of one gray has no contrast and no saturation: what is left is brightness.
    values = np.stack(list(tf.data.Dataset.range(300).map(one).as_numpy_iterator()))[:, 0, 0, 0]
    assert values.min() in (70, 71)
    assert values.max() in (129, 130)
    assert abs(values.mean() - 99.5) < 2.5

    def of_noise(strength):
        return color_jitter(tf.constant(IMAGE), strength, tf.constant([1, 2]))

    np.testing.assert_array_equal(of_noise(0.0), IMAGE)
    assert np.any(of_noise(0.4) != IMAGE)


def test_big_vision_solarize_wraps_and_posterize_stops():
    np.testing.assert_array_equal(tpu_operations.solarize(IMAGE, 256), 255 - IMAGE)
    np.testing.assert_array_equal(tpu_operations.solarize(IMAGE, 384), np.where(IMAGE < 128, IMAGE, 255 - IMAGE))
    np.testing.assert_array_equal(tpu_operations.posterize(IMAGE, 4), IMAGE & 0xF0)
    np.testing.assert_array_equal(tpu_operations.posterize(IMAGE, 0), IMAGE & 0x80)
    np.testing.assert_array_equal(tpu_operations.posterize(IMAGE, 10), IMAGE)


def test_big_vision_enhancements():
    def blended(degenerate, factor):
        mixed = degenerate + np.float32(factor) * (IMAGE.astype("float32") - degenerate)
        return np.clip(mixed, 0, 255).astype("uint8")

    gray = tf.image.rgb_to_grayscale(IMAGE).numpy().astype("float32")
    kernel = tf.tile(tf.constant([[1, 1, 1], [1, 5, 1], [1, 1, 1]], tf.float32)[..., None, None] / 13, (1, 1, 3, 1))
    smooth = IMAGE.astype("float32")
    conv = tf.nn.depthwise_conv2d(smooth[None], kernel, [1, 1, 1, 1], "VALID")[0].numpy()
    smooth[1:-1, 1:-1] = np.floor(conv)
    for factor in (0.1, 0.9, 1.9):
        np.testing.assert_array_equal(tpu_operations.color(IMAGE, factor), blended(gray, factor))
        # 20 x 24 pixels over 256 is 1.875: the library's mean, truncated
        np.testing.assert_array_equal(tpu_operations.contrast(IMAGE, factor), blended(1, factor))
        np.testing.assert_array_equal(tpu_operations.brightness(IMAGE, factor), blended(0, factor))
        sharp = tpu_operations.sharpness(IMAGE, factor).numpy().astype(int)
        off = np.abs(sharp - blended(smooth, factor))
        assert off.max() <= 1
        assert np.mean(off > 0) < 0.06, "only where the convolution's sum is a multiple of 13"


def test_big_vision_autocontrast_uses_the_whole_range_of_every_channel():
    narrow = np.stack([IMAGE[..., 0] // 2 + 30, IMAGE[..., 1] // 4, np.full_like(IMAGE[..., 2], 9)], -1)
    stretched = tpu_operations.autocontrast(narrow).numpy()
    for channel in (0, 1):
        low, high = narrow[..., channel].min(), narrow[..., channel].max()
        exact = (narrow[..., channel] - low) * 255.0 / (high - low)
        assert np.abs(stretched[..., channel] - exact).max() <= 1
    np.testing.assert_array_equal(stretched[..., 2], narrow[..., 2])


def test_big_vision_moves_to_the_nearest_pixel_and_fills_with_gray():
    moved = tpu_operations.transform(IMAGE, (1.0, 0.0, 3.4, 0.0, 1.0, 0.0)).numpy()
    np.testing.assert_array_equal(moved[:, :-3], IMAGE[:, 3:])
    np.testing.assert_array_equal(moved[:, -3:], 128)
    square = IMAGE[:20, :20]
    turned = tpu_operations.rotate(square, tf.constant(90.0)).numpy()
    np.testing.assert_array_equal(turned, np.rot90(square))


def test_cutout_grays_a_square_cut_at_the_border():
    cut = tpu_operations.cutout(IMAGE, 4, (0.5, 0.0)).numpy()
    expected = IMAGE.copy()
    expected[6:14, :4] = 128
    np.testing.assert_array_equal(cut, expected)


@pytest.mark.parametrize(
    ("interpolation", "channels"),
    [pytest.param("bilinear", 3, marks=pytest.mark.long), ("bicubic", 1), ("random", 3)],
)
def test_a_batch_is_changed_as_its_images_alone_bit_by_bit(interpolation, channels):
    policy = TimmRandAugment(magnitude=9.0, layers=3, rate=0.9, deviation=0.5, increasing=True)
    noise = RNG.integers(0, 256, (40, 20, 24, channels), "uint8")
    images = np.concatenate([noise, np.cumsum(noise % 3, axis=2).astype("uint8"), np.full_like(noise[:10], 7)])

    @tf.function
    def alone(image, number):
        seed = tf.stack([number, 7])
        return policy(image, seed, FILL[:channels], interpolation), policy.draw(seed)

    singles = [alone(tf.constant(image), tf.constant(number)) for number, image in enumerate(images)]
    drawn = tf.nest.map_structure(lambda *parts: tf.stack(parts), *(draws for _, draws in singles))
    assert set(np.unique(drawn[0])) == set(range(16)), "every operation and none"
    together = policy.apply(tf.constant(images), drawn, FILL[:channels], interpolation)
    np.testing.assert_array_equal(together, [image for image, _ in singles])
    first = tf.nest.map_structure(lambda part: part[:1], drawn)
    np.testing.assert_array_equal(
        policy.apply(tf.constant(images[:1]), first, FILL[:channels], interpolation)[0], together[0]
    )
