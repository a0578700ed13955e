"""Encoded images in the graph: as Pillow reads them, or refused, and never to the harm of their neighbors."""

import functools
import io
import os
import pathlib

import hostile
import numpy as np
import pytest
import tensorflow as tf
from hostile import encode, picture, with_alpha
from PIL import Image, ImageOps
from watchdog import within

from keras_vit import InputSpec
from keras_vit.image_ops.decode import DAMAGED, FORMAT, SIZE, VALID, decode_images

SPEC = InputSpec((24, 32), crop_fraction=0.9)
SECONDS = 5  # A watchdog, no measurement: what takes longer hangs.


@pytest.fixture(autouse=True)
def _reproducible():
    """Instead of the seeds of other tests: nothing is drawn, and TensorFlow forgets its functions with each seed."""


@functools.cache
def _decoder(**options):
    options = {"input_spec": SPEC, **options}

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string)], autograph=False)
    def decode(strings):
        return decode_images(strings, **options)

    # The first call sets the graph up, which takes seconds on a busy machine.
    decode(tf.constant([b""]))
    return decode.get_concrete_function()


def _decode(data, **options):
    """Pixels and reasons of a list of strings; fails where they take too long."""
    decoder = _decoder(**options)
    results = within(SECONDS, lambda: decoder(tf.constant(data, tf.string)))
    return [result.numpy() for result in results]


def _difference(pixels, image, spec=SPEC):
    """The largest from what Pillow makes of an image, in gray levels."""
    return np.abs(pixels.astype(int) - spec.resize(image)).max()


# By name: how Pillow sees the image too, bit for bit or nearly.
FILES = {
    "jpeg": lambda: encode(picture(1), "JPEG"),
    "progressive jpeg": lambda: encode(picture(2), "JPEG", progressive=True),
    "gray jpeg": lambda: encode(picture(3, mode="L"), "JPEG"),
    "cmyk jpeg": lambda: encode(picture(4, mode="CMYK"), "JPEG"),
    "jpeg of full color": lambda: encode(picture(5, (97, 61)), "JPEG", subsampling=0),
    "png": lambda: encode(picture(6)),
    "png of one bit": lambda: encode(picture(7, mode="1")),
    "gray png": lambda: encode(picture(8, mode="L")),
    "palette png": lambda: encode(picture(9).quantize(13)),
    "png with alpha": lambda: encode(with_alpha(10)),
    "gray png with alpha": lambda: encode(with_alpha(11).convert("LA")),
    "palette png with transparency": lambda: encode(picture(12).quantize(13), transparency=3),
    "interlaced png": lambda: hostile.interlaced_png(picture(13)),
    "png with text": lambda: hostile.small_png([hostile.text_chunk(99)]),
    "webp": lambda: encode(picture(14), "WEBP"),
    "lossless webp": lambda: encode(picture(15), "WEBP", lossless=True),
    "webp with alpha": lambda: encode(with_alpha(16), "WEBP", lossless=True, exact=True),
    "bmp": lambda: encode(picture(19), "BMP"),
    "palette bmp": lambda: encode(picture(20).quantize(13), "BMP"),
    "gray bmp": lambda: encode(picture(21, mode="L"), "BMP"),
    "bmp with alpha": lambda: encode(with_alpha(22), "BMP"),
    "gif": lambda: encode(picture(23).quantize(13), "GIF"),
    "animated gif": lambda: encode(picture(24).quantize(99), "GIF", save_all=True, append_images=[picture(25)]),
    "gif with a comment": lambda: encode(picture(26).quantize(99), "GIF", comment=b"x" * 700),
    "large jpeg": lambda: encode(picture(27, (3000, 1700)), "JPEG"),
    "jpeg of one row": lambda: encode(picture(28, (9000, 1)), "JPEG"),
    "png of one column": lambda: encode(picture(29, (1, 900))),
    "png of one pixel": lambda: encode(picture(30, (1, 1))),
}


def test_every_kind_of_file_is_what_pillow_sees():
    data = [make() for make in FILES.values()]
    pixels, reasons = _decode(data)
    assert dict(zip(FILES, reasons, strict=True)) == dict.fromkeys(FILES, VALID)
    differences = [_difference(row, Image.open(io.BytesIO(d))) for row, d in zip(pixels, data, strict=True)]
    assert max(differences) <= 1, dict(zip(FILES, differences, strict=True))


