"""Encoded images of every kind, and files that only look like images: for the tests of the SavedModel's decoding."""

import io
import re
import struct
import zlib

import numpy as np
from PIL import Image

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def picture(seed, size=(40, 30), mode="RGB"):
    """A smooth `PIL.Image` of `(width, height)`, another one for each seed."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 5, 3)).astype("uint8")
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).convert(mode)


def encode(image, format="PNG", **options):
    """The bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def chunk(kind, data=b""):
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, parts):
    """A PNG of 8-bit RGB with a true header of any size, and chunks."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return PNG_SIGNATURE + chunk(b"IHDR", header) + b"".join(parts) + chunk(b"IEND")


def interlaced_png(image):
    """A PNG of RGB in the seven passes of Adam7, which Pillow reads but does not write."""
    pixels = np.asarray(image)
    steps = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    rows = b"".join(b"\0" + row.tobytes() for x, y, right, down in steps for row in pixels[y::down, x::right])
    header = struct.pack(">IIBBBBB", image.width, image.height, 8, 2, 0, 0, 1)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND"))
    return PNG_SIGNATURE + b"".join(parts)


def with_alpha(seed):
    """A picture whose alpha is another picture, with colors where nothing is seen."""
    image = picture(seed)
    image.putalpha(picture(seed + 50, mode="L"))
    return image


def zeros(count):
    """That many zeros, deflated."""
    deflate, block = zlib.compressobj(9), bytes(2**20)
    parts = [deflate.compress(block) for _ in range(count // len(block))]
    return b"".join(parts) + deflate.compress(bytes(count % len(block))) + deflate.flush()


def small_png(before=(), after=()):
    """A black PNG of 8 x 8 pixels with more chunks in front of its pixels and behind them."""
    return png(8, 8, [*before, chunk(b"IDAT", zeros(8 * 25)), *after])


def text_chunk(size=7_900_000):
    """Compressed text, which libpng unpacks to nearly as much as it allows for one chunk."""
    return chunk(b"zTXt", b"Comment\0\0" + zeros(size))


def gif_frames(count, size=(2000, 2000)):
    """An animated GIF of black frames."""
    still = encode(Image.new("L", size), "GIF")
    first = still.index(b",", 13 + 3 * 2 ** ((still[10] & 7) + 1))
    return still[:first] + still[first:-1] * count + b";"


def webp_canvas(width, height):
    """A WebP whose canvas claims a size, around lossless pixels of 64 x 64."""
    pixels = encode(picture(0, (64, 64)), "WEBP", lossless=True)[12:]
    sides = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    body = b"WEBP" + b"VP8X" + struct.pack("<I", 10) + bytes(4) + sides + pixels
    return b"RIFF" + struct.pack("<I", len(body)) + body


def lossless_webp_header(width, height):
    """A WebP whose lossless header claims a size of up to 16384 pixels."""
    data = bytearray(encode(Image.new("RGB", (8, 8)), "WEBP", lossless=True))
    data[21:25] = struct.pack("<I", (width - 1) | (height - 1) << 14)
    return bytes(data)


def patched(data, position, format, *values):
    """Bytes with numbers written over them."""
    new = struct.pack(format, *values)
    return data[:position] + new + data[position + len(new) :]


def jpeg_size(width, height):
    """A JPEG whose frame header claims a size."""
    data = encode(picture(0), "JPEG")
    return patched(data, data.index(b"\xff\xc0") + 5, ">HH", height, width)


def many_scans(count, side=1000):
    """A progressive JPEG that repeats its last scan, a few bytes that cost a walk over all pixels."""
    data = encode(Image.new("RGB", (side, side)), "JPEG", progressive=True)
    scans, end = [match.start() for match in re.finditer(b"\xff\xda", data)], data.rindex(b"\xff\xd9")
    return data[:end] + data[scans[-1] : end] * count + data[end:]


def with_orientation(image, orientation, big_endian=False, jfif=True):
    """A JPEG with an Exif orientation among other tags."""
    e = ">" if big_endian else "<"
    entries = [
        (0x010F, 2, 4, b"abc\0"),
        (0x0112, 3, 1, struct.pack(f"{e}HH", orientation, 0)),
        (0x0128, 3, 1, bytes(4)),
    ]
    tiff = (b"MM" if big_endian else b"II") + struct.pack(f"{e}HIH", 42, 8, len(entries))
    tiff += b"".join(struct.pack(f"{e}HHI", tag, kind, count) + value for tag, kind, count, value in entries) + bytes(4)
    segment = b"\xff\xe1" + struct.pack(">H", 8 + len(tiff)) + b"Exif\0\0" + tiff
    data = encode(image, "JPEG", quality=95)
    # Behind the JFIF segment, which Pillow writes first, or instead of it.
    return data[:20] + segment + data[20:] if jfif else data[:2] + segment + data[20:]


# Small files that claim or unpack to much more than they should, by name; none may be decoded.
BOMBS = {
    "png 10k": lambda: png(10_000, 10_000, [chunk(b"IDAT", zeros(10_000 * 30_001))]),
    "png 60k": lambda: png(60_000, 60_000, [chunk(b"IDAT", zeros(200))]),
    "png 2 ** 31": lambda: png(2**31 - 1, 2**31 - 1, [chunk(b"IDAT", zeros(200))]),
    "png of one row": lambda: png(10_000_000, 1, [chunk(b"IDAT", zeros(30_000_001))]),
    "webp 10k": lambda: lossless_webp_header(10_000, 10_000),
    "webp 16k": lambda: lossless_webp_header(16_384, 16_384),
    "webp canvas 60k": lambda: webp_canvas(60_000, 60_000),
    "bmp 10k": lambda: patched(encode(picture(0), "BMP"), 18, "<ii", 10_000, 10_000),
    "bmp 60k, upside down": lambda: patched(encode(picture(0), "BMP"), 18, "<ii", 60_000, -60_000),
    "bmp -2 ** 31": lambda: patched(encode(picture(0), "BMP"), 18, "<ii", -(2**31), -(2**31)),
    "gif 10k": lambda: encode(Image.new("L", (10_000, 10_000)), "GIF"),
    "gif 60k": lambda: patched(encode(picture(0), "GIF"), 6, "<HH", 60_000, 60_000),
    "jpeg 60k": lambda: jpeg_size(60_000, 60_000),
    "jpeg of 2000 scans": lambda: many_scans(2_000),
}


def damaged():
    """Files that are no whole images, by name."""
    jpeg, gif = encode(picture(0), "JPEG"), gif_frames(1, (50, 40))
    first = gif.index(b",", 13 + 3 * 2 ** ((gif[10] & 7) + 1))
    return {
        "empty": b"",
        "text": b"hello",
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        "tiff": encode(picture(0), "TIFF"),
        "ff d8 ff": b"\xff\xd8\xff",
        "signature alone": PNG_SIGNATURE,
        "png without pixels": png(8, 8, []),
        "png with a chunk beyond the end": png(8, 8, [])[:33] + struct.pack(">I", 2**31 - 1) + b"IDAT" + bytes(99),
        "png with a negative chunk": png(8, 8, [])[:33] + struct.pack(">I", 2**32 - 1) + b"IDAT" + bytes(99),
        "png with a wrong checksum": encode(picture(0))[:40] + b"\0\0" + encode(picture(0))[42:],
        "png of 9000 empty chunks": small_png([chunk(b"tEXt", b"a\0")] * 9_000),
        "gif whose frame is larger than its screen": patched(gif, 6, "<HH", 20, 20),
        "gif without a frame": gif[:first] + b";",
        "gif with a frame outside": patched(gif, first + 1, "<HH", 100, 100),
        "webp of another size than its canvas": webp_canvas(10, 10),
        "a riff of another kind": b"RIFF\0\0\0\0WAVE" + bytes(60),
        "bmp larger than its file": patched(encode(picture(0), "BMP"), 18, "<ii", 4_000, 4_000),
        "compressed bmp": patched(encode(picture(0, mode="L"), "BMP"), 30, "<I", 1),
        "jpeg without an end": jpeg[: len(jpeg) // 2],
    }


def exif(orientation, big_endian=False):
    """Exif data with an orientation among other tags, without the name in front."""
    data = with_orientation(Image.new("RGB", (8, 8)), orientation, big_endian)
    start = data.index(b"Exif\0\0")
    return data[start + 6 : start - 2 + int.from_bytes(data[start - 2 : start], "big")]


def jpeg_with_segments(image, *segments):
    """A JPEG with `(marker, data)` segments in front of all others."""
    data = encode(image, "JPEG", quality=95)
    parts = [struct.pack(">BBH", 0xFF, marker, 2 + len(body)) + body for marker, body in segments]
    return data[:2] + b"".join(parts) + data[2:]


def png_with_chunk(image, kind, body, behind=False):
    """A PNG with a chunk in front of its pixels or behind them."""
    data = encode(image)
    at = data.index(b"IEND") - 4 if behind else 33
    return data[:at] + chunk(kind, body) + data[at:]


def deep_png(pixels):
    """A PNG of 16 bits a channel; uint16 array `(height, width, channels)` of 1 to 4 channels."""
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[pixels.shape[2]]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, kind, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND"))
    return PNG_SIGNATURE + b"".join(parts)


def shallow_png(bits, is_palette=False):
    """A PNG of 1, 2 or 4 bits a pixel, gray or of a palette of random colors."""
    random = np.random.default_rng(bits)
    values = random.integers(0, 2**bits, (24, 32))
    planes = ((values[..., None] >> np.arange(bits)[::-1]) & 1).reshape(24, -1)
    rows = b"".join(b"\0" + np.packbits(row).tobytes() for row in planes)
    header = struct.pack(">IIBBBBB", 32, 24, bits, 3 if is_palette else 0, 0, 0, 0)
    palette = [chunk(b"PLTE", random.bytes(3 * 2**bits))] if is_palette else []
    parts = (chunk(b"IHDR", header), *palette, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND"))
    return PNG_SIGNATURE + b"".join(parts)


def animated(kind, seed=0, offset=None, mode="RGB", **options):
    """An animation of three pictures; with `offset` the first frame of a WebP lies there on a larger canvas."""
    frames = [with_alpha(seed + i) if mode == "RGBA" else picture(seed + i, mode=mode) for i in range(3)]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], duration=50, **options)
    if offset is None:
        return data
    left, top = offset
    frame = data.index(b"ANMF")
    data = data[: frame + 8] + struct.pack("<I", left // 2)[:3] + struct.pack("<I", top // 2)[:3] + data[frame + 14 :]
    width, height = frames[0].width + left, frames[0].height + top
    return data[:24] + struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3] + data[30:]
