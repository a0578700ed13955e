"""Walks through the parts of JPEG, PNG, WebP and GIF files, as graph operations, so that a decoder gets what is used.

Text and profiles of a PNG, in front of its pixels or behind them, may each grow a thousand times when a decoder
unpacks them; TensorFlow decodes all frames of a GIF to return the first, and TensorFlow 2.21 writes beyond its memory
when it decodes some animated WebPs: all are cut down before they are decoded. Of a JPEG the scans are counted. Exif
data are found on the way.
"""

import tensorflow as tf

from keras_vit.image_ops.headers import color_bytes, header, is_animated_webp

# A step takes some 25 microseconds. Enough for 128 MB of a PNG's pixels in libpng's chunks of 8 kB, and for 4 MB of
# a frame of a GIF; what stands before the pixels has less.
_MOST_PIXEL_STEPS = 16_384
_MOST_OTHER_STEPS = 4_096
_MOST_MARKERS = 1_024
_MOST_SEGMENTS = 512  # of a JPEG and of a WebP that are looked at for Exif data
_EXIF = b"Exif\0\0"
_PNG_HEADER = 33  # the signature and the IHDR chunk
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"


def jpeg_scans(data):
    """Counts the scans of a JPEG, those of embedded previews included; scalar int32 tensor.

    A marker may also stand in other data than pixels by chance, but hardly with the length that belongs to it.

    Source: ITU T.81, annex B.2.3.
    """
    parts = tf.raw_ops.StringSplitV2(input=[data], sep=b"\xff\xda", maxsplit=_MOST_MARKERS).values
    length_and_count = tf.cast(tf.io.decode_raw(parts[1:], tf.uint8, fixed_length=3), tf.int32)
    high, low, count = tf.unstack(length_and_count, axis=1)
    scans = (high == 0) & (low == 6 + 2 * count) & (count >= 1) & (count <= 4)
    # Where the search had to end, there may be any number of them.
    return tf.where(tf.size(parts) > _MOST_MARKERS, tf.int32.max, tf.reduce_sum(tf.cast(scans, tf.int32)))


def has_exif(data):
    """Returns whether the name of Exif data stands anywhere in a file; scalar bool tensor."""
    parts = tf.raw_ops.StringSplitV2(input=[data], sep=_EXIF, maxsplit=1).values
    return tf.size(parts) > 1


def jpeg_exif(data):
    """The Exif data of a JPEG, scalar string tensor; empty where there are none.

    Source: Exif 2.32 (CIPA DC-008), section 4.7.2.
    """

    def bytes_at(position, count):
        taken = tf.strings.substr(data, tf.minimum(position, tf.strings.length(data)), count)
        return tf.cast(tf.io.decode_raw(taken, tf.uint8, fixed_length=count), tf.int32)

    def is_exif(position, head):
        return (head[1] == 0xE1) & (tf.strings.substr(data, position + 4, 6) == _EXIF)

    def is_other(position, head):
        # The metadata end where the pixels begin, at the latest.
        is_segment = (head[0] == 0xFF) & (head[1] != 0xDA) & (head[1] != 0xD9)
        return is_segment & tf.logical_not(tf.cond(is_segment, lambda: is_exif(position, head), lambda: False))

    def skip(position, head):
        # Bytes of 0xff may fill the space in front of a marker.
        position = position + tf.where(head[1] == 0xFF, 1, 2 + tf.maximum(256 * head[2] + head[3], 2))
        return position, bytes_at(position, 4)

    def walk():
        start = tf.constant(2)
        loop = tf.while_loop(is_other, skip, (start, bytes_at(start, 4)), maximum_iterations=_MOST_SEGMENTS)
        position, head = loop
        found = (head[0] == 0xFF) & (head[1] == 0xE1)
        found = tf.cond(found, lambda: is_exif(position, head), lambda: False)
        length = tf.maximum(256 * head[2] + head[3] - 2, 0)
        return tf.cond(found, lambda: tf.strings.substr(data, position + 4, length), lambda: tf.constant(b""))

    # A walk takes longer than to decode a small image, so it is taken only where the name stands somewhere.
    return tf.cond(has_exif(data), walk, lambda: tf.constant(b""))


