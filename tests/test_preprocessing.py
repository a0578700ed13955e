"""InputSpec: sizes, crops and pixels as timm and torchvision have them."""

import json
import os
import pathlib

import keras
import numpy as np
import PIL
import pytest
from hostile import picture, with_orientation
from PIL import Image, ImageOps

from keras_vit import InputSpec, preprocessing

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
HALF = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
# The recipes of the goldens as `InputSpec`s.
RECIPES = {
    "short248_crop224_bicubic_half": InputSpec(224, 0.9, "bicubic", **HALF),
    "short256_crop224_bicubic_imagenet": InputSpec(224, 0.875, "bicubic", **IMAGENET),
    "short384_crop384_bicubic_half": InputSpec(384, 1.0, "bicubic", **HALF),
    "squash224_bilinear_half": InputSpec(224, None, "bilinear", **HALF),
}
PHOTOGRAPHS = ("n01443537_goldfish", "n01614925_bald_eagle", "n01748264_Indian_cobra", "n01983481_American_lobster")
RAMP = np.arange(6 * 9 * 3, dtype="uint8").reshape(6, 9, 3)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("image", PHOTOGRAPHS)
def test_crops_equal_the_goldens(image, recipe):
    if "KERAS_VIT_DATA" not in os.environ:
        pytest.skip("KERAS_VIT_DATA is not set")
    folder = pathlib.Path(os.environ["KERAS_VIT_DATA"]).parent / "goldens" / "preprocess"
    expected, spec = np.load(folder / f"{image}__{recipe}.npz"), RECIPES[recipe]
    cropped = spec.resize(folder / f"{image}.JPEG")
    # The goldens are Pillow 13's; older ones round some bilinear pixels to the neighboring gray level.
    levels = int(PIL.__version__.split(".")[0]) < 13 and spec.interpolation == "bilinear"
    np.testing.assert_allclose(cropped.astype(int), expected["cropped"].astype(int), rtol=0, atol=int(levels))
    every_8th = spec.load(folder / f"{image}.JPEG")[::8, ::8]
    np.testing.assert_allclose(every_8th, expected["normalized_every_8th"], atol=1e-6 + levels / 255 / min(spec.std))


@pytest.mark.parametrize(
    ("size", "crop_fraction", "image", "resized"),
    [
        # The first four are rows of the goldens, (height, width).
        (224, 0.9, (500, 335), (370, 248)),
        (224, 0.875, (263, 376), (256, 365)),
        (384, 1.0, (530, 220), (925, 384)),
        (224, None, (480, 640), (224, 224)),
        ((32, 48), 1.0, (100, 100), (48, 48)),
        ((48, 32), 1.0, (100, 100), (48, 48)),
        ((32, 48), 1.0, (64, 96), (32, 48)),
        ((32, 48), 0.5, (1000, 10), (9600, 96)),
        (8, 1.0, (3, 1000), (8, 2666)),
    ],
)
def test_resized_size(size, crop_fraction, image, resized):
    assert InputSpec(size, crop_fraction).resized_size(image) == resized


@pytest.mark.parametrize("size", [(5, 7), (9, 4), 3])
@pytest.mark.parametrize("crop_fraction", [1.0, 0.7, None])
@pytest.mark.parametrize("shape", [(6, 9), (50, 7), (1, 30), (7, 1)])
def test_every_image_gives_the_size_of_the_model(size, crop_fraction, shape):
    spec = InputSpec(size, crop_fraction)
    image = spec.load(np.full((*shape, 3), 255, "uint8"))
    assert (image.shape, image.dtype) == ((*spec.size, 3), "float32")
    np.testing.assert_array_equal(image, 1)  # nothing black from beyond the border


def test_an_image_of_the_size_of_the_model_is_left_alone():
    np.testing.assert_array_equal(InputSpec((6, 9)).resize(RAMP), RAMP)


def test_the_center_is_cut_out():
    np.testing.assert_array_equal(InputSpec((6, 3), interpolation="nearest").resize(RAMP), RAMP[:, 3:6])
    np.testing.assert_array_equal(InputSpec((2, 9), interpolation="nearest").resize(RAMP), RAMP[2:4])


def test_squash_keeps_the_borders():
    stripes = np.zeros((4, 8, 3), "uint8")
    stripes[:, -4:] = 255
    squashed = InputSpec(4, crop_fraction=None, interpolation="nearest").resize(stripes)
    np.testing.assert_array_equal(squashed[..., 0], [[0, 0, 255, 255]] * 4)


