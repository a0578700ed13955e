"""Encoded images of anybody to pixels of the model's size, as graph operations, row by row: a bad one harms no other.

Nothing is decoded before its header has told that it is small enough, and `try_recover_truncated` is never used: it
hangs on some files.
"""

import functools

import tensorflow as tf

from keras_vit.data.preprocess import resample, whole_pixels
from keras_vit.export import headers
from keras_vit.export.orientation import orientation, turn_upright
from keras_vit.export.walks import gif_frame, jpeg_scans, png_core

MAX_PIXELS = 2**25  # the cameras of 33 megapixels
# Of an image while it is decoded, for each pixel, at most: a progressive JPEG of CMYK, four coefficients of two bytes
# beside its colours; of others 6 to 9.
BYTES_A_PIXEL = 11
# WebP's limit. The resize needs memory for a side of the image times one of the model.
MAX_SIDE = 2**14
# As many images of a batch are decoded at the same time at most. A server computes as many batches at the same time as
# it has cores, so images take PARALLEL * cores * BYTES_A_PIXEL * max_pixels bytes at most: see `server_memory`.
PARALLEL = 4
# Scans of a progressive JPEG, each of which may hardly need a byte and takes 2 ms a megapixel.
_MOST_SCANS = 32
# Metadata of a PNG, or a film behind a JPEG, beside eight bytes a pixel.
_OTHER_BYTES = 2**24

# What is wrong with an image: nothing, it cannot be decoded to its end, it is of no accepted format, it is too large.
VALID, DAMAGED, FORMAT, SIZE = range(4)


def decode_images(strings, input_spec, formats=headers.FORMATS, max_pixels=MAX_PIXELS, upright=True, find=None):
    """Decodes, resizes and crops a batch of encoded images.

    Args:
        strings: string tensor `(n,)`.
        input_spec: `InputSpec`, of one channel or three.
        formats: those of `headers.FORMATS` that are accepted.
        max_pixels: int. Images with more are refused unseen.
        upright: bool. Whether a JPEG is turned as its Exif orientation says.
        find: callable from a scalar string tensor to the encoded image in it, or `None`.

    Returns:
        Pixels, uint8 tensor `(n, *input_spec.size, channels)`, zeros where an image is bad; and int32 `(n,)`: `VALID`,
        `DAMAGED`, `FORMAT` or `SIZE`.
    """
    row = functools.partial(
        decode_image, input_spec=input_spec, formats=formats, max_pixels=max_pixels, upright=upright
    )

    @tf.autograph.experimental.do_not_convert
    def numbered(number, data):
        return number, *row(data if find is None else find(data))

    count = tf.size(strings, out_type=tf.int64)
    rows = tf.data.Dataset.from_tensor_slices((tf.range(count), strings))
    # What raises is left out, which the numbers of the others tell.
    rows = rows.map(numbered, num_parallel_calls=PARALLEL, deterministic=False).ignore_errors()
    empty = tf.zeros((*input_spec.size, input_spec.num_channels), tf.uint8)
    rows = rows.concatenate(tf.data.Dataset.from_tensors((count, empty, DAMAGED)))
    options = tf.data.Options()
    options.autotune.enabled = False
    rows = rows.batch(count + 1).with_options(options)
    numbers, pixels, reasons = rows.get_single_element()
    # The last row stands for all that are missing.
    found = tf.shape(numbers, out_type=tf.int64)[0]
    places = tf.tensor_scatter_nd_update(tf.fill([count + 1], found - 1), numbers[:, None], tf.range(found))[:count]
    return tf.gather(pixels, places), tf.gather(reasons, places)


def decode_image(data, input_spec, formats=headers.FORMATS, max_pixels=MAX_PIXELS, upright=True):
    """Decodes, resizes and crops one encoded image; of animations the first frame.

    Alpha is dropped, 16 bits are cut to 8, and one channel is made of three as Pillow does it.

    Args:
        data: scalar string tensor.
        input_spec, formats, max_pixels, upright: as for `decode_images`.

    Returns:
        Pixels, uint8 tensor `(*input_spec.size, channels)`, and a scalar int32 tensor: `VALID`, `FORMAT` or `SIZE`;
        the pixels are zeros unless it is `VALID`.

    Raises:
        InvalidArgumentError: when it runs, if the image is damaged.
    """
    head = headers.header(data)
    guard, branches = _Guard(max_pixels, upright), []
    for name in formats:
        branches.append(functools.partial(_DECODERS[name], data, head, guard))
    branches.append(functools.partial(_refuse, FORMAT))
    image, reason = tf.switch_case(headers.format_index(head, formats), branches)
    pixels = resample(image, input_spec)
    if input_spec.num_channels == 1:
        # Before it is rounded: so the result is within two grey levels of Pillow's, which converts first.
        pixels = tf.tensordot(tf.cast(pixels, tf.float32), tf.constant([19595, 38470, 7471], tf.float32) / 65536, 1)
        pixels = pixels[..., None]
    pixels = tf.cast(whole_pixels(pixels), tf.uint8)
    return tf.ensure_shape(pixels, (*input_spec.size, input_spec.num_channels)), reason