def png_core(data):
    """A PNG without any chunk that a decoder of RGB does not need: header, palette and pixels are left.

    Args:
        data: scalar string tensor, a PNG whose first chunk is IHDR.

    Returns:
        Two scalar string tensors, the PNG and its Exif data, which are empty where there are none.

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

    def skip(position, kind, palette, palette_end, exif):
        end, end_kind = following(position)
        is_palette = kind == b"PLTE"
        exif = tf.where(kind == b"eXIf", position, exif)
        return end, end_kind, tf.where(is_palette, position, palette), tf.where(is_palette, end, palette_end), exif

    def skip_behind(position, kind, exif):
        return *following(position), tf.where(kind == b"eXIf", position, exif)

    start = tf.constant(_PNG_HEADER)
    pixels, kind, palette, palette_end, exif = tf.while_loop(
        lambda position, kind, *_: kind != b"IDAT",
        skip,
        (start, tf.strings.substr(data, start + 4, 4), start, start, tf.constant(0)),
        maximum_iterations=_MOST_OTHER_STEPS,
    )
    end, kind = tf.while_loop(
        lambda position, kind: kind == b"IDAT",
        lambda position, kind: following(position),
        (pixels, kind),
        maximum_iterations=_MOST_PIXEL_STEPS,
    )
    # The data may end behind the pixels, and what comes there is not needed: nothing fails here.
    _, _, exif = tf.while_loop(
        lambda position, kind, exif: (kind != b"IEND") & (position + 12 <= size),
        skip_behind,
        (end, kind, exif),
        maximum_iterations=_MOST_SEGMENTS,
    )
    check = tf.debugging.Assert((end > pixels) & (kind != b"IDAT"), ["a PNG must have pixels, in not too many chunks"])
    with tf.control_dependencies([check]):
        ranges = ((0, _PNG_HEADER), (palette, palette_end), (pixels, end))
        parts = [tf.strings.substr(data, start, end - start) for start, end in ranges]

    def body():
        length = tf.io.decode_raw(tf.strings.substr(data, exif, 4), tf.int32, little_endian=False)[0]
        return tf.strings.substr(data, exif + 8, tf.clip_by_value(length, 0, size))

    return tf.strings.join([*parts, _PNG_END]), tf.cond(exif > 0, body, lambda: tf.constant(b""))


def webp_core(data):
    """A WebP of its first image alone: of an animation the first frame, in any case without metadata.

    Args:
        data: scalar string tensor, a WebP.

    Returns:
        A dict: `data`, a WebP without animation; `top`, `left`, int32, where it lies on the canvas; `exif`, the Exif
        data, a scalar string tensor, empty where there are none.

    Raises:
        InvalidArgumentError: if an animation has no frame.

    Source: RFC 9649, sections 2.3 to 2.7.
    """
    head = header(data)
    is_extended = tf.strings.substr(data, 12, 4) == b"VP8X"
    return tf.cond(is_extended, lambda: _extended_webp(data, head), lambda: _whole_webp(data))


def _whole_webp(data):
    return {"data": data, "top": tf.constant(0), "left": tf.constant(0), "exif": tf.constant(b"")}


def _extended_webp(data, head):
    size = tf.strings.length(data)

    def number(position, count):
        """An unsigned number of `count` bytes, int32; zeros stand beyond the end."""
        taken = tf.strings.substr(data, tf.minimum(position, size), count)
        taken = tf.cast(tf.io.decode_raw(taken, tf.uint8, fixed_length=count), tf.int64)
        return tf.cast(tf.minimum(tf.reduce_sum(taken * [256**i for i in range(count)]), 2**30), tf.int32)

    def kind_at(position):
        return tf.strings.substr(data, tf.minimum(position, size), 4)

    def following(position):
        length = tf.minimum(number(position + 4, 4), size)
        return tf.minimum(position + 8 + length + length % 2, size)

    def skip(position, frame, exif):
        kind = kind_at(position)
        frame = tf.where((kind == b"ANMF") & (frame == 0), position, frame)
        return following(position), frame, tf.where((kind == b"EXIF") & (exif == 0), position, exif)

    is_animated, has_exif = is_animated_webp(head), head[20] & 8 > 0
    _, frame, exif = tf.while_loop(
        # Without Exif data the walk ends at the first frame.
        lambda position, frame, exif: (
            (position + 8 <= size) & ((is_animated & (frame == 0)) | (has_exif & (exif == 0)))
        ),
        skip,
        (tf.constant(12), tf.constant(0), tf.constant(0)),
        maximum_iterations=_MOST_SEGMENTS,
    )

    def first_frame():
        check = tf.debugging.Assert(frame > 0, ["an animated WebP must have a frame"])
        with tf.control_dependencies([check]):
            end = following(frame)
        pixels = tf.while_loop(
            # Alpha may stand in front of the colors, and other data.
            lambda position: (position + 8 <= end) & (kind_at(position) != b"VP8 ") & (kind_at(position) != b"VP8L"),
            lambda position: (following(position),),
            (frame + 24,),
            maximum_iterations=_MOST_SEGMENTS,
        )[0]
        body = tf.strings.substr(data, pixels, tf.minimum(following(pixels), end) - pixels)
        total = tf.strings.length(body) + 4
        byte = tf.constant([bytes([i]) for i in range(256)])
        digits = tf.strings.reduce_join(
            tf.gather(byte, [total % 256, total // 256 % 256, total // 2**16 % 256, total // 2**24])
        )
        still = tf.strings.join([b"RIFF", digits, b"WEBP", body])
        return still, 2 * number(frame + 11, 3), 2 * number(frame + 8, 3)

    still, top, left = tf.cond(is_animated, first_frame, lambda: (data, tf.constant(0), tf.constant(0)))
    length = tf.minimum(number(exif + 4, 4), size)
    found = tf.cond(exif > 0, lambda: tf.strings.substr(data, exif + 8, length), lambda: tf.constant(b""))
    return {"data": still, "top": top, "left": left, "exif": found}


def gif_frame(data, position):
    """The first frame of a GIF.

    Args:
        data: scalar string tensor.
        position: scalar int32 tensor, of the first block, behind the global colors.

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
    first = frame + 11 + color_bytes(place[8])  # behind the colors and the width of the codes
    last, length = tf.while_loop(
        lambda position, length: length > 0,
        lambda position, length: (position + length + 1, byte(position + length + 1)),
        (first, byte(first)),
        maximum_iterations=_MOST_PIXEL_STEPS,
    )
    with tf.control_dependencies([tf.debugging.Assert(length == 0, ["a frame must not have too many blocks"])]):
        pixels = tf.strings.substr(data, frame + 5, last + 1 - (frame + 5))
    # Without the extensions in front of the frame, which may make a color transparent: TensorFlow would paint it black.
    only = tf.strings.join([tf.strings.substr(data, 0, position), b",\0\0\0\0", pixels, b";"])
    return {"data": only, "top": top, "left": left, "height": height, "width": width}
