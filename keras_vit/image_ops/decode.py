"""Decodes images from untrusted sources in the graph, row by row: a bad image affects no other.

This is the decoder of data sets, evaluation, prediction and served models. Its rules, which are also those of
`keras_vit.image_ops.pillow_reader`: the first frame of an animation; rotated by the Exif orientation; of 16 bits a
channel the upper 8; alpha is dropped and the colors under it kept; color profiles are not applied.

An image is decoded only after its header shows that it is small enough. `try_recover_truncated` is never used: it hangs
on some files.
"""

import dataclasses
import functools

import numpy as np
import tensorflow as tf

from keras_vit.image_ops import headers
from keras_vit.image_ops.chunks import gif_frame, has_exif, jpeg_exif, jpeg_scans, png_core, webp_core
from keras_vit.image_ops.exif import apply_orientation, exif_orientation, stored_window
from keras_vit.image_ops.pillow_reader import DAMAGED, FORMAT, SIZE, VALID, UnreadableImage, image_size, read_pixels
from keras_vit.image_ops.pillow_reader import MAX_PIXELS as DATA_MAX_PIXELS
from keras_vit.image_ops.pillow_reader import MAX_SIDE as DATA_MAX_SIDE
from keras_vit.image_ops.resize import fit_channels, resample, whole_pixels

