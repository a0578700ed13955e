"""Encoded images of anybody to pixels, as graph operations, row by row: a bad one harms no other.

The only decoder of data sets, evaluation, prediction and served models. Its rules, which are also those of
`keras_vit.image_ops.pillow_reader`: of an animation the first frame; upright as the Exif orientation says; 16 bits a
channel are cut to the upper 8; alpha is dropped and the colors under it kept; color profiles are not applied.

Nothing is decoded before its header has told that it is small enough, and `try_recover_truncated` is never used: it
hangs on some files.
"""

import dataclasses
import functools

import numpy as np
import tensorflow as tf

from keras_vit.image_ops import headers
from keras_vit.image_ops.chunks import gif_frame, has_exif, jpeg_exif, jpeg_scans, png_core, webp_core
from keras_vit.image_ops.exif import exif_orientation, stored_window, turn_upright
from keras_vit.image_ops.pillow_reader import DAMAGED, FORMAT, SIZE, VALID, UnreadableImage, image_size, read_pixels
from keras_vit.image_ops.pillow_reader import MAX_PIXELS as DATA_MAX_PIXELS
from keras_vit.image_ops.pillow_reader import MAX_SIDE as DATA_MAX_SIDE
from keras_vit.image_ops.resize import fit_channels, resample, whole_pixels

# Limits of a served model.
MAX_PIXELS = 2**25  # the cameras of 33 megapixels
# WebP's limit. The resize needs memory for a side of the image times one of the model.
MAX_SIDE = 2**14
# Of an image while it is decoded, for each pixel, at most: a progressive JPEG of CMYK, four coefficients of two bytes
# beside its colors; of others 6 to 9.
BYTES_A_PIXEL = 11
# As many images of a batch are decoded at the same time at most. A server computes as many batches at the same time as
# it has cores, so images take PARALLEL * cores * BYTES_A_PIXEL * max_pixels bytes at most: see `server_memory`.
PARALLEL = 4
# Scans of a progressive JPEG, each of which may hardly need a byte and takes 2 ms a megapixel.
_MOST_SCANS = 32
_SCAN_BYTES = 10  # a scan has at least so many
# Metadata of a PNG, or a film behind a JPEG, beside eight bytes a pixel.
_OTHER_BYTES = 2**24
# Only this DCT gives the pixels that Pillow gives.
_JPEG_OPTIONS = {"channels": 3, "dct_method": "INTEGER_ACCURATE"}
_NOT_INLINED = {"_noinline": True}  # of TensorFlow's functions


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits on the images that are decoded.

    Args:
        formats: those of `headers.FORMATS` that are accepted.
        max_pixels, max_side: int. Images with more pixels or a longer side are refused by their header.
        upright: bool. Whether an image is turned as its Exif orientation says.
        others: bool. Whether images of other formats, TIFF for example, are decoded by Pillow, in Python. Not for
            graphs that leave the process.
    """

    formats: tuple = headers.FORMATS
    max_pixels: int = MAX_PIXELS
    max_side: int = MAX_SIDE
    upright: bool = True
    others: bool = False

    @property
    def size_rule(self):
        """str. What an image must be that is refused for its size, for errors."""
        return (
            f"an image of at most {self.max_pixels} pixels, no side longer than {self.max_side}, no needless scans or "
            "data"
        )

    def allow(self, height, width, size=None):
        """Returns whether an image of these sides is decoded; scalar bool tensor.

        Args:
            height, width: scalar integer tensors, as the header tells them.
            size: scalar int32 tensor, the bytes of the string, which the pixels bound; `None`: unbounded, as for films.
        """
        height, width, most = tf.cast(height, tf.int64), tf.cast(width, tf.int64), self.max_side
        # Bounded before they are multiplied: their product might not fit into 64 bits.
        pixels = tf.minimum(height, most + 1) * tf.minimum(width, most + 1)
        allowed = (pixels > 0) & (pixels <= self.max_pixels) & (tf.maximum(height, width) <= most)
        if size is not None:
            allowed &= tf.cast(size, tf.int64) <= 8 * pixels + _OTHER_BYTES
        return allowed


# Of images of a data set. Each format in the graph costs a second or so where a data set is begun, so there are those
# in it of which data sets consist; what is rare comes from Pillow, with the same pixels.
DATA = Limits(("jpeg", "png"), DATA_MAX_PIXELS, DATA_MAX_SIDE, others=True)
# Of images that a model is asked about outside of a server: those of `DATA`, with the limits of a server.
ASKED = dataclasses.replace(DATA, max_pixels=MAX_PIXELS, max_side=MAX_SIDE)
# As `DATA`, for graphs that run in other processes.
PORTABLE_DATA = Limits(max_pixels=DATA_MAX_PIXELS, max_side=DATA_MAX_SIDE)


def decode_images(strings, input_spec, formats=headers.FORMATS, max_pixels=MAX_PIXELS, upright=True, find=None):
    """Decodes, resizes and crops a batch of encoded images.

    Args:
        strings: string tensor `(n,)`.
        input_spec: `InputSpec`, of one channel or three.
        formats: those of `headers.FORMATS` that are accepted.
        max_pixels: int. Images with more are refused unseen.
        upright: bool. Whether an image is turned as its Exif orientation says.
        find: callable from a scalar string tensor to the encoded image in it, or `None`.

    Returns:
        Pixels, uint8 tensor `(n, *input_spec.size, channels)`, zeros where an image is bad; and int32 `(n,)`: `VALID`,
        `DAMAGED`, `FORMAT` or `SIZE`.
    """
    limits = Limits(formats=tuple(formats), max_pixels=max_pixels, upright=upright)
    row = _separate(decode_image, input_spec, limits)

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
    # Gray is made before it is rounded.
    pixels = fit_channels(resample(image, input_spec), input_spec.num_channels)
    pixels = tf.cast(whole_pixels(pixels), tf.uint8)
    return tf.ensure_shape(pixels, (*input_spec.size, input_spec.num_channels)), reason


def decode(data, limits, window=None, num_channels=3):
    """Decodes one encoded image.

    Args:
        data: scalar string tensor.
        limits: `Limits`.
        window: callable from the size of the upright image, an int32 tensor `(height, width)`, to the part of it that
            is wanted, `(top, left, height, width)`; of a JPEG nothing else is turned into pixels. `None`: all of it.
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
        image, reason = _separate(_other, limits, channels)(data)
        if window is not None:
            image = tf.cond(reason == VALID, lambda: _cut(image, window), lambda: image)
        return tf.ensure_shape(image, (None, None, channels)), reason

    if "jpeg" not in limits.formats or channels != 3:
        return other()
    image, reason = tf.cond(tf.io.is_jpeg(data), functools.partial(_any_jpeg, data, limits, window), other)
    return tf.ensure_shape(image, (None, None, channels)), reason


