"""One table of odd files: the graph, which data sets and servers use, and Pillow, for NumPy users, agree on each."""

import functools
import io
import os
import re
import subprocess
import sys

import hostile
import numpy as np
import pytest
import tensorflow as tf
from hostile import animated, encode, picture, with_alpha
from PIL import Image, ImageCms, PngImagePlugin

from keras_vit import InputSpec
from keras_vit.config import AugmentConfig, DataConfig
from keras_vit.data import evaluation_dataset, load_source, training_dataset
from keras_vit.data.unreadable import unreadable_reason
from keras_vit.image_ops.decode import DATA_LIMITS, Limits, decode, decode_image, is_plain_jpeg
from keras_vit.image_ops.pillow_reader import (
    DAMAGED,
    FORMAT,
    SIZE,
    VALID,
    UnreadableImage,
    exif_orientation,
    read_array,
    read_picture,
)

SPEC = InputSpec((24, 32), crop_fraction=0.9)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
RAMP = (np.arange(24 * 32).reshape(24, 32, 1) * 85 % 2**16).astype("uint16")


def _tiff(mode, **options):
    pixels = {"I;16": RAMP[..., 0], "I": RAMP[..., 0].astype("int32"), "F": RAMP[..., 0].astype("float32")}
    return encode(Image.fromarray(pixels[mode]) if mode in pixels else picture(1, mode=mode), "TIFF", **options)


def _turned(number, kind):
    body = hostile.exif(number, big_endian=number % 2 == 1)
    image = picture(number, (41, 30))
    options = {"exif": b"Exif\0\0" + body, "lossless": True} if kind == "WEBP" else {}
    if kind == "PNG":
        return hostile.png_with_chunk(image, b"eXIf", body, behind=number > 4)
    return encode(image, "WEBP", **options) if options else hostile.with_orientation(image, number)


def _xmp_orientation():
    xmp = b'<x xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'
    return hostile.jpeg_with_segments(picture(3), (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp))


def _late_exif():
    other = [(0xE2, b"ICC_PROFILE\0\1\1" + bytes(60_000)), (0xED, bytes(3000))]
    return hostile.jpeg_with_segments(picture(4, (41, 30)), *other, (0xE1, b"Exif\0\0" + hostile.exif(6)))


def _text_png():
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "x" * 5000, zip=True)
    return encode(picture(5), pnginfo=info)