def test_models_of_one_channel_see_the_gray_of_pillow():
    spec = InputSpec.symmetric((24, 32), 1)
    data = [make() for make in FILES.values()]
    pixels, reasons = _decode(data, input_spec=spec)
    assert not reasons.any()
    images = [Image.open(io.BytesIO(d)) for d in data]
    differences = [_difference(row, image, spec) for row, image in zip(pixels, images, strict=True)]
    # Colors become gray before the resize there, and behind it here.
    gray = [difference for difference, image in zip(differences, images, strict=True) if image.mode in ("L", "1")]
    assert max(differences) <= 2, dict(zip(FILES, differences, strict=True))
    assert len(gray) == 4
    assert max(gray) <= 1


def test_photographs_are_what_pillow_sees():
    if "KERAS_VIT_DATA" not in os.environ:
        pytest.skip("KERAS_VIT_DATA is not set")
    spec = InputSpec((224, 224), crop_fraction=0.9)
    files = sorted((pathlib.Path(os.environ["KERAS_VIT_DATA"]) / "imagenet_samples").glob("*.JPEG"))
    pixels, reasons = _decode([file.read_bytes() for file in files], input_spec=spec)
    assert len(files) > 10
    assert not reasons.any()
    differences = np.abs(pixels.astype(int) - np.stack([spec.resize(file) for file in files]))
    assert differences.max() <= 1
    assert np.mean(differences > 0) < 1e-3


def test_a_frame_that_does_not_fill_its_screen_lies_where_it_should():
    data = encode(picture(1, (32, 24)).quantize(64), "GIF")
    first = data.index(b",", 13 + 3 * 2 ** ((data[10] & 7) + 1))
    data = hostile.patched(hostile.patched(data, 6, "<HH", 64, 48), first + 1, "<HH", 20, 10)
    (pixels,), (reason,) = _decode([data], input_spec=InputSpec((48, 64)))
    expected = np.zeros((48, 64, 3))
    expected[10:34, 20:52] = picture(1, (32, 24)).quantize(64).convert("RGB")
    assert reason == VALID
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_cut_to_eight(channels):
    wide = np.random.default_rng(0).integers(0, 2**16, (24, 32, channels)).astype("uint16")
    (pixels,), (reason,) = _decode([tf.io.encode_png(wide).numpy()], input_spec=InputSpec((24, 32)))
    assert reason == VALID
    np.testing.assert_array_equal(pixels, np.broadcast_to(wide >> 8, (24, 32, 3)))


@pytest.mark.parametrize("jfif", [True, False])
@pytest.mark.parametrize("big_endian", [True, False])
def test_telephones_photographs_are_turned_upright(jfif, big_endian):
    data = [hostile.with_orientation(picture(1, (61, 40)), number, big_endian, jfif) for number in range(10)]
    pixels, reasons = _decode(data)
    as_stored, _ = _decode(data, apply_exif_orientation=False)
    assert not reasons.any()
    for number, (row, stored, d) in enumerate(zip(pixels, as_stored, data, strict=True)):
        image = Image.open(io.BytesIO(d))
        # Pillow asks the same tag; 0 and 9 are none.
        assert image.getexif()[0x0112] == number
        assert _difference(row, ImageOps.exif_transpose(image)) <= 1
        assert _difference(stored, image) <= 1
    assert [(a == b).all() for a, b in zip(pixels, as_stored, strict=True)] == [True] * 2 + [False] * 7 + [True]


def test_a_truncated_exif_segment_means_upright():
    whole = hostile.with_orientation(picture(1), 6)
    start = whole.index(b"Exif")
    data = [whole[:position] + b"\xff" * 20 + whole[position + 20 :] for position in range(start + 6, start + 36, 3)]
    _, reasons = _decode(data)
    assert not reasons.any()


def _with_neighbors(data, **options):
    """The answers to strings between valid ones; fails unless these get what they get alone."""
    neighbors = [encode(picture(1), "JPEG"), encode(picture(2))]
    expected, _ = _decode(neighbors, **options)
    batch = [neighbors[0], *data, neighbors[1]]
    pixels, reasons = _decode(batch, **options)
    np.testing.assert_array_equal(pixels[[0, -1]], expected)
    assert reasons[0] == reasons[-1] == VALID
    assert not pixels[reasons != VALID].any()
    return pixels[1:-1], reasons[1:-1]


def test_damaged_files_are_refused_one_by_one():
    files = hostile.damaged()
    _, reasons = _with_neighbors(list(files.values()))
    found = dict(zip(files, reasons, strict=True))
    strangers = ("empty", "text", "svg", "tiff", "signature alone", "a riff of another kind", "compressed bmp")
    assert {name for name, reason in found.items() if reason == FORMAT} == set(strangers)
    assert {name for name, reason in found.items() if reason == VALID} == set()


