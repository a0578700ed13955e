"""Decodes images of a data set at the model's size, with random resized crops; of a JPEG only the crop is decoded."""

import functools
import math

import tensorflow as tf

from keras_vit.image_ops.decode import DATA_LIMITS, VALID, decode, decode_image
from keras_vit.image_ops.resize import METHODS, fit_channels


def crop_and_flip(images, padding, mode, color, flips, seed, rows=None):
    """Pads every image, crops the size back at a random place and mirrors every second one.

    Args:
        images: uint8 or float `(batch, height, width, channels)`.
        padding: int, pixels on every side; 0 for no crop.
        mode: `constant` or `reflect`.
        color: sequence of numbers, one a channel, on the scale of `images`. What `constant` pads with.
        flips: bool.
        seed: int32 `(2,)`.
        rows: `keras_vit.data.pipeline.worker_shard.Rows` where the images are a part of a batch. Default `None`.

    Returns:
        The same type and shape.
    """
    batch, (height, width) = rows.total if rows else tf.shape(images)[0], images.shape[1:3]
    uniform = tf.random.stateless_uniform((batch, 3), tf.random.fold_in(seed, 12))
    uniform = rows.sampled_rows(uniform) if rows else uniform
    offsets = tf.cast(uniform[:, :2] * (2 * padding + 1), tf.int32)
    columns = tf.range(width)[None]
    if flips:
        columns = tf.where(uniform[:, 2:] < 0.5, width - 1 - columns, columns)
    columns = columns + offsets[:, 1:]
    shape = images.shape
    if padding:
        images = _padded(images, padding, mode, color)
        lines = tf.range(height)[None] + offsets[:, :1]
        images = tf.gather(images, lines, axis=1, batch_dims=1)
    return tf.ensure_shape(tf.gather(images, columns, axis=2, batch_dims=1), shape)


def _padded(images, padding, mode, color):
    if mode == "reflect":
        return tf.pad(images, [[0, 0], [padding] * 2, [padding] * 2, [0, 0]], "REFLECT")
    batch, (height, width) = tf.shape(images)[0], images.shape[1:3]
    color = tf.cast(color, images.dtype)
    side = tf.broadcast_to(color, (batch, height, padding, images.shape[-1]))
    images = tf.concat([side, images, side], axis=2)
    edge = tf.broadcast_to(color, (batch, padding, width + 2 * padding, images.shape[-1]))
    return tf.concat([edge, images, edge], axis=1)


def flip(image, seed):
    """One image `(height, width, channels)`, mirrored or not: a batch's gather would touch it either way."""
    mirrored = tf.random.stateless_uniform((), tf.random.fold_in(seed, 12)) < 0.5
    return tf.cond(mirrored, lambda: tf.reverse(image, [1]), lambda: tf.identity(image))


ATTEMPTS = 10
RANDOM_INTERPOLATIONS = ("bilinear", "bicubic")


def decode_and_random_crop(data, seed, config, input_spec, limits=DATA_LIMITS):
    """Decodes an image, cuts a random part out and resizes it to the model's size.

    Args:
        data: scalar string tensor, an encoded image.
        seed: int32 tensor `(2,)`.
        config: `AugmentConfig`; `crop_scale`, `crop_ratio`, `crop_sampling`, `crop_interpolation` and `crop_antialias`
            count. Without `crop_scale` the image is prepared as for evaluation.
        input_spec: `InputSpec`.
        limits: `keras_vit.image_ops.decode.Limits`. Default: those of data sets.

    Returns:
        uint8 tensor `(*input_spec.size, channels)`.

    Raises:
        InvalidArgumentError: when it runs, if the image cannot be decoded.
    """
    if config.crop_scale is None:
        return prepare(data, input_spec, limits)
    image, reason = decode(data, limits, lambda size: crop_window(size, seed, config), input_spec.num_channels)
    return _valid(_resized(image, seed, config, input_spec), reason)


def prepare(data, input_spec, limits=DATA_LIMITS):
    """Decodes, resizes and crops an image for evaluation.

    Args:
        data, input_spec, limits: as for `decode_and_random_crop`.

    Returns:
        uint8 tensor `(*input_spec.size, channels)`.

    Raises:
        InvalidArgumentError: as `decode_and_random_crop`.
    """
    return _valid(*_traced(input_spec, limits)(data))


@functools.cache
def _traced(input_spec, limits):
    """`decode_image` as a function that is traced once for all data sets."""
    signature = [tf.TensorSpec((), tf.string)]
    return tf.function(lambda data: decode_image(data, input_spec, limits), signature, autograph=False)