def test_normalize_is_pixel_minus_mean_over_std():
    spec = InputSpec((6, 9), mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0))
    expected = (RAMP / 255 - np.array(spec.mean)) / np.array(spec.std)
    np.testing.assert_allclose(spec.load(RAMP), expected, atol=1e-6)


def test_normalize_of_tensors_equals_that_of_arrays():
    spec, batch = InputSpec((6, 9), **IMAGENET), np.stack([RAMP, RAMP[::-1]])
    tensor = spec.normalize(keras.ops.convert_to_tensor(batch))
    assert not isinstance(tensor, np.ndarray)
    np.testing.assert_allclose(tensor, spec.normalize(batch), atol=1e-6)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK"])
def test_other_color_modes_become_rgb(mode, tmp_path):
    image = Image.fromarray(np.repeat(RAMP[..., :1] // 128 * 255, 3, axis=-1)).convert(mode)
    image.save(tmp_path / ("image.tiff" if mode == "CMYK" else "image.png"))
    for source in (image, next(tmp_path.iterdir())):
        pixels = InputSpec((6, 9)).resize(source)
        np.testing.assert_array_equal(pixels, np.repeat(RAMP[..., :1] // 128 * 255, 3, axis=-1))


@pytest.mark.parametrize("array", [RAMP[..., 0], RAMP[..., :1]], ids=["two axes", "three axes"])
def test_gray_arrays_fit_gray_and_color_models(array):
    gray = InputSpec((6, 9), mean=(0.5,), std=(0.5,)).resize(array)
    np.testing.assert_array_equal(gray, RAMP[..., :1])
    np.testing.assert_array_equal(InputSpec((6, 9)).resize(array), np.repeat(RAMP[..., :1], 3, axis=-1))


def test_color_becomes_gray():
    red = np.zeros((4, 4, 3), "uint8")
    red[..., 0] = 255
    np.testing.assert_array_equal(InputSpec(4, mean=(0.5,), std=(0.5,)).resize(red), np.full((4, 4, 1), 76))


@pytest.mark.parametrize("channels", [2, 4, 5, 12])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_channels_that_are_no_picture_are_resized_one_by_one(channels, dtype):
    """Pillow would take the fourth for alpha, and multiply the others by it."""
    array = np.random.default_rng(0).integers(0, 256, (30, 40, channels)).astype(dtype)
    array[:20, :, -1] = 0
    spec = InputSpec.symmetric((8, 9), channels, crop_fraction=0.9)
    gray = InputSpec.symmetric((8, 9), 1, crop_fraction=0.9)
    expected = np.concatenate([gray.resize(array[..., i].astype("uint8")) for i in range(channels)], -1)
    np.testing.assert_array_equal(spec.resize(array if dtype == "uint8" else array * 256 + 255), expected)
    if channels == 4 and dtype == "uint8":
        np.testing.assert_array_equal(spec.resize(Image.fromarray(array)), expected)


def test_four_channels_are_kept():
    rgba = np.arange(64, dtype="uint8").reshape(4, 4, 4)
    np.testing.assert_array_equal(InputSpec(4, mean=(0.5,) * 4, std=(0.5,) * 4).resize(rgba), rgba)


@pytest.mark.parametrize("channels", [1, 3])
def test_four_channels_are_no_picture(channels):
    """They might be RGBA, or red, green, blue and infrared."""
    with pytest.raises(ValueError, match=rf"4 channels for a model of {channels}.*array\[..., :3\]"):
        InputSpec.symmetric(4, channels).resize(np.zeros((4, 4, 4), "uint8"))


def test_sixteen_bits_are_scaled_to_eight():
    for value, expected in ((0, 0), (255, 0), (20_000, 78), (2**16 - 1, 255)):
        deep = np.full((4, 4), value, "uint16")
        for image in (deep, Image.fromarray(deep)):
            assert set(InputSpec(4).resize(image).ravel()) == {expected}


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bool"])
def test_pixels_of_an_unknown_scale_are_refused(dtype):
    with pytest.raises(ValueError, match=rf"uint8 nor uint16.*0..255|dtype {dtype}"):
        InputSpec(4).resize(np.ones((4, 4, 3), dtype))
    with pytest.raises(ValueError, match="8 or 16 bits a channel, not 32"):
        InputSpec(4).resize(Image.new("F", (4, 4)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_of_a_telephone_is_turned_upright(orientation, tmp_path):
    path, image = tmp_path / "photo.jpg", picture(0, (24, 16))
    path.write_bytes(with_orientation(image, orientation))
    opened, spec = Image.open(path), InputSpec((24, 24), crop_fraction=None)
    np.testing.assert_array_equal(spec.resize(path), spec.resize(ImageOps.exif_transpose(opened)))
    # What the caller has opened is the caller's.
    assert np.array_equal(spec.resize(path), spec.resize(opened)) == (orientation == 1)


def test_damaged_exif_data_are_no_reason_to_refuse_an_image(tmp_path):
    good = with_orientation(picture(0, (24, 16)), 6)
    for at in range(24, 80):  # the segment without its length
        path = tmp_path / "photo.jpg"
        path.write_bytes(good[:at] + bytes([255 - good[at]]) + good[at + 1 :])
        assert InputSpec(8).resize(path).shape == (8, 8, 3)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_strips_need_no_memory_for_what_is_cut_off(interpolation, monkeypatch):
    spec = InputSpec((24, 32), crop_fraction=0.9, interpolation=interpolation)
    row = np.repeat(np.arange(900) // 4, 3).reshape(1, 900, 3).astype("uint8")
    strips = (row, row.transpose(1, 0, 2))
    whole = [spec.resize(strip).astype(int) for strip in strips]
    monkeypatch.setattr(preprocessing, "_MOST_RESIZED_PIXELS", 0)
    for strip, expected in zip(strips, whole, strict=True):
        assert np.abs(spec.resize(strip).astype(int) - expected).max() <= 1


def test_wrong_number_of_channels_raises():
    with pytest.raises(ValueError, match=r"must have the 4 channels of the model. Received: 3 channels"):
        InputSpec(4, mean=(0.5,) * 4, std=(0.5,) * 4).load(RAMP)


@pytest.mark.parametrize(
    ("name", "content"), [("missing.jpg", None), ("text.jpg", b"no image"), ("empty.png", b""), ("cut.png", "cut")]
)
def test_unreadable_file_is_named(name, content, tmp_path):
    path = tmp_path / name
    if content == "cut":
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), "uint8")).save(path)
        content = path.read_bytes()[:2000]
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=f"an image must be a readable file or a uint8 array. Received: .*{name}"):
        InputSpec(4).load(path)


@pytest.mark.parametrize(
    "array", [RAMP / 255, RAMP[None], RAMP[0, 0], np.zeros((0, 4, 3), "uint8"), np.zeros((4, 4, 5), "uint8")]
)
def test_arrays_that_are_no_image_raise(array):
    with pytest.raises(ValueError, match=r"a readable file or a uint8 array. Received: array of shape \("):
        InputSpec(4).load(array)


@pytest.mark.parametrize("image", [None, 3, object()])
def test_other_objects_raise(image):
    with pytest.raises(ValueError, match=r"a readable file or a uint8 array. Received: "):
        InputSpec(4).load(image)


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"size": 0}, "size must be a positive int or a pair"),
        ({"size": (4, 4, 3)}, "size must be a positive int or a pair"),
        ({"interpolation": "bicubik"}, "interpolation must be one of.*Did you mean 'bicubic'"),
        ({"crop_fraction": 0}, r"crop_fraction must be in \(0, 1\] or None. Received: crop_fraction=0"),
        ({"crop_fraction": 1.1}, r"crop_fraction must be in \(0, 1\] or None. Received: crop_fraction=1.1"),
        ({"mean": (0.5,)}, "mean and std must hold one number a channel, std above zero"),
        ({"std": (0.5, 0.5, 0)}, "mean and std must hold one number a channel, std above zero"),
        ({"mean": (), "std": ()}, "mean and std must hold one number a channel, std above zero"),
    ],
)
def test_rule(fields, rule):
    with pytest.raises(ValueError, match=rule):
        InputSpec(**{"size": 4, **fields})


@pytest.mark.parametrize("spec", [*RECIPES.values(), InputSpec((3, 5), mean=(0.1,), std=(0.2,))], ids=str)
def test_json_round_trip(spec):
    assert InputSpec.from_config(json.loads(json.dumps(spec.get_config()))) == spec
    serialized = json.loads(json.dumps(keras.saving.serialize_keras_object(spec)))
    assert keras.saving.deserialize_keras_object(serialized) == spec


def test_replace_checks_again():
    spec = InputSpec(4)
    assert spec.replace(size=(3, 5)).size == (3, 5)
    with pytest.raises(ValueError, match="crop_fraction"):
        spec.replace(crop_fraction=2)
