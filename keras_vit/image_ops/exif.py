"""The orientation that a camera wrote into an image, as graph operations."""

import tensorflow as tf

_MOST_ENTRIES = 256  # of a directory
_TAG = 0x0112
_SHORT, _LONG = 3, 4


def exif_orientation(exif):
    """Reads the orientation in Exif data, as `keras_vit.image_ops.pillow_reader.exif_orientation` does.

    Args:
        exif: scalar string tensor, a TIFF header and its first directory, with or without `Exif` in front; or empty.

    Returns:
        Scalar int32 tensor, 1 to 8; 1 (not rotated) if there is none or it cannot be read.

    Source: Exif 2.32 (CIPA DC-008), sections 4.5.4, 4.6.2 and 4.6.4.
    """
    # Most images have none, so the rest is done only where there is one.
    return tf.cond(tf.strings.length(exif) > 0, lambda: _read(exif), lambda: tf.constant(1))


def _read(exif):
    has_name = tf.strings.substr(exif, 0, 6) == b"Exif\0\0"
    start = tf.where(has_name, 6, 0)
    tiff = tf.strings.substr(exif, start, tf.strings.length(exif) - start)
    size, order = tf.strings.length(tiff), tf.strings.substr(tiff, 0, 2)
    is_big = order == b"MM"

    def number(data):
        """Unsigned numbers of the bytes of the last axis, int64."""
        data = tf.where(is_big, tf.reverse(data, [-1]), data)
        return tf.reduce_sum(tf.cast(data, tf.int64) * [256**i for i in range(data.shape[-1])], -1)

    def number_at(position, count):
        """A number of `count` bytes at a position; zero beyond the end."""
        position = tf.cast(tf.minimum(tf.cast(position, tf.int64), tf.cast(size, tf.int64)), tf.int32)
        data = tf.io.decode_raw(tf.strings.substr(tiff, position, count), tf.uint8, fixed_length=count)
        return number(data)

    directory = number_at(4, 4)
    count = tf.minimum(number_at(directory, 2), _MOST_ENTRIES)
    start = tf.minimum(directory + 2, tf.cast(size, tf.int64))
    whole = tf.minimum(count, (tf.cast(size, tf.int64) - start) // 12)  # entries that end within the data
    entries = tf.strings.substr(tiff, tf.cast(start, tf.int32), tf.cast(12 * whole, tf.int32))
    entries = tf.reshape(tf.io.decode_raw(entries, tf.uint8), (-1, 12))
    tags, kinds = number(entries[:, :2]), number(entries[:, 2:4])
    values = tf.where(kinds == _LONG, number(entries[:, 8:12]), number(entries[:, 8:10]))
    values = tf.where((kinds == _SHORT) | (kinds == _LONG), values, 1)
    # The first entry with the tag counts.
    is_tag = tags == _TAG
    values = tf.concat([tf.boolean_mask(values, is_tag), [1]], 0)
    is_right = ((order == b"II") | is_big) & (values[0] >= 1) & (values[0] <= 8) & (size >= 8)
    return tf.cast(tf.where(is_right, values[0], 1), tf.int32)


def apply_orientation(image, orientation):
    """Turns and mirrors an image as `PIL.ImageOps.exif_transpose` does.

    Args:
        image: tensor `(height, width, channels)`.
        orientation: scalar int32 tensor, 1 to 8.

    Returns:
        The image as a person is to see it.
    """

    def turn():
        turned = tf.cond(orientation >= 5, lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
        # As it is, mirrored, upside down, both: the same four behind the transposition.
        rows, columns = _flips(orientation)
        return tf.raw_ops.Reverse(tensor=turned, dims=tf.stack([rows, columns, tf.constant(False)]))

    return tf.ensure_shape(tf.cond(orientation == 1, lambda: image, turn), (None, None, image.shape[-1]))


def stored_window(window, size, orientation):
    """Maps a window of the rotated image to the stored image.

    Args:
        window: int32 tensor `(top, left, height, width)`.
        size: int32 tensor `(height, width)` of the rotated image.
        orientation: scalar int32 tensor, 1 to 8.

    Returns:
        int32 tensor `(top, left, height, width)`; its crop of the stored image, rotated by
            `apply_orientation`, is the window.
    """

    def stored():
        first, sides = window[:2], window[2:]
        flips = tf.stack(_flips(orientation))
        first = tf.where(flips, size - first - sides, first)
        order = tf.where(orientation >= 5, [1, 0], [0, 1])
        return tf.concat([tf.gather(first, order), tf.gather(sides, order)], 0)

    return tf.cond(orientation == 1, lambda: window, stored)


def _flips(orientation):
    """Returns whether `apply_orientation` mirrors the rows and the columns, behind the transposition."""
    kind = (orientation - 1) % 4
    return (kind == 2) | (kind == 3), (kind == 1) | (kind == 2)