# Limits of a served model.
MAX_PIXELS = 2**25  # the cameras of 33 megapixels
# WebP's limit. The resize needs memory for a side of the image times one of the model.
MAX_SIDE = 2**14
# Maximum memory of an image during decoding: a progressive JPEG of CMYK needs four coefficients of two bytes in
# addition to its colors; other images need 6 to 9 bytes a pixel.
BYTES_PER_PIXEL = 11
# Maximum number of images of a batch that are decoded at the same time. A server computes as many batches at the same
# time as it has cores, so images take at most PARALLEL * cores * BYTES_PER_PIXEL * max_pixels bytes: see
# `server_memory`.
PARALLEL = 4
# Scans of a progressive JPEG: each takes 2 ms a megapixel, even if it has only a few bytes.
_MAX_SCANS = 32
_SCAN_BYTES = 10  # minimum size of a scan
# Metadata of a PNG, or a video after a JPEG, in addition to eight bytes a pixel.
_MAX_METADATA_BYTES = 2**24
# Only this DCT computes the same pixels as Pillow.
_JPEG_OPTIONS = {"channels": 3, "dct_method": "INTEGER_ACCURATE"}
_NOT_INLINED = {"_noinline": True}  # attribute of a `tf.function`


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits on the images that are decoded.

    Args:
        formats: those of `headers.FORMATS` that are accepted.
        max_pixels, max_side: int. Images with more pixels or a longer side are rejected by their header.
        apply_exif_orientation: bool. Whether an image is rotated by its Exif orientation.
        pillow_fallback: bool. Whether images of other formats, such as TIFF, are decoded by Pillow in Python. Not for
            graphs that leave the process.
    """

    formats: tuple = headers.FORMATS
    max_pixels: int = MAX_PIXELS
    max_side: int = MAX_SIDE
    apply_exif_orientation: bool = True
    pillow_fallback: bool = False

    @property
    def size_rule(self):
        """str. The rule on sizes, for errors about rejected images."""
        return (
            f"an image of at most {self.max_pixels} pixels, no side longer than {self.max_side}, no needless scans or "
            "data"
        )

    def allow(self, height, width, size=None):
        """Returns whether an image of these sides is decoded; scalar bool tensor.

        Args:
            height, width: scalar integer tensors, from the header.
            size: scalar int32 tensor, the bytes of the string, limited by the number of pixels; `None`: no limit, for
                animations.
        """
        height, width, most = tf.cast(height, tf.int64), tf.cast(width, tf.int64), self.max_side
        # Limit the sides before the multiplication, whose result might not fit into 64 bits.
        pixels = tf.minimum(height, most + 1) * tf.minimum(width, most + 1)
        allowed = (pixels > 0) & (pixels <= self.max_pixels) & (tf.maximum(height, width) <= most)
        if size is not None:
            allowed &= tf.cast(size, tf.int64) <= 8 * pixels + _MAX_METADATA_BYTES
        return allowed


# For images of a data set. Each format in the graph costs about a second at the start of a data set, so it has the
# common ones; rare formats are decoded by Pillow, with the same pixels.
DATA_LIMITS = Limits(("jpeg", "png"), DATA_MAX_PIXELS, DATA_MAX_SIDE, pillow_fallback=True)
# For prediction outside of a server: as `DATA_LIMITS`, with the maximum sizes of a server.
PREDICTION_LIMITS = dataclasses.replace(DATA_LIMITS, max_pixels=MAX_PIXELS, max_side=MAX_SIDE)
# As `DATA_LIMITS`, for graphs that run in other processes.
PORTABLE_DATA_LIMITS = Limits(max_pixels=DATA_MAX_PIXELS, max_side=DATA_MAX_SIDE)


def decode_images(
    strings, input_spec, formats=headers.FORMATS, max_pixels=MAX_PIXELS, apply_exif_orientation=True, find=None
):
    """Decodes, resizes and crops a batch of encoded images.

    Args:
        strings: string tensor `(n,)`.
        input_spec: `InputSpec`, of one channel or three.
        formats: those of `headers.FORMATS` that are accepted.
        max_pixels: int. Images with more are rejected before decoding.
        apply_exif_orientation: bool. Whether an image is rotated by its Exif orientation.
        find: callable from a scalar string tensor to the encoded image in it, or `None`.

    Returns:
        Pixels, uint8 tensor `(n, *input_spec.size, channels)`, zeros where an image is bad; and int32 `(n,)`: `VALID`,
        `DAMAGED`, `FORMAT` or `SIZE`.
    """
    limits = Limits(formats=tuple(formats), max_pixels=max_pixels, apply_exif_orientation=apply_exif_orientation)
    row = _separate(decode_image, input_spec, limits)

    @tf.autograph.experimental.do_not_convert
    def numbered(number, data):
        return number, *row(data if find is None else find(data))

    count = tf.size(strings, out_type=tf.int64)
    rows = tf.data.Dataset.from_tensor_slices((tf.range(count), strings))
    # Rows that raise are dropped; the numbers of the remaining ones show which.
    rows = rows.map(numbered, num_parallel_calls=PARALLEL, deterministic=False).ignore_errors()
    empty = tf.zeros((*input_spec.size, input_spec.num_channels), tf.uint8)
    rows = rows.concatenate(tf.data.Dataset.from_tensors((count, empty, DAMAGED)))
    options = tf.data.Options()
    options.autotune.enabled = False
    rows = rows.batch(count + 1).with_options(options)
    numbers, pixels, reasons = rows.get_single_element()
    # The last row stands for all that are missing.
    num_rows = tf.shape(numbers, out_type=tf.int64)[0]
    missing = tf.fill([count + 1], num_rows - 1)
    indices = tf.tensor_scatter_nd_update(missing, numbers[:, None], tf.range(num_rows))[:count]
    return tf.gather(pixels, indices), tf.gather(reasons, indices)


def decode_image(data, input_spec, limits):
    """Decodes, resizes and crops one encoded image.

    Args:
        data: scalar string tensor.
        input_spec: `InputSpec`, of one channel or three.
        limits: `Limits`.

    Returns:
        Pixels, uint8 tensor `(*input_spec.size, channels)`, and a scalar int32 tensor: `VALID`, `DAMAGED`, `FORMAT` or
        `SIZE`; the pixels are zeros unless it is `VALID`.

    Raises:
        InvalidArgumentError: when it runs, if the image is damaged.
    """
    image, reason = decode(data, limits, num_channels=input_spec.num_channels)
    # Convert to gray before rounding.
    pixels = fit_channels(resample(image, input_spec), input_spec.num_channels)
    pixels = tf.cast(whole_pixels(pixels), tf.uint8)
    return tf.ensure_shape(pixels, (*input_spec.size, input_spec.num_channels)), reason


def decode(data, limits, window=None, num_channels=3):
    """Decodes one encoded image.

    Args:
        data: scalar string tensor.
        limits: `Limits`.
        window: callable from the size of the rotated image, an int32 tensor `(height, width)`, to the part of it to
            return, `(top, left, height, width)`; of a JPEG only this part is decoded. `None`: the whole image.
        num_channels: int, of the model. For 1 and 3 the result has three channels; others must be those of the image,
            which is a PNG where Pillow does not decode.

    Returns:
        uint8 tensor `(height, width, channels)` and a scalar int32 tensor: `VALID`, `DAMAGED`, `FORMAT` or `SIZE`; the
        image is one black pixel unless it is `VALID`.

    Raises:
        InvalidArgumentError: when it runs, if the image is damaged.
    """
    channels = 3 if num_channels in (1, 3) else num_channels

    def other():
        image, reason = _separate(_decode_other, limits, channels)(data)
        if window is not None:
            image = tf.cond(reason == VALID, lambda: _crop(image, window), lambda: image)
        return tf.ensure_shape(image, (None, None, channels)), reason

    if "jpeg" not in limits.formats or channels != 3:
        return other()
    image, reason = tf.cond(tf.io.is_jpeg(data), functools.partial(_decode_jpeg, data, limits, window), other)
    return tf.ensure_shape(image, (None, None, channels)), reason


def _not_inlined(function):
    """Wraps a function of a scalar string tensor so that it is not inlined into the graphs that call it.

    TensorFlow inlines other functions and then visits each of their operations for every image, even if the branch is
    not taken: 300 operations cost 70 microseconds, a call 9, and a call that is not made nearly nothing. A function
    that is not inlined is also not initialized before its first call.
    """
    traced = tf.function(
        function, [tf.TensorSpec((), tf.string)], autograph=False, experimental_attributes=_NOT_INLINED
    )
    # Outside of graphs each operation raises its own error.
    return lambda data: function(data) if tf.executing_eagerly() else traced(data)


@functools.cache
def _separate(function, *options):
    """Applies `_not_inlined` to a function with options; it is traced once in a process, and once in a graph."""
    return _not_inlined(lambda data: function(data, *options))


def _decode_other(data, limits, channels):
    """Decodes an image that is no JPEG; returns `(image, reason)`."""
    formats = [name for name in limits.formats if name != "jpeg" and (channels == 3 or name == "png")]
    guard = _Guard(limits, channels)
    branches = [functools.partial(_separate(_decode_format, name, limits, channels), data) for name in formats]
    branches.append(functools.partial(guard.refuse, FORMAT))
    decoded = tf.switch_case(headers.format_index(headers.header(data), formats), branches)
    if limits.pillow_fallback:
        decoded = tf.cond(decoded[2] == FORMAT, lambda: _decode_with_pillow(data, channels, limits), lambda: decoded)
    image, exif, reason = guard.shaped(*decoded)
    if limits.apply_exif_orientation:
        image = apply_orientation(image, _orientation(exif))
    return image, reason


def _decode_format(data, name, limits, channels):
    """Decodes an image of one format, see `_Guard`."""
    return _DECODERS[name](data, headers.header(data), _Guard(limits, channels))


def _orientation(exif):
    """Reads the orientation in Exif data, which most images do not have."""
    return tf.cond(tf.strings.length(exif) > 0, lambda: _separate(exif_orientation)(exif), lambda: tf.constant(1))


def _crop(image, window):
    """Crops a rotated image to its window."""
    top, left, height, width = tf.unstack(window(tf.shape(image)[:2]))
    return tf.slice(image, [top, left, 0], [height, width, -1])


def _decode_with_pillow(data, channels, limits):
    """Decodes an image of another format with Pillow, rotated by its Exif orientation."""

    def read(data):
        try:
            data = data if isinstance(data, bytes) else data.item()  # An array outside of graphs.
            height, width = image_size(data)
            if height * width > limits.max_pixels or max(height, width) > limits.max_side:
                return np.zeros((1, 1, channels), "uint8"), SIZE
            return read_pixels(data, channels), VALID
        except UnreadableImage as error:
            return np.zeros((1, 1, channels), "uint8"), error.reason

    image, reason = tf.numpy_function(read, [data], [tf.uint8, tf.int64], stateful=False)
    return (
        tf.ensure_shape(image, (None, None, channels)),
        tf.constant(b""),
        tf.cast(tf.ensure_shape(reason, ()), tf.int32),
    )


class _Guard:
    """Checks between a header and a decoder.

    Decoders return an image, its Exif data, a scalar string tensor, and a reason.
    """

    def __init__(self, limits, channels):
        self.limits = limits
        self.channels = channels

    def __call__(self, height, width, decode, size=None):
        """Applies `decode` if the sides are allowed.

        Args:
            height, width, size: as for `Limits.allow`.
            decode: callable without arguments.
        """
        return self.either(self.limits.allow(height, width, size), decode, SIZE)

    def either(self, allowed, decode, otherwise):
        """Applies `decode` if it is allowed, else returns an image of one pixel and the reason `otherwise`."""
        return self.shaped(*tf.cond(allowed, decode, functools.partial(self.refuse, otherwise)))

    def refuse(self, reason):
        """Returns one black pixel, and the reason."""
        return tf.zeros((1, 1, self.channels), tf.uint8), tf.constant(b""), tf.constant(reason)

    def shaped(self, image, exif, reason):
        """Restores the static shape that a `tf.cond` loses."""
        return tf.ensure_shape(image, (None, None, self.channels)), exif, reason


def _decode_jpeg(data, limits, window):
    """Decodes a JPEG; returns `(image, reason)`.

    Nearly all images of a data set need none of the checks of the general branch.
    """
    size = tf.image.extract_jpeg_shape(data)[:2]

    def decode_plain():
        if window is None:
            return tf.io.decode_jpeg(data, **_JPEG_OPTIONS), tf.constant(VALID)
        return tf.io.decode_and_crop_jpeg(data, window(size), **_JPEG_OPTIONS), tf.constant(VALID)

    if window is None:
        general = _separate(_decode_general_jpeg, limits)
    else:
        general = _not_inlined(lambda data: _decode_general_jpeg(data, limits, window))
    return tf.cond(is_plain_jpeg(data, size, limits), decode_plain, lambda: general(data))


def is_plain_jpeg(data, size, limits):
    """Returns whether a JPEG is within the limits and not rotated; scalar bool tensor, False if in doubt."""
    height, width, length = size[0], size[1], tf.strings.length(data)
    # Not less than the numbers of the general branch, and exact up to 2**53.
    sides = tf.cast(tf.stack([height, width, length]), tf.float64)
    pixels = sides[0] * sides[1]
    numbers = tf.stack([pixels, sides[0], sides[1], sides[2], pixels * sides[2]])
    most = [limits.max_pixels, limits.max_side, limits.max_side, _MAX_METADATA_BYTES]
    most.append(limits.max_pixels * _MAX_SCANS * _SCAN_BYTES)
    is_allowed = tf.reduce_all(numbers <= tf.constant(most, tf.float64)) & (pixels > 0)
    return is_allowed & ~has_exif(data) if limits.apply_exif_orientation else is_allowed


def _decode_general_jpeg(data, limits, window=None):
    """Decodes a JPEG of any kind; returns `(image, reason)`."""
    orientation, reason = _separate(_inspect_jpeg, limits)(data)

    def decode():
        if window is None:
            return apply_orientation(tf.io.decode_jpeg(data, **_JPEG_OPTIONS), orientation)
        size = tf.image.extract_jpeg_shape(data)[:2]
        upright_size = tf.where(orientation >= 5, size[::-1], size)
        stored = stored_window(window(upright_size), upright_size, orientation)
        return apply_orientation(tf.io.decode_and_crop_jpeg(data, stored, **_JPEG_OPTIONS), orientation)

    return tf.cond(reason == VALID, decode, lambda: tf.zeros((1, 1, 3), tf.uint8)), reason


def _inspect_jpeg(data, limits):
    """Reads the orientation of a JPEG, int32, and the reason not to decode it: `VALID` or `SIZE`."""
    size, length = tf.image.extract_jpeg_shape(data)[:2], tf.strings.length(data)
    pixels, most = tf.reduce_prod(tf.cast(size, tf.int64)), limits.max_pixels * _MAX_SCANS

    def has_few_scans():
        # A small file needs no count of its scans.
        is_small = pixels * (tf.cast(length, tf.int64) // _SCAN_BYTES) <= most
        return tf.cond(is_small, lambda: True, lambda: tf.cast(jpeg_scans(data), tf.int64) * pixels <= most)

    allowed = tf.cond(limits.allow(size[0], size[1], length), has_few_scans, lambda: False)
    orientation = tf.constant(1)
    if limits.apply_exif_orientation:
        orientation = tf.cond(allowed, lambda: _orientation(jpeg_exif(data)), lambda: tf.constant(1))
    return orientation, tf.where(allowed, VALID, SIZE)


def _png(data, head, guard):
    def decode():
        core, exif = png_core(data)
        return tf.io.decode_png(core, channels=3), exif, tf.constant(VALID)

    def decode_channels():
        core, exif = png_core(data)
        image = tf.io.decode_png(core, channels=0)
        right = tf.shape(image)[2] == guard.channels
        image = tf.cond(right, lambda: image, lambda: tf.zeros((1, 1, guard.channels), tf.uint8))
        return guard.shaped(image, exif, tf.where(right, VALID, FORMAT))

    return guard(*headers.png_size(head), decode if guard.channels == 3 else decode_channels, tf.strings.length(data))


def _webp(data, head, guard):
    height, width = headers.webp_size(head)

    def decode():
        core = webp_core(data)
        frame_height, frame_width = headers.webp_size(headers.header(core["data"]))
        # Frame of an animation; libwebp rejects a still image of another size than its canvas.
        bottom, right = frame_height + tf.cast(core["top"], tf.int64), frame_width + tf.cast(core["left"], tf.int64)

        def decode_frame():
            # With `channels=3` TensorFlow rejects alpha. It returns a list of one frame.
            image = tf.io.decode_webp(core["data"])[0, ..., :3]
            canvas = (core["top"], core["left"], tf.cast(height, tf.int32), tf.cast(width, tf.int32))
            is_whole = (frame_height == height) & (frame_width == width)
            image = tf.cond(is_whole, lambda: image, lambda: tf.image.pad_to_bounding_box(image, *canvas))
            return guard.shaped(image, core["exif"], tf.constant(VALID))

        inside = (frame_height > 0) & (frame_width > 0) & (bottom <= height) & (right <= width)
        return guard.either(inside, decode_frame, DAMAGED)

    return guard(height, width, decode, tf.strings.length(data))


def _bmp(data, head, guard):
    fields = headers.bmp_fields(head)

    def decode():
        return tf.io.decode_bmp(data)[..., :3], tf.constant(b""), tf.constant(VALID)

    def decode_palette():
        # TensorFlow returns the palette indices as gray levels.
        colors = tf.strings.substr(data, fields["palette"], 4 * fields["colors"])
        colors = tf.reshape(tf.io.decode_raw(colors, tf.uint8), (-1, 4))[:, 2::-1]
        image = tf.gather(colors, tf.cast(tf.io.decode_bmp(data)[..., 0], tf.int32))
        return image, tf.constant(b""), tf.constant(VALID)

    def decode_known():
        known = fields["plain"] & ((fields["bits"] == 24) | (fields["bits"] == 32))
        return guard.either(known, decode, FORMAT)

    def decode_either():
        return guard.shaped(*tf.cond(fields["plain"] & (fields["bits"] == 8), decode_palette, decode_known))

    return guard(fields["height"], fields["width"], decode_either)


def _gif(data, head, guard):
    height, width, first_block = headers.gif_screen(head)

    def decode():
        frame = gif_frame(data, first_block)
        inside = (frame["top"] + frame["height"] <= height) & (frame["left"] + frame["width"] <= width)

        def decode_frame():
            image = tf.io.decode_gif(frame["data"])[0]
            image = tf.image.pad_to_bounding_box(image, frame["top"], frame["left"], height, width)
            return image, tf.constant(b""), tf.constant(VALID)

        return guard.either(inside, decode_frame, DAMAGED)

    return guard(height, width, decode)


_DECODERS = {"png": _png, "webp": _webp, "bmp": _bmp, "gif": _gif}