@pytest.mark.parametrize("name", hostile.BOMBS)
def test_bombs_are_refused_unseen(name):
    _, (reason,) = _with_neighbors([hostile.BOMBS[name]()])
    assert reason == SIZE


def test_what_a_decoder_would_unpack_in_vain_is_left_out():
    text = [hostile.text_chunk()] * 50
    data = [
        hostile.small_png(before=text),
        hostile.small_png(after=text),
        hostile.small_png(before=[hostile.chunk(b"iCCP", b"a\0\0" + hostile.zeros(400_000_000))]),
        hostile.gif_frames(500),
    ]
    pixels, reasons = _with_neighbors(data)
    assert not reasons.any()
    assert not pixels.any()  # They are black.


def test_files_cut_short_anywhere_are_refused():
    for make in (FILES[name] for name in ("jpeg", "progressive jpeg", "png", "webp", "bmp", "gif", "interlaced png")):
        whole = make()
        _, reasons = _with_neighbors([whole[: len(whole) * part // 16] for part in range(16)])
        assert (reasons != VALID).all()


def test_files_of_a_hundred_megabytes_are_answered():
    size = 100_000_000
    starts = [b"", b"\xff\xd8\xff", hostile.PNG_SIGNATURE + hostile.small_png()[8:33], b"BM", b"GIF89a"]
    starts.append(b"RIFF\xf8\xe0\xf5\x05WEBP")
    for start in starts:
        _, (reason,) = _with_neighbors([start + bytes(size - len(start))])
        assert reason != VALID
    scans = encode(picture(0), "JPEG")[:-2] + b"\xff\xda" * (size // 2)
    assert _with_neighbors([scans])[1] == SIZE
    # Zeros behind its end, which the decoder would not look at.
    webp = FILES["webp"]()
    assert _with_neighbors([webp + bytes(size - len(webp))])[1] == SIZE
    blocks = b"GIF89a\x08\0\x08\0\0\0\0!\xfe" + b"\x01a" * (size // 2)
    assert _with_neighbors([blocks])[1] == DAMAGED


@pytest.mark.slow
def test_fuzzed_files_harm_nobody():
    rng = np.random.default_rng(0)
    names = ("jpeg", "progressive jpeg", "cmyk jpeg", "png", "palette png", "webp", "webp with alpha")
    names += ("bmp", "palette bmp", "gif", "animated gif", "interlaced png")
    files, refused = [FILES[name]() for name in names], 0
    for _ in range(20):
        batch = [_mutated(files[rng.integers(len(files))], rng) for _ in range(100)]
        _, reasons = _with_neighbors(batch)
        refused += (reasons != VALID).sum()
    # Most are broken, and some hits are harmless.
    assert 500 < refused < 2000


def _mutated(data, rng):
    """Some bits flipped, bytes overwritten, a part taken out, doubled, or filled."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        position = int(rng.integers(len(data)) ** rng.uniform(0.3, 1))  # headers more often
        length = int(rng.integers(1, 40))
        kind = rng.integers(5)
        if kind == 0:
            data[position] ^= 1 << rng.integers(8)
        elif kind == 1:
            data[position : position + length] = rng.bytes(len(data[position : position + length]))
        elif kind == 2 and len(data) > 2 * length:
            del data[position : position + length]
        elif kind == 3:
            data[position:position] = data[position : position + length]
        else:
            data[position : position + 4] = bytes([rng.choice([0, 127, 128, 255])]) * 4
    return bytes(data)


def test_limits_and_formats_are_options():
    data = [encode(picture(1), "JPEG"), encode(picture(2)), encode(picture(3, (41, 30)))]
    assert list(_decode(data, max_pixels=1200)[1]) == [VALID, VALID, SIZE]
    assert list(_decode(data, formats=("png",))[1]) == [FORMAT, VALID, VALID]


def test_scans_are_allowed_as_photographers_use_them():
    data = [hostile.many_scans(20, side=4000), hostile.many_scans(300, side=100)]
    assert not _decode(data)[1].any()


def test_batches_of_any_size():
    for count in (0, 1, 2, 33):
        pixels, reasons = _decode([encode(picture(seed)) for seed in range(count)])
        assert pixels.shape == (count, 24, 32, 3)
        assert not reasons.any()
        if count:
            assert len({row.tobytes() for row in pixels}) == count