# Files that are read, by name. All formats are those of the graph but the ones in `BY_PILLOW`.
READABLE = {
    **{f"{mode} png": functools.partial(encode, picture(1, mode=mode)) for mode in ("1", "L", "P", "RGB")},
    **{f"gray png of {bits} bits": functools.partial(hostile.shallow_png, bits) for bits in (1, 2, 4)},
    **{f"palette png of {bits} bits": functools.partial(hostile.shallow_png, bits, True) for bits in (1, 2, 4)},
    **{
        f"png of 16 bits, {channels} channels": functools.partial(hostile.deep_png, np.repeat(RAMP, channels, -1))
        for channels in (1, 2, 3, 4)
    },
    "png with alpha": lambda: encode(with_alpha(2)),
    "gray png with alpha": lambda: encode(with_alpha(2).convert("LA")),
    "png with a transparent color": lambda: encode(picture(2), transparency=(1, 2, 3)),
    "palette png with transparency": lambda: encode(picture(2).quantize(13), transparency=3),
    "palette png with alpha": lambda: encode(picture(2).quantize(4), transparency=b"\0\x40\x80\xff"),
    "interlaced png": lambda: hostile.interlaced_png(picture(3)),
    "png with text": _text_png,
    "png with a profile": lambda: encode(picture(3), icc_profile=PROFILE),
    "animated png": lambda: animated("PNG"),
    **{f"png turned {i}": functools.partial(_turned, i, "PNG") for i in range(10)},
    "jpeg": lambda: encode(picture(4), "JPEG"),
    "gray jpeg": lambda: encode(picture(4, mode="L"), "JPEG"),
    "progressive jpeg": lambda: encode(picture(4), "JPEG", progressive=True),
    "jpeg of full color": lambda: encode(picture(4), "JPEG", subsampling=0),
    "cmyk jpeg": lambda: encode(picture(4, mode="CMYK"), "JPEG"),
    "jpeg with a profile": lambda: encode(picture(4), "JPEG", icc_profile=PROFILE),
    **{f"jpeg turned {i}": functools.partial(_turned, i, "JPEG") for i in range(10)},
    "jpeg turned behind a profile": _late_exif,
    "jpeg with an orientation in XMP alone": _xmp_orientation,
    "jpeg with an empty Exif segment": lambda: hostile.jpeg_with_segments(picture(4), (0xE1, b"Exif\0\0")),
    "webp": lambda: encode(picture(6), "WEBP"),
    "lossless webp": lambda: encode(picture(6), "WEBP", lossless=True),
    "webp with alpha": lambda: encode(with_alpha(6), "WEBP", lossless=True, exact=True),
    "webp with a profile": lambda: encode(picture(6), "WEBP", icc_profile=PROFILE),
    **{f"webp turned {i}": functools.partial(_turned, i, "WEBP") for i in range(10)},
    "animated webp": lambda: animated("WEBP"),
    "animated lossless webp": lambda: animated("WEBP", lossless=True),
    "animated webp with alpha": lambda: animated("WEBP", mode="RGBA", exact=True, quality=90),
    "animated webp turned": lambda: animated("WEBP", exif=b"Exif\0\0" + hostile.exif(8), lossless=True),
    "animated webp with an offset": lambda: animated("WEBP", offset=(10, 6), lossless=True),
    "gif": lambda: encode(picture(7).quantize(13), "GIF"),
    "animated gif": lambda: animated("GIF"),
    "gif with transparency": lambda: encode(picture(7).quantize(13), "GIF", transparency=5),
    **{f"{mode} bmp": functools.partial(encode, picture(8, mode=mode), "BMP") for mode in ("L", "RGB")},
    "palette bmp": lambda: encode(picture(8).quantize(13), "BMP"),
    "bmp with alpha": lambda: encode(with_alpha(8), "BMP"),
}
# TensorFlow does not know them: data sets have them from Pillow, servers refuse them.
BY_PILLOW = {
    **{f"{mode} tiff": functools.partial(_tiff, mode) for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK", "I;16")},
    "tiff turned": lambda: _tiff("RGB", tiffinfo={0x0112: 6}),
    "tiff compressed": lambda: _tiff("RGB", compression="tiff_deflate"),
    "ycbcr tiff": lambda: _tiff("YCbCr"),
    "bmp of one bit": lambda: encode(picture(1, mode="1"), "BMP"),
    "ppm": lambda: encode(picture(1), "PPM"),
    "pgm of 16 bits": lambda: b"P5 32 24 65535\n" + RAMP.astype(">u2").tobytes(),
    "jpeg 2000": lambda: encode(picture(1), "JPEG2000"),
}
# Files that are refused, with the reason.
REFUSED = {
    "empty": (lambda: b"", FORMAT),
    "text": (lambda: b"hello", FORMAT),
    "svg": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>', FORMAT),
    "tiff of floats": (functools.partial(_tiff, "F"), FORMAT),
    "tiff of 32 bits": (functools.partial(_tiff, "I"), FORMAT),
    "jpeg header": (lambda: b"\xff\xd8\xff", DAMAGED),
    "truncated jpeg": (lambda: encode(picture(1), "JPEG")[:-300], DAMAGED),
    "truncated png": (lambda: encode(picture(1))[:-300], DAMAGED),
    "truncated webp": (lambda: encode(picture(1), "WEBP")[:-100], DAMAGED),
    "truncated animated webp": (lambda: animated("WEBP")[:200], DAMAGED),
    "truncated gif": (lambda: encode(picture(1).quantize(50), "GIF")[:-300], DAMAGED),
    "truncated bmp": (lambda: encode(picture(1), "BMP")[:-300], DAMAGED),
    "truncated tiff": (lambda: _tiff("RGB")[:-2000], DAMAGED),
    "png with a wrong checksum": (lambda: encode(picture(1))[:45] + b"\0\0" + encode(picture(1))[47:], DAMAGED),
    "png 60k": (hostile.BOMBS["png 60k"], SIZE),
    "bmp 60k": (hostile.BOMBS["bmp 60k, upside down"], SIZE),
    "jpeg 60k": (hostile.BOMBS["jpeg 60k"], SIZE),
    "gif 60k": (hostile.BOMBS["gif 60k"], SIZE),
}


@pytest.fixture(autouse=True)
def _reproducible():
    """Instead of the seeds of other tests: TensorFlow forgets its functions with each seed."""


@functools.cache
def _graph(limits=DATA_LIMITS, spec=SPEC):
    @tf.function(input_signature=[tf.TensorSpec((), tf.string)], autograph=False)
    def prepared(data):
        return decode_image(data, spec, limits)

    return prepared


@functools.cache
def _decoder(num_channels=3):
    """`decode` of one file, and of a window of it, as graphs that are traced once for all files."""

    @tf.function(input_signature=[tf.TensorSpec((), tf.string)], autograph=False)
    def whole(data):
        return decode(data, DATA_LIMITS, num_channels=num_channels)

    @tf.function(input_signature=[tf.TensorSpec((), tf.string), tf.TensorSpec((4,), tf.int32)], autograph=False)
    def part(data, window):
        return decode(data, DATA_LIMITS, lambda size: window, num_channels)

    return whole, part


def _by_graph(data, **options):
    """Pixels and the reason of one file."""
    try:
        pixels, reason = _graph(**options)(tf.constant(data))
    except (tf.errors.OpError, UnicodeDecodeError):  # the latter where an error quotes the bytes
        return None, DAMAGED
    return pixels.numpy(), int(reason)


def _by_pillow(data, spec=SPEC):
    try:
        return spec.resize(io.BytesIO(data)), VALID
    except UnreadableImage as error:
        return None, error.reason


@pytest.mark.parametrize("name", [*READABLE, *BY_PILLOW])
def test_the_graph_and_pillow_read_the_same_pixels(name):
    data = {**READABLE, **BY_PILLOW}[name]()
    (graph, graph_reason), (pillow, pillow_reason) = _by_graph(data), _by_pillow(data)
    assert (graph_reason, pillow_reason) == (VALID, VALID)
    image, _ = _decoder()[0](tf.constant(data))
    assert image.shape[0] > 1
    assert np.abs(image.numpy().astype(int) - read_picture(io.BytesIO(data)).convert("RGB")).max() <= 1
    # Dots of two colors, resized: what overshoots is rounded twice.
    is_dithered = name.startswith(("1 ", "P ", "bmp of one bit"))
    assert np.abs(graph.astype(int) - pillow).max() <= (2 if is_dithered else 1)
    assert pillow.std() > 5  # not black
    # A server decodes the same, or refuses.
    served, reason = _by_graph(data, limits=Limits())
    assert reason == (VALID if name in READABLE else FORMAT)
    assert reason == FORMAT or np.array_equal(served, graph)


@pytest.mark.parametrize(
    "name", ["L png", "jpeg", "png of 16 bits, 1 channels", "webp turned 6", "palette bmp", "L tiff"]
)
def test_models_of_gray_read_the_same_pixels(name):
    data, spec = {**READABLE, **BY_PILLOW}[name](), InputSpec.symmetric((24, 32), 1, crop_fraction=0.9)
    (graph, graph_reason), (pillow, pillow_reason) = _by_graph(data, spec=spec), _by_pillow(data, spec)
    assert (graph_reason, pillow_reason) == (VALID, VALID)
    assert np.abs(graph.astype(int) - pillow).max() <= 1


def test_models_of_four_channels_read_the_bands_of_an_image():
    """A PNG by the graph, other formats by Pillow; never colors in place of the bands that are missing."""
    image = with_alpha(3)
    for data in (encode(image), encode(image, "TIFF"), encode(image, "WEBP", lossless=True, exact=True)):
        pixels, reason = _decoder(4)[0](tf.constant(data))
        assert reason == VALID
        np.testing.assert_array_equal(pixels, np.asarray(image))
        np.testing.assert_array_equal(read_array(io.BytesIO(data)), np.asarray(image))
    window = tf.constant([2, 3, 8, 16])
    np.testing.assert_array_equal(_decoder(4)[1](tf.constant(data), window)[0], np.asarray(image)[2:10, 3:19])
    for data in (encode(picture(3)), encode(picture(3), "JPEG"), encode(picture(3), "TIFF")):
        assert _decoder(4)[0](tf.constant(data))[1] == FORMAT
        assert re.search("4 channels, not 3", unreadable_reason(data, 4))


@pytest.mark.parametrize("name", ["jpeg", "jpeg turned 6", "jpeg turned behind a profile", "progressive jpeg"])
def test_jpegs_with_exif_data_take_the_general_branch(name):
    data = tf.constant(READABLE[name]())
    size = tf.image.extract_jpeg_shape(data)[:2]
    assert bool(is_plain_jpeg(data, size, Limits())) == ("turned" not in name)
    assert bool(is_plain_jpeg(data, size, Limits(apply_exif_orientation=False)))


@pytest.mark.parametrize(
    ("size", "length", "expected"),
    [
        ((2**12, 2**13), 320, True),
        ((2**12, 2**13 + 1), 100, False),  # too many pixels
        ((2**12, 2**13), 321, False),  # room for too many scans
        ((1, 2**14), 100, True),
        ((1, 2**14 + 1), 100, False),
        ((2**14 + 1, 1), 100, False),
        ((1, 1), 2**24, True),
        ((1, 1), 2**24 + 1, False),  # much behind the pixels
        ((0, 5), 100, False),
    ],
)
def test_jpegs_near_a_limit_take_the_general_branch(size, length, expected):
    assert bool(is_plain_jpeg(tf.constant(bytes(length)), tf.constant(size), Limits())) is expected


@pytest.mark.parametrize("name", REFUSED)
def test_both_refuse_for_the_same_reason(name):
    make, reason = REFUSED[name]
    data = make()
    assert (_by_graph(data)[1], _by_pillow(data)[1]) == (reason, reason)


def test_the_pixels_are_those_that_the_rules_tell():
    """Independently of both readers: what stands in the table might be wrong twice."""
    spec = InputSpec((24, 32))
    for channels in (1, 2, 3, 4):
        deep = hostile.deep_png(np.repeat(RAMP, channels, -1))
        expected = np.repeat(RAMP >> 8, 3, -1)
        np.testing.assert_array_equal(_by_graph(deep, spec=spec)[0], expected)
        np.testing.assert_array_equal(spec.resize(io.BytesIO(deep)), expected)
    gray = hostile.deep_png(np.full((24, 32, 1), 20_000, "uint16"))
    assert set(spec.resize(io.BytesIO(gray)).ravel()) == {78}
    image = with_alpha(1).resize((32, 24))
    for read in (lambda data: _by_graph(data, spec=spec)[0], lambda data: spec.resize(io.BytesIO(data))):
        np.testing.assert_array_equal(read(encode(image)), np.asarray(image)[..., :3])
        frames = encode(
            picture(1, (32, 24)), "WEBP", lossless=True, save_all=True, append_images=[picture(2, (32, 24))]
        )
        np.testing.assert_array_equal(read(frames), picture(1, (32, 24)))
        turned = hostile.png_with_chunk(picture(1, (24, 32)), b"eXIf", hostile.exif(6))
        np.testing.assert_array_equal(read(turned), np.rot90(picture(1, (24, 32)), -1))


def test_damaged_exif_data_mean_the_same_to_both():
    body, random = hostile.exif(6, big_endian=True), np.random.default_rng(0)
    read = _orientations()
    bodies = [body[:length] for length in range(len(body))]
    for _ in range(300):
        damaged = bytearray(body)
        for position in random.integers(0, len(body), random.integers(1, 4)):
            damaged[position] = random.choice([0, 1, 3, 4, 6, 255, random.integers(256)])
        bodies.append(bytes(damaged))
    bodies += [b"Exif\0\0" + part for part in bodies[:200]]
    found = read(tf.constant(bodies)).numpy().tolist()
    assert found == [exif_orientation(part) for part in bodies]
    assert len(set(found)) > 2


def _orientations():
    from keras_vit.image_ops.exif import exif_orientation as in_graph

    def read(bodies):
        return tf.map_fn(in_graph, bodies, fn_output_signature=tf.int32)

    return tf.function(read, input_signature=[tf.TensorSpec((None,), tf.string)], autograph=False)


@pytest.mark.parametrize("number", range(1, 9))
def test_a_window_is_one_of_the_upright_image(number):
    """Whether it is cut out while a JPEG is decoded, or afterwards."""
    for kind in ("JPEG", "PNG"):
        data = tf.constant(_turned(number, kind))
        whole, _ = _decoder()[0](data)
        window = tf.constant([3, 8, 16, 8] if number >= 5 else [8, 3, 8, 16])
        part, reason = _decoder()[1](data, window)
        top, left, height, width = window.numpy()
        assert reason == VALID
        assert part.shape[:2] == (height, width)
        expected = whole[top : top + height, left : left + width].numpy().astype(int)
        # The chroma of a window of a JPEG begins at another place of its grid.
        assert np.abs(part.numpy() - expected)[2:-2, 2:-2].max() <= (8 if kind == "JPEG" else 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes that hold a file of every kind, and an unreadable one that comes first."""
    root = tmp_path_factory.mktemp("odd")
    for i, (name, make) in enumerate({**READABLE, **BY_PILLOW}.items()):
        path = root / "train" / "ab"[i % 2] / f"{name.replace(' ', '_')}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make())
    (root / "train" / "a" / "0.jpg").write_bytes(REFUSED["truncated jpeg"][0]())
    return root


@pytest.mark.filterwarnings("ignore:.*left out")
def test_memory_streams_and_single_files_have_the_same_pixels(folder):
    config = DataConfig(folder=str(folder), in_memory=False, skip_unreadable=True)
    source = load_source(config)
    stream = source.load("train", config, SPEC)
    memory = source.split("train", SPEC)
    assert len(memory) == len(stream) - 1 == len(READABLE) + len(BY_PILLOW)
    # What is not resized tells the pixels exactly.
    flat = InputSpec(SPEC.size, SPEC.crop_fraction, mean=(0,) * 3, std=(1,) * 3)
    batches = evaluation_dataset(stream, 2, flat, 16, skip_unreadable=True)
    streamed = np.concatenate([np.round(x.numpy() * 255) for x, _ in batches])
    np.testing.assert_array_equal(streamed, memory.images)
    singles = np.stack([SPEC.resize(name) for name in stream.names[1:]])
    assert np.abs(singles.astype(int) - memory.images).max() <= 2
    # The first file of the stream is unreadable, and named.
    with pytest.raises(ValueError, match=r"unreadable: .*a/0.jpg \(.*[Tt]runcated"):
        load_source(DataConfig(folder=str(folder))).split("train", SPEC)
    pixels, label = stream.example(SPEC)
    np.testing.assert_array_equal(pixels, memory.images[0])
    assert (label, stream.image_size()) == (0, (30, 40))


@pytest.mark.filterwarnings("ignore:.*left out")
@pytest.mark.parametrize("crop", [None, (0.3, 1.0)])
def test_streams_of_odd_files_are_trained_on(folder, crop):
    config = DataConfig(folder=str(folder), in_memory=False, skip_unreadable=True)
    split = load_source(config).load("train", config, SPEC)
    batches, steps = training_dataset(split, 2, SPEC, 8, 1, 0, AugmentConfig(crop_scale=crop), skip_unreadable=True)
    assert sum(len(x) for x, _ in batches) == 8 * steps


def test_animated_webps_do_not_end_the_process(tmp_path):
    """In a process of its own: what TensorFlow does to its memory might show later."""
    for i in range(8):
        path = tmp_path / "train" / "ab"[i % 2] / f"{i}.webp"
        path.parent.mkdir(parents=True, exist_ok=True)
        frames = [picture(i, (300 + 40 * k, 200)) for k in range(2)]
        path.write_bytes(encode(frames[0], "WEBP", save_all=True, append_images=[f.resize((300, 200)) for f in frames]))
    program = (
        "from keras_vit.data import *; from keras_vit import InputSpec; from keras_vit.config import *\n"
        f"config = DataConfig(folder={str(tmp_path)!r}, in_memory=False)\n"
        "split = load_source(config).load('train', config, InputSpec(32))\n"
        "for crop in (None, (0.2, 1.0)):\n"
        "  batches, _ = training_dataset(split, 2, InputSpec(32), 4, 5, 0, AugmentConfig(crop_scale=crop))\n"
        "  print(sum(len(x) for x, _ in batches))\n"
    )
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert (answer.returncode, answer.stdout.split()) == (0, ["40", "40"]), answer.stderr[-2000:]
