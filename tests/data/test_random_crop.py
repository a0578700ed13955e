"""Random crops fused with decoding: their windows and their pixels."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_vit.config import AugmentConfig
from keras_vit.data.augment.random_crop import crop_window, decode_and_random_crop, random_crop
from keras_vit.preprocessing import InputSpec

SPEC = InputSpec(size=(24, 32), interpolation="bilinear")
CROP = AugmentConfig(crop_scale=(0.08, 1.0))


def _encoded(kind, size=(60, 90), mode="RGB"):
    """A smooth picture, so that what remains of differences is not the codec's."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    planes = [rows * 2 % 256, columns * 2 % 256, (rows + columns) % 256]
    image = Image.fromarray(np.stack(planes, -1).astype("uint8")).convert(mode)
    file = io.BytesIO()
    image.save(file, kind, quality=95)
    return file.getvalue()


def _windows(size, config, count=2000):
    numbers = tf.data.Dataset.range(count).map(lambda n: tf.stack([tf.cast(n, tf.int32), 0]))
    return np.stack([*numbers.map(lambda seed: crop_window(tf.constant(size), seed, config)).as_numpy_iterator()])


@pytest.mark.parametrize("sampling", ["timm", "inception"])
@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.2, 0.5)])
def test_windows_lie_in_the_image_and_have_the_areas_and_ratios_that_are_asked_for(sampling, scale):
    config = AugmentConfig(crop_scale=scale, crop_sampling=sampling)
    top, left, height, width = _windows((300, 400), config).T
    assert min(top.min(), left.min()) >= 0
    assert (top + height).max() <= 300
    assert (left + width).max() <= 400
    areas, ratios = height * width / (300 * 400), width / height
    assert areas.min() == pytest.approx(scale[0], rel=0.03)
    assert areas.max() == pytest.approx(scale[1], rel=0.06)
    assert scale[0] * 0.98 < areas.min()
    assert areas.max() < scale[1] * 1.02
    assert 0.73 < ratios.min() < 0.77
    assert 1.31 < ratios.max() < 1.36


def test_timm_draws_the_area_uniformly_and_the_ratio_by_its_logarithm():
    """Where every window fits, nothing is drawn again, so that the draws show."""
    _, _, height, width = _windows((1000, 1000), AugmentConfig(crop_scale=(0.1, 0.5)), 4000).T
    areas, logs = height * width / 1e6, np.log(width / height)
    for values, low, high in ((areas, 0.1, 0.5), (logs, np.log(3 / 4), np.log(4 / 3))):
        quartiles = np.quantile((values - low) / (high - low), [0.25, 0.5, 0.75])
        np.testing.assert_allclose(quartiles, [0.25, 0.5, 0.75], atol=0.03)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((10, 1000), (0, 493, 10, 13)), ((1000, 10), (493, 0, 13, 10))],
)
def test_windows_that_never_fit_become_the_center(size, expected):
    """The window that timm 1.0.31 gives."""
    windows = _windows(size, AugmentConfig(crop_scale=(0.9, 1.0)), 5)
    np.testing.assert_array_equal(windows, [expected] * 5)


def test_the_whole_image_is_the_center_where_its_own_ratio_is_allowed():
    # One ratio that is not the image's, of its whole area: no window fits.
    config = AugmentConfig(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.3))
    windows = _windows((100, 115), config, 200)
    assert [0, 0, 100, 115] in windows.tolist()


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_fused_crop_equals_that_of_the_decoded_image(kind, mode):
    data = _encoded(kind, mode=mode)
    spec = SPEC if mode == "RGB" else InputSpec.symmetric((24, 32), 1, interpolation="bilinear")
    pixels = np.asarray(Image.open(io.BytesIO(data))).reshape(60, 90, -1)
    for seed in ([0, 1], [2, 3], [4, 5]):
        fused = decode_and_random_crop(tf.constant(data), tf.constant(seed), CROP, spec)
        plain = random_crop(tf.constant(pixels), tf.constant(seed), CROP, spec)
        assert fused.dtype == tf.uint8
        assert fused.shape == (*spec.size, spec.num_channels)
        # The chroma of a window begins at another place of the JPEG's grid.
        assert np.abs(fused.numpy().astype(int) - plain.numpy()).max() <= (3 if kind == "JPEG" else 0)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_the_resize_is_that_of_pillow(interpolation):
    data = _encoded("PNG")
    config = AugmentConfig(crop_scale=(0.5, 1.0), crop_interpolation=interpolation)
    seed = tf.constant([7, 8])
    top, left, height, width = crop_window(tf.constant([60, 90]), seed, config).numpy()
    crop = Image.open(io.BytesIO(data)).crop((left, top, left + width, top + height))
    expected = np.asarray(InputSpec(size=SPEC.size, interpolation=interpolation, crop_fraction=None).resize(crop))
    found = decode_and_random_crop(tf.constant(data), seed, config, SPEC).numpy()
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_the_same_seed_gives_the_same_crop_and_another_one_another():
    data = tf.constant(_encoded("JPEG"))
    first, again, other = (decode_and_random_crop(data, tf.constant(s), CROP, SPEC) for s in ([1, 2], [1, 2], [1, 3]))
    np.testing.assert_array_equal(first, again)
    assert np.any(first.numpy() != other.numpy())


def test_a_random_interpolation_is_one_of_two():
    data = tf.constant(_encoded("PNG"))
    random, bilinear, bicubic = (
        AugmentConfig(crop_scale=(0.08, 1.0), crop_interpolation=name) for name in ("random", "bilinear", "bicubic")
    )
    kinds = []
    for number in range(12):
        found, first, second = (
            decode_and_random_crop(data, tf.constant([number, 0]), config, SPEC).numpy()
            for config in (random, bilinear, bicubic)
        )
        kinds.append(np.array_equal(found, first))
        assert kinds[-1] or np.array_equal(found, second)
    assert 1 < sum(kinds) < 11


def test_without_a_crop_the_image_is_prepared_as_for_evaluation():
    data = _encoded("JPEG")
    found = decode_and_random_crop(tf.constant(data), tf.constant([1, 2]), AugmentConfig(), SPEC)
    assert np.abs(found.numpy().astype(int) - SPEC.resize(io.BytesIO(data))).max() <= 1


def test_antialiasing_can_be_left_out():
    data = tf.constant(_encoded("PNG", (200, 300)))
    sharp, smooth = (
        decode_and_random_crop(data, tf.constant([1, 2]), AugmentConfig(crop_scale=(1.0, 1.0), crop_antialias=a), SPEC)
        for a in (False, True)
    )
    expected = tf.image.resize(tf.io.decode_png(data), SPEC.size)
    whole = AugmentConfig(crop_scale=(1.0, 1.0), crop_ratio=(1.5, 1.5), crop_antialias=False)
    found = decode_and_random_crop(data, tf.constant([1, 2]), whole, SPEC)
    np.testing.assert_array_equal(found, tf.cast(tf.round(expected), tf.uint8))
    assert np.any(sharp.numpy() != smooth.numpy())
