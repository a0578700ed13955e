"""The orientation that a camera wrote into a JPEG, as graph operations."""

import tensorflow as tf

_WINDOW = 1024
_MOST_ENTRIES = 64
_TAG = 0x0112


def orientation(data):
    """Reads the orientation of a JPEG.

    Args:
        data: scalar string tensor.

    Returns:
        Scalar int32 tensor, 1 to 8; 1, upright, where there is none that can be read. It is looked for where cameras
        and image libraries write it: in an Exif segment that is the first, or follows a JFIF header without a
        thumbnail, in the first kilobyte.

    Source: Exif 2.32 (CIPA DC-008), sections 4.5.4, 4.6.2 and 4.6.4.
    """
    window = tf.cast(tf.io.decode_raw(data, tf.uint8, fixed_length=_WINDOW), tf.int32)
    found = [tf.reduce_all(window[at : at + 6] == tf.constant(list(b"Exif\0\0"))) for at in (6, 24)]
    # Most images have none, so the rest is asked for only where there is one.
    return tf.cond(found[0] | found[1], lambda: _read(window[tf.where(found[0], 12, 30) :]), lambda: tf.constant(1))


def _read(tiff):
    """The orientation of a TIFF header: byte order, position of the directory, its entries of twelve bytes."""
    big = tiff[0] == ord("M")

    def number(positions, count):
        """The unsigned numbers of `count` bytes at positions; those beyond the window are any."""
        last = tf.shape(tiff)[0] - 1
        places = tf.clip_by_value(positions[..., None] + tf.range(count), 0, last)
        taken = tf.gather(tiff, places)
        taken = tf.where(big, taken, tf.reverse(taken, [-1]))
        return tf.reduce_sum(taken * tf.constant([256**i for i in reversed(range(count))]), -1)

    directory = number(tf.constant(4), 4)
    entries = directory + 2 + 12 * tf.range(_MOST_ENTRIES)
    inside = (entries > 0) & (entries + 12 <= tf.shape(tiff)[0])
    listed = tf.range(_MOST_ENTRIES) < number(directory, 2)
    is_orientation = inside & listed & (number(entries, 2) == _TAG)
    value = tf.reduce_max(tf.where(is_orientation, number(entries + 8, 2), 0))
    return tf.where((value >= 1) & (value <= 8), value, 1)


def turn_upright(image, orientation):
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
        kind = (orientation - 1) % 4
        flips = tf.stack([(kind == 2) | (kind == 3), (kind == 1) | (kind == 2), tf.constant(False)])
        return tf.raw_ops.Reverse(tensor=turned, dims=flips)

    return tf.ensure_shape(tf.cond(orientation == 1, lambda: image, turn), (None, None, image.shape[-1]))