def _not_inlined(function):
    """A function of a scalar string tensor that stays one in the graphs that call it.

    TensorFlow moves the operations of other functions among those around the call, and then passes over each of them
    for every image, also where the branch is not taken: 300 of them cost 70 microseconds, a call 9, and one that is
    not made nearly nothing. Nor is a function set up before its first call.
    """
    traced = tf.function(
        function, [tf.TensorSpec((), tf.string)], autograph=False, experimental_attributes=_NOT_INLINED
    )
    # Outside of graphs each operation has an error of its own.
    return lambda data: function(data) if tf.executing_eagerly() else traced(data)


@functools.cache
def _separate(function, *options):
    """`_not_inlined` of a function that takes options too, which is traced once in a process, and in a graph once."""
    return _not_inlined(lambda data: function(data, *options))


def _other(data, limits, channels):
    """`(image, reason)` of an image that is no JPEG."""
    formats = [name for name in limits.formats if name != "jpeg" and (channels == 3 or name == "png")]
    guard = _Guard(limits, channels)
    branches = [functools.partial(_separate(_by_format, name, limits, channels), data) for name in formats]
    branches.append(functools.partial(guard.refuse, FORMAT))
    decoded = tf.switch_case(headers.format_index(headers.header(data), formats), branches)
    if limits.others:
        decoded = tf.cond(decoded[2] == FORMAT, lambda: _by_pillow(data, channels, limits), lambda: decoded)
    image, exif, reason = guard.shaped(*decoded)
    if limits.upright:
        image = turn_upright(image, _orientation(exif))
    return image, reason


def _by_format(data, name, limits, channels):
    """Decodes an image of one format, see `_Guard`."""
    return _DECODERS[name](data, headers.header(data), _Guard(limits, channels))


def _orientation(exif):
    """The orientation in Exif data, which most images do not have."""
    return tf.cond(tf.strings.length(exif) > 0, lambda: _separate(exif_orientation)(exif), lambda: tf.constant(1))


def _cut(image, window):
    """The window of an upright image."""
    top, left, height, width = tf.unstack(window(tf.shape(image)[:2]))
    return tf.slice(image, [top, left, 0], [height, width, -1])


