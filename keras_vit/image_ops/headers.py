"""Reads format and size from the first bytes of an encoded image, as graph operations, before it is decoded."""

import tensorflow as tf

FORMATS = ("jpeg", "png", "webp", "bmp", "gif")
LENGTH = 72


def header(data):
    """The first bytes of an image.

    Args:
        data: scalar string tensor.

    Returns:
        int32 tensor `(LENGTH,)`, zeros behind the end of a short string.
    """
    return tf.cast(tf.io.decode_raw(data, tf.uint8, fixed_length=LENGTH), tf.int32)


def format_index(head, formats=FORMATS):
    """Detects the format of an image.

    Args:
        head: from `header`.
        formats: those of `FORMATS` that are accepted.

    Returns:
        Scalar int32 tensor, the index in `formats`; their number where it is none of them.
    """
    magic = {
        "jpeg": _is(head, 0, b"\xff\xd8\xff"),
        "png": _is(head, 0, b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"),
        "webp": _is(head, 0, b"RIFF") & _is(head, 8, b"WEBP"),
        "bmp": _is(head, 0, b"BM"),
        "gif": _is(head, 0, b"GIF87a") | _is(head, 0, b"GIF89a"),
    }
    matches = [magic[name] for name in formats] + [tf.constant(True)]
    return tf.argmax(tf.cast(tf.stack(matches), tf.int32), output_type=tf.int32)


def png_size(head):
    """`(height, width)` of the IHDR chunk, int64."""
    return _big_endian(head, 20), _big_endian(head, 16)


def is_animated_webp(head):
    """Returns whether a WebP has frames; scalar bool tensor."""
    return _is(head, 12, b"VP8X") & (head[20] & 2 > 0)


def webp_size(head):
    """`(height, width)`, int64, of the canvas or of the lossy or lossless bitstream; `(0, 0)` where there is none.

    libwebp refuses a bitstream that is larger than its canvas.

    Source: RFC 9649, sections 2.5 to 2.7 and 3.4.
    """
    lossy = _little_endian(head, 28, 2) & 0x3FFF, _little_endian(head, 26, 2) & 0x3FFF
    packed = _little_endian(head, 21, 4)
    lossless = (packed // 2**14 & 0x3FFF) + 1, (packed & 0x3FFF) + 1
    canvas = _little_endian(head, 27, 3) + 1, _little_endian(head, 24, 3) + 1
    size = tf.zeros(2, tf.int64)
    for is_kind, sides in (
        (_is(head, 12, b"VP8 ") & _is(head, 23, b"\x9d\x01\x2a"), lossy),
        (_is(head, 12, b"VP8L") & _is(head, 20, b"\x2f"), lossless),
        (_is(head, 12, b"VP8X"), canvas),
    ):
        size = tf.where(is_kind, tf.stack(sides), size)
    return size[0], size[1]


def bmp_fields(head):
    """A bitmap's `height`, `width`, `bits` a pixel, `palette` position and `colors`, and whether it is `plain`.

    Plain are the headers with sizes of four bytes, and pixels that are not compressed, with a byte a channel.
    """
    # The height is negative where the first row is the upper one.
    height, width = (tf.abs(_signed(_little_endian(head, at, 4))) for at in (22, 18))
    info, bits, compression = (_little_endian(head, at, count) for at, count in ((14, 4), (28, 2), (30, 4)))
    colors = tf.minimum(_little_endian(head, 46, 4), 256)  # 0 stands for all
    masks = _is(head, 54, b"\0\0\xff\0\0\xff\0\0\xff\0\0\0")
    return {
        "height": height,
        "width": width,
        "bits": bits,
        "palette": 14 + info,
        "colors": tf.where(colors == 0, tf.constant(256, tf.int64), colors),
        "plain": (info >= 40) & (info <= 124) & ((compression == 0) | ((compression == 3) & (bits == 32) & masks)),
    }


def gif_screen(head):
    """`height` and `width` of the logical screen, and the position behind the global colors, int32."""
    width, height = head[6] + 256 * head[7], head[8] + 256 * head[9]
    return height, width, 13 + color_bytes(head[10])


def color_bytes(flags):
    """Returns the bytes of a GIF's color table, from the byte with its flag and size."""
    return tf.where(flags >= 128, 3 * tf.bitwise.left_shift(2, flags & 7), 0)


def _is(head, position, text):
    return tf.reduce_all(head[position : position + len(text)] == tf.constant(list(text)))


def _little_endian(head, position, count):
    """An unsigned number of `count` bytes, int64."""
    factors = tf.constant([256**i for i in range(count)], tf.int64)
    return tf.reduce_sum(tf.cast(head[position : position + count], tf.int64) * factors)


def _big_endian(head, position):
    return _little_endian(head[position : position + 4][::-1], 0, 4)


def _signed(number):
    return tf.where(number >= 2**31, number - 2**32, number)
