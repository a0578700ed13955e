"""Walks through the parts of JPEG, PNG and GIF files, as graph operations, so that a decoder gets no more than is used.

Text and profiles of a PNG, in front of its pixels or behind them, may each grow a thousand times when a decoder
unpacks them, and TensorFlow decodes all frames of a GIF to return the first: both are cut down before they are decoded.
Of a JPEG the scans are counted.
"""

import tensorflow as tf

from keras_vit.export.headers import color_bytes

# A step takes some 25 microseconds. Enough for 128 MB of a PNG's pixels in libpng's chunks of 8 kB, and for 4 MB of
# a frame of a GIF; what stands before the pixels has less.
_MOST_PIXEL_STEPS = 16_384
_MOST_OTHER_STEPS = 4_096
_MOST_MARKERS = 1_024
_PNG_HEADER = 33  # the signature and the IHDR chunk
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"


def jpeg_scans(data):
    """How many scans a JPEG has at most, those of previews inside it included; scalar int32 tensor.

    A marker may also stand in other data than pixels by chance, but hardly with the length that belongs to it.

    Source: ITU T.81, annex B.2.3.
    """
    parts = tf.raw_ops.StringSplitV2(input=[data], sep=b"\xff\xda", maxsplit=_MOST_MARKERS).values
    length_and_count = tf.cast(tf.io.decode_raw(parts[1:], tf.uint8, fixed_length=3), tf.int32)
    high, low, count = tf.unstack(length_and_count, axis=1)
    scans = (high == 0) & (low == 6 + 2 * count) & (count >= 1) & (count <= 4)
    # Where the search had to end, there may be any number of them.
    return tf.where(tf.size(parts) > _MOST_MARKERS, tf.int32.max, tf.reduce_sum(tf.cast(scans, tf.int32)))


def png_core(data):
    """A PNG without any chunk that a decoder of RGB does not need: header, palette and pixels are left.

    Args:
        data: scalar string tensor, a PNG whose first chunk is IHDR.

    Returns:
        Scalar string tensor.

    Raises:
        InvalidArgumentError: if there are no pixels, too many chunks, or a chunk reaches beyond the end.

    Source: PNG specification (third edition), section 5.
    """
    size = tf.strings.length(data)

    def following(position):
        """The next chunk's position, and the kind of the chunk there."""
        length = tf.io.decode_raw(tf.strings.substr(data, position, 4), tf.int32, little_endian=False)[0]
        # A length with the highest bit set is none. At the end of the string the walk ends with an error.
        length = tf.where(length < 0, size, tf.minimum(length, size))
        position = tf.minimum(position + length + 12, size)
        return position, tf.strings.substr(data, position + 4, 4)

    def skip(position, kind, palette, palette_end):
        end, end_kind = following(position)
        is_palette = kind == b"PLTE"
        return end, end_kind, tf.where(is_palette, position, palette), tf.where(is_palette, end, palette_end)

    start = tf.constant(_PNG_HEADER)
    pixels, kind, palette, palette_end = tf.while_loop(
        lambda position, kind, *_: kind != b"IDAT",
        skip,
        (start, tf.strings.substr(data, start + 4, 4), start, start),
        maximum_iterations=_MOST_OTHER_STEPS,
    )
    end, kind = tf.while_loop(
        lambda position, kind: kind == b"IDAT",
        lambda position, kind: following(position),
        (pixels, kind),
        maximum_iterations=_MOST_PIXEL_STEPS,
    )
    check = tf.debugging.Assert((end > pixels) & (kind != b"IDAT"), ["a PNG must have pixels, in not too many chunks"])
    with tf.control_dependencies([check]):
        ranges = ((0, _PNG_HEADER), (palette, palette_end), (pixels, end))
        parts = [tf.strings.substr(data, start, end - start) for start, end in ranges]
    return tf.strings.join([*parts, _PNG_END])


def gif_frame(data, position):
    """The first frame of a GIF.

    Args:
        data: scalar string tensor.
        position: scalar int32 tensor, of the first block, behind the global colours.

    Returns:
        A dict: `data`, a GIF of that frame alone, at the upper left corner; `top`, `left`, `height`, `width`, int32.

    Raises:
        InvalidArgumentError: if there is no whole frame, or one of too many blocks.

    Source: GIF89a specification, sections 18 to 24.
    """

    def byte(position):
        return tf.cast(tf.io.decode_raw(tf.strings.substr(data, position, 1), tf.uint8)[0], tf.int32)

    def skip(position, value, inside):
        """One block of an extension, or the two bytes that begin one; the block of length 0 ends it."""
        following = position + tf.where(inside, value + 1, 2)
        return following, byte(following), ~inside | (value > 0)

    frame, kind, _ = tf.while_loop(
        lambda position, value, inside: inside | (value == ord("!")),
        skip,
        (position, byte(position), tf.constant(False)),
        maximum_iterations=_MOST_OTHER_STEPS,
    )
    with tf.control_dependencies([tf.debugging.Assert(kind == ord(","), ["a GIF must have a frame"])]):
        place = tf.cast(tf.io.decode_raw(tf.strings.substr(data, frame + 1, 9), tf.uint8), tf.int32)
    left, top, width, height = tf.unstack(tf.reduce_sum(tf.reshape(place[:8], (4, 2)) * [1, 256], 1))
    first = frame + 11 + color_bytes(place[8])  # behind the colours and the width of the codes
    last, length = tf.while_loop(
        lambda position, length: length > 0,
        lambda position, length: (position + length + 1, byte(position + length + 1)),
        (first, byte(first)),
        maximum_iterations=_MOST_PIXEL_STEPS,
    )
    with tf.control_dependencies([tf.debugging.Assert(length == 0, ["a frame must not have too many blocks"])]):
        pixels = tf.strings.substr(data, frame + 5, last + 1 - (frame + 5))
    only = tf.strings.join([tf.strings.substr(data, 0, frame + 1), b"\0\0\0\0", pixels, b";"])
    return {"data": only, "top": top, "left": left, "height": height, "width": width}