def _by_pillow(data, channels, limits):
    """Reads an image of another format with Pillow; it is upright."""

    def read(data):
        try:
            data = data if isinstance(data, bytes) else data.item()  # Outside of graphs an array comes.
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
        """Applies `decode` if it is allowed, else gives an image of one pixel and the reason `otherwise`."""
        return self.shaped(*tf.cond(allowed, decode, functools.partial(self.refuse, otherwise)))

    def refuse(self, reason):
        """One black pixel, and the reason."""
        return tf.zeros((1, 1, self.channels), tf.uint8), tf.constant(b""), tf.constant(reason)

    def shaped(self, image, exif, reason):
        """The same, with the shape that a `tf.cond` has lost."""
        return tf.ensure_shape(image, (None, None, self.channels)), exif, reason


def _any_jpeg(data, limits, window):
    """`(image, reason)` of a JPEG.

    Nearly all of a data set need none of the questions that the general branch asks.
    """
    size = tf.image.extract_jpeg_shape(data)[:2]

    def decode_plain():
        if window is None:
            return tf.io.decode_jpeg(data, **_JPEG_OPTIONS), tf.constant(VALID)
        return tf.io.decode_and_crop_jpeg(data, window(size), **_JPEG_OPTIONS), tf.constant(VALID)

    if window is None:
        general = _separate(_general_jpeg, limits)
    else:
        general = _not_inlined(lambda data: _general_jpeg(data, limits, window))
    return tf.cond(is_plain_jpeg(data, size, limits), decode_plain, lambda: general(data))


def is_plain_jpeg(data, size, limits):
    """Returns whether the general branch decodes a JPEG and does not turn it; scalar bool tensor, False if in doubt."""
    height, width, length = size[0], size[1], tf.strings.length(data)
    # Not less than what the general branch compares, and exact up to 2**53.
    sides = tf.cast(tf.stack([height, width, length]), tf.float64)
    pixels = sides[0] * sides[1]
    numbers = tf.stack([pixels, sides[0], sides[1], sides[2], pixels * sides[2]])
    most = [limits.max_pixels, limits.max_side, limits.max_side, _OTHER_BYTES]
    most.append(limits.max_pixels * _MOST_SCANS * _SCAN_BYTES)
    is_allowed = tf.reduce_all(numbers <= tf.constant(most, tf.float64)) & (pixels > 0)
    return is_allowed & ~has_exif(data) if limits.upright else is_allowed


def _general_jpeg(data, limits, window=None):
    """`(image, reason)` of a JPEG."""
    orientation, reason = _separate(_inspected_jpeg, limits)(data)

    def decode():
        if window is None:
            return turn_upright(tf.io.decode_jpeg(data, **_JPEG_OPTIONS), orientation)
        size = tf.image.extract_jpeg_shape(data)[:2]
        upright_size = tf.where(orientation >= 5, size[::-1], size)
        stored = stored_window(window(upright_size), upright_size, orientation)
        return turn_upright(tf.io.decode_and_crop_jpeg(data, stored, **_JPEG_OPTIONS), orientation)

    return tf.cond(reason == VALID, decode, lambda: tf.zeros((1, 1, 3), tf.uint8)), reason


def _inspected_jpeg(data, limits):
    """The orientation of a JPEG, int32, and why it is not decoded: `VALID` or `SIZE`."""
    size, length = tf.image.extract_jpeg_shape(data)[:2], tf.strings.length(data)
    pixels, most = tf.reduce_prod(tf.cast(size, tf.int64)), limits.max_pixels * _MOST_SCANS

    def is_soon_done():
        # The scans of a small file need not be counted.
        is_small = pixels * (tf.cast(length, tf.int64) // _SCAN_BYTES) <= most
        return tf.cond(is_small, lambda: True, lambda: tf.cast(jpeg_scans(data), tf.int64) * pixels <= most)

    allowed = tf.cond(limits.allow(size[0], size[1], length), is_soon_done, lambda: False)
    orientation = tf.constant(1)
    if limits.upright:
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
        # Of the frame of an animation; a still image of another size than its canvas is refused by libwebp.
        bottom, right = frame_height + tf.cast(core["top"], tf.int64), frame_width + tf.cast(core["left"], tf.int64)

        def decode_frame():
            # With `channels=3` TensorFlow refuses alpha. It returns frames, of which there is one.
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
        # TensorFlow takes the numbers of the colors for grays.
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