def _valid(image, reason):
    """An image, or a failure where there is a reason."""
    with tf.control_dependencies([tf.debugging.Assert(reason == VALID, ["an image must be readable", reason])]):
        return tf.identity(image)


def random_crop(image, seed, config, input_spec):
    """As `decode_and_random_crop`, of a uint8 image `(height, width, channels)`; unchanged without `crop_scale`."""
    if config.crop_scale is None:
        return image
    return _resized(_cut(image, crop_window(tf.shape(image)[:2], seed, config)), seed, config, input_spec)


def crop_window(size, seed, config):
    """The window of a random crop.

    Args:
        size: int32 tensor `(height, width)` of the image.
        seed: int32 tensor `(2,)`.
        config: `AugmentConfig`. With `crop_sampling="timm"` the area is uniform in `crop_scale` and the logarithm of
            the aspect ratio uniform in `crop_ratio`; after ten windows that do not fit, the largest centered one of an
            allowed ratio. With `inception` TensorFlow's `sample_distorted_bounding_box` draws: the ratio uniform,
            then the height uniform among those that give an allowed area; after 100 attempts the whole image.

    Returns:
        int32 tensor `(top, left, height, width)`.

    Source: timm `data/transforms.py`, `RandomResizedCropAndInterpolation`; google-research/big_vision
    `pp/ops_image.py`, `get_inception_crop` (area 0.05 to 1, TensorFlow's default ratio 0.75 to 1.33).
    """
    if config.crop_sampling == "timm":
        return _timm_window(size, seed, config.crop_scale, config.crop_ratio)
    begin, extent, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.concat([size, [3]], 0),
        tf.zeros((0, 0, 4)),
        seed,
        min_object_covered=0.0,
        aspect_ratio_range=config.crop_ratio,
        area_range=config.crop_scale,
        use_image_if_no_bounding_boxes=True,
    )
    return tf.concat([begin[:2], extent[:2]], 0)


def _timm_window(size, seed, scale, ratio):
    draws = tf.random.stateless_uniform([2 * ATTEMPTS + 2], seed)
    height, width = tf.cast(size[0], tf.float32), tf.cast(size[1], tf.float32)
    low, high = math.log(ratio[0]), math.log(ratio[1])
    areas = (scale[0] + draws[:ATTEMPTS] * (scale[1] - scale[0])) * height * width
    ratios = tf.exp(low + draws[ATTEMPTS : 2 * ATTEMPTS] * (high - low))
    # Both columns are (height, width).
    windows = tf.stack([tf.round(tf.sqrt(areas / ratios)), tf.round(tf.sqrt(areas * ratios))], 1)
    sides = tf.stack([height, width])
    fits = tf.reduce_all(windows <= sides, 1)
    first = tf.argmax(fits, output_type=tf.int32)
    centered = tf.stack(
        [tf.minimum(height, tf.round(width / ratio[0])), tf.minimum(width, tf.round(height * ratio[1]))]
    )
    drawn = fits[first]
    window = tf.where(drawn, windows[first], centered)
    offsets = tf.where(drawn, tf.floor(draws[2 * ATTEMPTS :] * (sides - window + 1)), tf.floor((sides - window) / 2))
    return tf.cast(tf.concat([offsets, window], 0), tf.int32)


def _cut(image, window):
    part = tf.slice(image, [window[0], window[1], 0], [window[2], window[3], -1])
    return tf.ensure_shape(part, (None, None, image.shape[-1]))  # `tf.slice` forgets the number of channels


def _resized(image, seed, config, input_spec):
    """A crop at the model's size, uint8."""
    name = config.crop_interpolation or input_spec.interpolation
    if name != "random":
        return _resize(image, name, config.crop_antialias, input_spec)
    draw = tf.random.stateless_uniform([], tf.random.fold_in(seed, 1))
    first, second = (
        functools.partial(_resize, image, name, config.crop_antialias, input_spec) for name in RANDOM_INTERPOLATIONS
    )
    return tf.cond(draw < 0.5, first, second)


def _resize(image, interpolation, antialias, input_spec):
    size, method = input_spec.size, METHODS[interpolation]
    if not antialias or interpolation == "nearest":
        resized = tf.image.resize(image, size, method)
    else:
        # Without a side that shrinks, antialiasing changes nothing but takes two and a half times as long.
        resized = tf.cond(
            tf.reduce_all(tf.shape(image)[:2] <= size),
            lambda: tf.cast(tf.image.resize(image, size, method), tf.float32),
            lambda: tf.image.resize(image, size, method, antialias=True),
        )
    resized = fit_channels(tf.cast(resized, tf.float32), input_spec.num_channels)
    resized = tf.saturate_cast(tf.round(resized), tf.uint8)
    return tf.ensure_shape(resized, (*size, input_spec.num_channels))
