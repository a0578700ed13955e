"""Request validation in the graph: INVALID_ARGUMENT errors."""

import tensorflow as tf

from keras_vit.image_ops.decode import DAMAGED, FORMAT, MAX_SIDE, SIZE, VALID, Limits

# Variants of formats that TensorFlow does not decode.
_EXCEPTIONS = {"bmp": "no compressed BMP nor one of 1, 4 or 16 bits"}


def assert_readable(image_bytes, reasons, formats, max_pixels):
    """Asserts that all images are readable; the error names the first bad one, the rule and its number of bytes.

    Args:
        image_bytes: string tensor `(n,)`.
        reasons: int32 tensor `(n,)`, see `decode_images`.
        formats, max_pixels: as for `decode_images`.

    Returns:
        An operation that fails where an image is bad.
    """
    rules = {
        VALID: "",
        DAMAGED: "an image that can be decoded to its end",
        FORMAT: f"an image of one of the formats {', '.join(formats)}{_exceptions(formats)}",
        SIZE: Limits(max_pixels=max_pixels).size_rule,
    }
    texts = tf.constant([rules[reason] for reason in sorted(rules)])
    # A valid image is appended, for empty batches.
    reasons, lengths = tf.concat([reasons, [VALID]], 0), tf.concat([tf.strings.length(image_bytes), [0]], 0)
    row = tf.argmax(tf.cast(reasons != VALID, tf.int32))
    received = tf.strings.join([". Received: ", tf.strings.as_string(lengths[row]), " bytes"])
    text = ["image_bytes[", tf.strings.as_string(row), "] must be ", tf.gather(texts, reasons[row]), received]
    return tf.debugging.Assert(tf.reduce_all(reasons == VALID), [tf.strings.join(text)])


def _exceptions(formats):
    """Lists the unsupported variants of accepted formats, in parentheses."""
    kinds = [kind for name, kind in _EXCEPTIONS.items() if name in formats]
    return f" ({', '.join(kinds)})" if kinds else ""


def checked_images(images, channels, max_pixels):
    """Checks the shape of images, because a server passes tensors of any shape whatever the signature says.

    NaN and infinity, which gRPC can transmit, are rejected too: the answer would not be valid JSON.

    Args:
        images: tensor that should be `(batch, height, width, channels)`.
        channels: int.
        max_pixels: int, of one image.

    Returns:
        `images`, behind assertions.
    """
    # Remove the static shape, or TensorFlow would optimize the check away.
    shape = tf.shape(tf.raw_ops.PlaceholderWithDefault(input=images, shape=tf.TensorShape(None)), out_type=tf.int64)
    sides = shape[1:3]
    is_right = [
        tf.size(shape) == 4,
        tf.reduce_all(shape[-1:] == channels),
        tf.reduce_all((sides > 0) & (sides <= MAX_SIDE)),
        tf.reduce_prod(tf.minimum(sides, MAX_SIDE)) <= max_pixels,
    ]
    rule = (
        f"images must have the shape (batch, height, width, {channels}), at most {max_pixels} pixels each and no side "
        f"longer than {MAX_SIDE}. Received: shape=("
    )
    received = tf.strings.reduce_join(tf.strings.as_string(shape), separator=", ")
    text = tf.strings.join([rule, received, ")"])
    with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(tf.stack(is_right)), [text])]):
        images = tf.identity(images)
    if not images.dtype.is_floating:
        return images
    # The sum of an image is NaN or infinite if one of its numbers is; this needs no mask as large as the images.
    finite = tf.math.is_finite(tf.reduce_sum(images, (1, 2, 3)))
    # A valid image is appended, for empty batches.
    row = tf.argmin(tf.cast(tf.concat([finite, [True]], 0), tf.int32))
    text = ["images[", tf.strings.as_string(row), "] must be of finite numbers. Received: NaN or infinity"]
    with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(finite), [tf.strings.join(text)])]):
        return tf.identity(images)
