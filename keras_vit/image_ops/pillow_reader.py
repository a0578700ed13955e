"""Reads image files with Pillow by the rules of the graph's decoder, `keras_vit.image_ops`.

The rules, for every format: of an animation the first frame; rotated by the Exif orientation; 16 bits a channel
are cut to the upper 8; alpha is dropped and the colors under it kept; color profiles are not applied.
"""

import io
import struct

import numpy as np
from PIL import Image, UnidentifiedImageError

# Limits of images that are read for data sets and by `InputSpec`; a server has lower ones of its own.
MAX_PIXELS = 2**27
MAX_SIDE = 2**16 - 1

# Whether an image can be decoded, or why not: it is damaged, of a format that is not decoded, or too large.
VALID, DAMAGED, FORMAT, SIZE = range(4)

_ORIENTATION = 0x0112  # the tag of Exif data
_TYPES = {3: "H", 4: "I"}  # in which it is written
_MOST_ENTRIES = 256  # of the directory of Exif data
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a")
_WIDE_MODES = ("I;16", "I;16L", "I;16B", "I;16N")
# Pillow opens their 16 bits a pixel as 32.
_WIDE_FORMATS = ("PNG", "PPM")


class UnreadableImage(ValueError):
    """An image that cannot be read.

    Args:
        message: str.
        reason: `DAMAGED`, `FORMAT` or `SIZE`.
    """

    def __init__(self, message, reason):
        super().__init__(message)
        self.reason = reason


def read_picture(file, apply_exif_orientation=True):
    """Reads an image file.

    Args:
        file: path, or a file that is open for reading bytes.
        apply_exif_orientation: bool. Whether the image is rotated by its Exif orientation. Default True.

    Returns:
        A `PIL.Image` of mode `L` or `RGB`.

    Raises:
        UnreadableImage: if it is damaged, of an unknown format, or too large.
    """
    return eight_bits(_load(file, apply_exif_orientation))


def read_array(file):
    """Reads an image file as it is stored, for models whose channels are not those of a picture.

    Args:
        file: as for `read_picture`.

    Returns:
        uint8 array `(height, width, channels)`, one channel a band.

    Raises:
        UnreadableImage: as `read_picture`.
    """
    return bands(_load(file, True))


def read_pixels(data, num_channels=3):
    """Decodes an image as the graph would.

    Args:
        data: bytes of a file.
        num_channels: int, of the model. For 1 and 3 the result has three channels.

    Returns:
        uint8 array `(height, width, channels)`.

    Raises:
        UnreadableImage: as `read_picture`; if a model of other channels has not those of the image.
    """
    if num_channels in (1, 3):
        return np.asarray(read_picture(io.BytesIO(data)).convert("RGB"))
    pixels = read_array(io.BytesIO(data))
    if pixels.shape[-1] != num_channels:
        raise UnreadableImage(f"it must have {num_channels} channels, not {pixels.shape[-1]}", FORMAT)
    return pixels


def image_size(data):
    """`(height, width)` of an encoded image after its Exif orientation is applied, from its header.

    Raises:
        UnreadableImage: as `read_picture`.
    """
    with _opened(io.BytesIO(data)) as image:
        sides = image.height, image.width
        return sides[::-1] if _orientation(image) >= 5 else sides


def eight_bits(image):
    """A `PIL.Image` of any mode as one of mode `L` or `RGB`.

    Raises:
        UnreadableImage: if its pixels are 32-bit integers or floats, whose scale is unknown.
    """
    mode = image.mode
    if mode in ("L", "RGB"):
        return image
    if mode == "1":
        return image.convert("L")
    if mode in _WIDE_MODES or (mode == "I" and image.format in _WIDE_FORMATS):
        return Image.fromarray((np.asarray(image).clip(0, 2**16 - 1) >> 8).astype("uint8"))
    if mode in ("I", "F"):
        raise UnreadableImage("its pixels must have 8 or 16 bits a channel, not 32", FORMAT)
    if mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow would warn
    elif mode in ("La", "RGBa"):
        image = image.convert({"La": "LA", "RGBa": "RGBA"}[mode])
    return image.convert("RGB")


def bands(image):
    """The bands of a `PIL.Image`: uint8 array `(height, width, channels)`; of 16 bits the upper 8.

    Raises:
        UnreadableImage: as `eight_bits`.
    """
    image = eight_bits(image) if len(image.getbands()) == 1 else image
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _load(file, apply_exif_orientation):
    """A `PIL.Image` with its pixels, of any mode."""
    image = _opened(file)
    try:
        image.load()
        turn = _TURNS.get(_orientation(image)) if apply_exif_orientation else None
        return image if turn is None else image.transpose(turn)
    except UnreadableImage:
        raise
    except Image.DecompressionBombError as error:
        raise UnreadableImage(str(error), SIZE) from error
    except Exception as error:  # Pillow names no errors of damaged files, which come from many modules.
        raise UnreadableImage(str(error) or type(error).__name__, DAMAGED) from error


def _opened(file):
    """A `PIL.Image` whose header is read and whose size is allowed."""
    try:
        image = Image.open(file)
    except Image.DecompressionBombError as error:
        raise UnreadableImage(str(error), SIZE) from error
    except UnidentifiedImageError as error:
        reason = DAMAGED if _start(file).startswith(_STARTS) else FORMAT
        raise UnreadableImage("cannot identify image file", reason) from error
    except Exception as error:  # as for `_load`
        raise UnreadableImage(str(error) or type(error).__name__, DAMAGED) from error
    width, height = image.size
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        text = f"it must have at most {MAX_PIXELS} pixels and no side above {MAX_SIDE}, not {width} x {height}"
        raise UnreadableImage(text, SIZE)
    return image


def _start(file):
    """The first bytes of a file."""
    if hasattr(file, "read"):
        file.seek(0)
        return file.read(16)
    with open(file, "rb") as opened:
        return opened.read(16)


def _orientation(image):
    """The orientation in the Exif data of an image whose header is read; 1 where there is none."""
    data = image.info.get("exif")
    # Pillow itself turns a TIFF when it is loaded.
    return exif_orientation(data) if isinstance(data, bytes) and image.format != "TIFF" else 1


def exif_orientation(data):
    """Reads the orientation in Exif data.

    `PIL.Image.Exif` reads more, and differs from the graph where the data are damaged.

    Args:
        data: bytes, a TIFF header and its first directory, with or without `Exif` in front.

    Returns:
        int, 1 to 8; 1 (not rotated) if there is none or it cannot be read.

    Source: Exif 2.32 (CIPA DC-008), sections 4.5.4, 4.6.2 and 4.6.4.
    """
    data = data.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 8:
        return 1
    (directory,) = struct.unpack_from(order + "I", data, 4)
    if len(data) < directory + 2:
        return 1
    (count,) = struct.unpack_from(order + "H", data, directory)
    for position in range(directory + 2, directory + 2 + 12 * min(count, _MOST_ENTRIES), 12):
        if len(data) < position + 12:
            break
        tag, kind = struct.unpack_from(order + "HH", data, position)
        if tag == _ORIENTATION:
            (value,) = struct.unpack_from(order + _TYPES[kind], data, position + 8) if kind in _TYPES else (1,)
            return value if 1 <= value <= 8 else 1
    return 1