class _Guard:
    """What stands between a header and a decoder."""

    def __init__(self, max_pixels, upright):
        self.max_pixels = max_pixels
        self.upright = upright

    def __call__(self, height, width, decode, size=None):
        """What `decode` returns, an image and a reason, where the sides are allowed.

        Args:
            height, width: scalar integer tensors, as the header tells them.
            decode: callable without arguments.
            size: scalar int32 tensor, the bytes of the string, which the pixels bound; `None`: unbounded, as for films.
        """
        height, width = tf.cast(height, tf.int64), tf.cast(width, tf.int64)
        # Bounded before they are multiplied: their product might not fit into 64 bits.
        pixels = tf.minimum(height, MAX_SIDE + 1) * tf.minimum(width, MAX_SIDE + 1)
        allowed = (pixels > 0) & (pixels <= self.max_pixels) & (tf.maximum(height, width) <= MAX_SIDE)
        if size is not None:
            allowed &= tf.cast(size, tf.int64) <= 8 * pixels + _OTHER_BYTES
        return _either(allowed, decode, SIZE)


def _either(allowed, decode, otherwise):
    """What `decode` returns where it is allowed, else an image of one pixel and the reason `otherwise`."""
    image, reason = tf.cond(allowed, decode, functools.partial(_refuse, otherwise))
    return tf.ensure_shape(image, (None, None, 3)), reason


def _refuse(reason):
    return tf.zeros((1, 1, 3), tf.uint8), tf.constant(reason)


def _jpeg(data, head, guard):
    shape = tf.image.extract_jpeg_shape(data)
    height, width = shape[0], shape[1]

    def decode():
        image = tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")  # the DCT of Pillow
        return turn_upright(image, orientation(data)) if guard.upright else image, tf.constant(VALID)

    def decode_if_soon_done():
        work = tf.cast(jpeg_scans(data), tf.int64) * tf.cast(height, tf.int64) * tf.cast(width, tf.int64)
        return _either(work <= guard.max_pixels * _MOST_SCANS, decode, SIZE)

    return guard(height, width, decode_if_soon_done, tf.strings.length(data))


def _png(data, head, guard):
    def decode():
        return tf.io.decode_png(png_core(data), channels=3), tf.constant(VALID)

    return guard(*headers.png_size(head), decode, tf.strings.length(data))


def _webp(data, head, guard):
    def decode():
        # With `channels=3` TensorFlow refuses alpha. It returns frames, of which there is one.
        return tf.io.decode_webp(data)[0, ..., :3], tf.constant(VALID)

    def decode_still():
        # TensorFlow 2.21 writes beyond its memory when it decodes the first frame of some animations.
        return _either(~headers.is_animated_webp(head), decode, FORMAT)

    return guard(*headers.webp_size(head), decode_still, tf.strings.length(data))


def _bmp(data, head, guard):
    fields = headers.bmp_fields(head)

    def decode():
        return tf.io.decode_bmp(data)[..., :3], tf.constant(VALID)

    def decode_palette():
        # TensorFlow takes the numbers of the colours for greys.
        colors = tf.strings.substr(data, fields["palette"], 4 * fields["colors"])
        colors = tf.reshape(tf.io.decode_raw(colors, tf.uint8), (-1, 4))[:, 2::-1]
        return tf.gather(colors, tf.cast(tf.io.decode_bmp(data)[..., 0], tf.int32)), tf.constant(VALID)

    def decode_known():
        known = fields["plain"] & ((fields["bits"] == 24) | (fields["bits"] == 32))
        return _either(known, decode, FORMAT)

    def decode_either():
        image, reason = tf.cond(fields["plain"] & (fields["bits"] == 8), decode_palette, decode_known)
        return tf.ensure_shape(image, (None, None, 3)), reason

    return guard(fields["height"], fields["width"], decode_either)


def _gif(data, head, guard):
    height, width, first_block = headers.gif_screen(head)

    def decode():
        frame = gif_frame(data, first_block)
        inside = (frame["top"] + frame["height"] <= height) & (frame["left"] + frame["width"] <= width)

        def decode_frame():
            image = tf.io.decode_gif(frame["data"])[0]
            return tf.image.pad_to_bounding_box(image, frame["top"], frame["left"], height, width), tf.constant(VALID)

        return _either(inside, decode_frame, DAMAGED)

    return guard(height, width, decode)


_DECODERS = {"jpeg": _jpeg, "png": _png, "webp": _webp, "bmp": _bmp, "gif": _gif}
