"""Image operations against Pillow itself: every pixel equal."""

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from keras_vit.data.augment import pillow_color as operations
from keras_vit.data.augment import pillow_geometry as geometry

FILL = (124, 116, 104)
RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def _images():
    """Noise, a smooth picture of few levels, one color, one channel, and a large picture; its changes are compiled."""
    rng = np.random.default_rng(0)
    rows, columns, channels = np.ogrid[:60, :140, 1:4]
    steps = (10 * rows + 5 * columns) * channels % 154 + 79
    y, x = np.mgrid[:40, :33]
    smooth = np.stack([60 + 2 * x + y, 90 + x * y // 20, 200 - 3 * y], -1)
    return {
        "noise": rng.integers(0, 256, (37, 45, 3), "uint8"),
        "smooth": smooth.astype("uint8"),
        "flat": np.full((9, 8, 3), (7, 80, 200), "uint8"),
        "gray": rng.integers(20, 150, (31, 24, 1), "uint8"),
        # In these two the last bit of a sum, or of a division, often decides.
        "large": np.concatenate([steps, rng.integers(79, 233, (61, 140, 3))]).astype("uint8"),
        "large gray": np.repeat([1, 2], 112 * 56).reshape(112, 112, 1).astype("uint8"),
    }


IMAGES = _images()
each_image = pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES.keys())


def _pillow(image):
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def _array(picture, image):
    return np.asarray(picture).reshape(image.shape)


@each_image
def test_operations_on_single_pixels(image):
    picture = _pillow(image)
    expected = {
        "invert": ImageOps.invert(picture),
        "autocontrast": ImageOps.autocontrast(picture),
        "equalize": ImageOps.equalize(picture),
        "grayscale": picture.convert("L").convert(picture.mode),
    }
    for name, result in expected.items():
        ours = getattr(operations, name)(tf.constant(image))
        np.testing.assert_array_equal(ours, _array(result, image), err_msg=name)


@each_image
def test_solarize_and_posterize(image):
    for threshold in (0, 26, 128, 255, 256):
        expected = _array(ImageOps.solarize(_pillow(image), threshold), image)
        np.testing.assert_array_equal(operations.solarize(image, tf.constant(threshold)), expected)
    for bits in (1, 3, 4, 7, 8):
        expected = _array(ImageOps.posterize(_pillow(image), bits), image)
        np.testing.assert_array_equal(operations.posterize(image, tf.constant(bits)), expected)
    assert not operations.posterize(image, 0).numpy().any()


def test_solarize_add_changes_the_dark_pixels_only():
    image = np.arange(256, dtype="uint8").reshape(16, 16, 1)
    for addition in (0, 110, 200):
        changed = operations.solarize_add(image, tf.constant(addition)).numpy().reshape(-1)
        np.testing.assert_array_equal(changed[:128], np.minimum(np.arange(128) + addition, 255))
        np.testing.assert_array_equal(changed[128:], np.arange(128, 256))


@each_image
@pytest.mark.parametrize("name", ["color", "contrast", "brightness", "sharpness"])
def test_enhancements(image, name):
    enhancer = getattr(ImageEnhance, name.title())(_pillow(image))
    for factor in (0.0, 0.1, 0.37, 0.9, 1.0, 1.45, 1.9):
        ours = getattr(operations, name)(tf.constant(image), tf.constant(factor))
        np.testing.assert_array_equal(ours, _array(enhancer.enhance(factor), image), err_msg=str(factor))


@each_image
def test_gaussian_blur(image):
    for radius in (0.1, 0.5, 1.0, 1.3, 1.9, 2.4):
        expected = _array(_pillow(image).filter(ImageFilter.GaussianBlur(radius)), image)
        np.testing.assert_array_equal(
            operations.gaussian_blur(image, tf.constant(radius)), expected, err_msg=str(radius)
        )


@each_image
@pytest.mark.parametrize("interpolation", geometry.INTERPOLATIONS)
def test_rotate(image, interpolation):
    fill = FILL[: image.shape[-1]]
    color = fill if len(fill) > 1 else fill[0]
    for degrees in (-30.0, -13.3, 0.0, 0.7, 27.0):
        expected = _pillow(image).rotate(degrees, RESAMPLING[interpolation], fillcolor=color)
        ours = geometry.rotate(tf.constant(image), tf.constant(degrees, tf.float64), fill, interpolation)
        np.testing.assert_array_equal(ours, _array(expected, image), err_msg=str(degrees))


@each_image
@pytest.mark.parametrize("interpolation", geometry.INTERPOLATIONS)
@pytest.mark.parametrize(
    ("name", "matrix"),
    [
        ("shear_x", lambda v: (1, v / 100, 0, 0, 1, 0)),
        ("shear_y", lambda v: (1, 0, 0, v / 100, 1, 0)),
        ("translate_x", lambda v: (1, 0, v, 0, 1, 0)),
        ("translate_y", lambda v: (1, 0, 0, 0, 1, v)),
    ],
)
def test_shears_and_translations(image, interpolation, name, matrix):
    fill = FILL[: image.shape[-1]]
    color = fill if len(fill) > 1 else fill[0]
    picture = _pillow(image)
    for amount in (-27.0, -5.0, 0.0, 0.7, 3.3, 5.4, 12.6, 13.37, 20.2, 60.0):
        affine = Image.Transform.AFFINE
        expected = picture.transform(picture.size, affine, matrix(amount), RESAMPLING[interpolation], fillcolor=color)
        value = amount / 100 if name.startswith("shear") else amount
        ours = getattr(geometry, name)(tf.constant(image), tf.constant(value, tf.float64), fill, interpolation)
        np.testing.assert_array_equal(ours, _array(expected, image), err_msg=str(amount))


def test_large_images_of_known_shape_are_compiled():
    def graph(*shape):
        function = tf.function(lambda image: operations.equalize(image))
        return str(function.get_concrete_function(tf.TensorSpec(shape, tf.uint8)).graph.as_graph_def())

    assert "_XlaMustCompile" in graph(97, 97, 3)
    assert "_XlaMustCompile" in graph(2, 97, 97, 3)
    for shape in ((96, 96, 3), (None, 97, 97, 3), (97, None, 3)):
        assert "_XlaMustCompile" not in graph(*shape)


def test_compiled_operations_take_what_the_others_take():
    image = IMAGES["large"]
    expected = geometry.rotate(image, 7.0, FILL, "bilinear")
    for fill in (list(FILL), np.array(FILL)):
        np.testing.assert_array_equal(geometry.rotate(image, 7.0, fill, "bilinear"), expected)
    batch = tf.constant(np.stack([image, image[::-1]]))
    factors = tf.constant([0.3, 1.7])
    for name in ("color", "contrast"):
        operation = getattr(operations, name)
        alone = [operation(one, factor) for one, factor in zip(batch, factors, strict=True)]
        np.testing.assert_array_equal(operation(batch, factors), alone)
        np.testing.assert_array_equal(operation(image, 0.3), alone[0])


def test_a_graph_gives_what_eager_execution_gives():
    """TensorFlow's optimiser may reorder sums; the pixels must not see it."""
    image = tf.constant(IMAGES["noise"])

    def rotated(image, degrees):
        return geometry.rotate(image, degrees, FILL, "bicubic"), geometry.shear_x(image, degrees / 60, FILL, "bilinear")

    degrees = tf.constant(17.3, tf.float64)
    for eager, graph in zip(rotated(image, degrees), tf.function(rotated)(image, degrees), strict=True):
        np.testing.assert_array_equal(eager, graph)


@pytest.mark.parametrize("move", [geometry.rotate, geometry.shear_x, geometry.shear_y, geometry.translate_y])
def test_one_amount_moves_all_images_of_a_batch(move):
    images = tf.constant(np.random.default_rng(0).integers(0, 256, (3, 8, 9, 3), "uint8"))
    expected = [move(image, 0.3, FILL, "bilinear") for image in images]
    np.testing.assert_array_equal(move(images, 0.3, FILL, "bilinear"), expected)
