"""Batches of images and masks for segmentation: scaled, cropped and flipped together."""

import warnings

import numpy as np
import tensorflow as tf

from keras_vit.data.pipeline.epochs import EpochSchedule
from keras_vit.data.pipeline.worker_shard import rows_for_shard
from keras_vit.data.sources.masks import check_pair, unreadable_part
from keras_vit.data.unreadable import error_reason, map_readable, skipped_message, unreadable, unreadable_reason
from keras_vit.image_ops.decode import DATA_LIMITS, VALID, decode, decode_image
from keras_vit.image_ops.masks import decode_mask
from keras_vit.image_ops.pillow_reader import UnreadableImage
from keras_vit.image_ops.resize import METHODS, fit_channels, normalize, resample


@tf.autograph.experimental.do_not_convert
def masked_training_dataset(
    split,
    num_classes,
    input_spec,
    data,
    segmentation,
    augment,
    training,
    first_epoch=0,
    first_step=0,
    steps_per_epoch=None,
    shard=None,
):
    """Makes shuffled batches of images and masks for the rest of a run.

    Order and augmentation depend on the seed, the epoch and the step alone, as in
    `keras_vit.data.training_dataset`: a resumed run sees the batches of an uninterrupted one.

    Args:
        split: split of `keras_vit.data.sources.masks.load_mask_source`.
        num_classes: int.
        input_spec: `InputSpec`.
        data: `DataConfig`; its `batch_size`, `label_offset` and `skip_unreadable` are used.
        segmentation: `SegmentationConfig`.
        augment: `AugmentConfig`; its `flip` is used.
        training: `TrainingConfig`; its `epochs` and `seed` are used.
        first_epoch, first_step: ints. Where the dataset starts.
        steps_per_epoch: int. Batches of an epoch.
        shard: `WorkerShard` or `None`. Gives one of several workers its rows of every batch.

    Returns:
        A `tf.data.Dataset` of `(float32 images (batch, h, w, channels), int32 masks (batch, h, w))`.

    Raises:
        ValueError: while it is iterated within `unwrap_tf_errors`: if an image or a mask is unreadable, their sizes
            differ or a label is no class, with the name of the file.
    """
    rows = rows_for_shard(data.batch_size, shard, augment) if shard else None
    schedule = EpochSchedule(
        data.batch_size, steps_per_epoch, training.epochs, training.seed, first_epoch, first_step, 1, rows
    )

    def example(number, record):
        seed = schedule.example_seed(number)
        image, mask = _decode_pair(*split.read(record), num_classes, data.label_offset, segmentation, input_spec)
        image, mask = scale_and_crop(image, mask, seed, segmentation, input_spec)
        return flip_together(image, mask, seed) if augment.flip else (image, mask)

    def find(number):
        epoch, index = divmod(int(schedule.position(tf.constant(number, tf.int64))), schedule.count)
        return next(iter(split.epoch(schedule.seed, tf.constant(epoch, tf.int64)).skip(index).take(1)))

    skip, skipped = ("replace", []) if data.skip_unreadable else (None, None)
    explain = _explainer(split, find, num_classes, data.label_offset, segmentation, input_spec, skipped)
    examples = map_readable(schedule.records(split), example, schedule.start, schedule.end, explain, skip)
    examples = examples.map(lambda number, *pair: pair)
    batches = examples.batch(len(schedule.computed), drop_remainder=True, num_parallel_calls=tf.data.AUTOTUNE)
    return _normalized(batches, input_spec)


@tf.autograph.experimental.do_not_convert
def masked_evaluation_dataset(split, num_classes, input_spec, data, segmentation, shard=None):
    """Makes batches in order, every example once; images and masks are prepared by the same crop.

    Args:
        split, num_classes, input_spec, data, segmentation: as for `masked_training_dataset`.
        shard: `WorkerShard` or `None`. Selects every `count`-th example.

    Returns:
        A `tf.data.Dataset` of `(images, masks)`. The last batch may be short.

    Raises:
        ValueError: as `masked_training_dataset`.
    """
    first, every = (shard.index, shard.count) if shard else (0, 1)
    nearest = input_spec.replace(interpolation="nearest")

    def example(position, record):
        encoded, labels = split.read(record)
        _, mask = _decode_pair(encoded, labels, num_classes, data.label_offset, segmentation, input_spec)
        image, reason = decode_image(encoded, input_spec, DATA_LIMITS)
        mask = tf.ensure_shape(resample(mask[..., None], nearest)[..., 0], input_spec.size)
        with tf.control_dependencies([tf.debugging.Assert(reason == VALID, [reason])]):
            return tf.identity(image), mask

    def find(position):
        return next(iter(split.in_order().skip(first + every * position).take(1)))

    records = split.in_order().shard(every, first) if shard else split.in_order()
    records = records.enumerate().map(lambda position, element: (position, element[1]))
    skip, skipped = ("drop", []) if data.skip_unreadable else (None, None)
    explain = _explainer(split, find, num_classes, data.label_offset, segmentation, input_spec, skipped)
    length = len(range(first, len(split), every))
    examples = map_readable(records, example, 0, length, explain, skip).map(lambda position, *pair: pair)
    size = -(-data.batch_size // every)
    batches = examples.batch(size)
    most = -(-len(split) // every)
    if shard and -(-most // size) > -(-length // size):
        # The first worker has one batch more.
        empty = tuple(tf.zeros([0, *spec.shape[1:]], spec.dtype) for spec in batches.element_spec)
        batches = batches.concatenate(tf.data.Dataset.from_tensors(empty))
    batches = _normalized(batches, input_spec)
    if skip:
        return batches
    return batches.apply(tf.data.experimental.assert_cardinality(-(-most // size)))


def _normalized(batches, input_spec):
    def prepare(images, masks):
        return normalize(images, input_spec), masks

    return batches.map(prepare, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def _decode_pair(encoded, labels, num_classes, offset, segmentation, input_spec):
    """A uint8 image and its int32 mask of classes; fails in the graph where they do not fit."""
    image, reason = decode(encoded, DATA_LIMITS, num_channels=input_spec.num_channels)
    mask, ignore = decode_mask(labels), segmentation.ignore_label
    counted = (mask != ignore) & (mask >= offset)
    mask = tf.where(counted, mask - offset, ignore)
    fits = tf.reduce_all(tf.shape(image)[:2] == tf.shape(mask))
    is_class = tf.reduce_all(~counted | (mask < num_classes))
    checks = [tf.debugging.Assert(check, [reason]) for check in (reason == VALID, fits, is_class)]
    with tf.control_dependencies(checks):
        return tf.identity(image), mask


def scale_and_crop(image, mask, seed, segmentation, input_spec):
    """Resizes an image and its mask by a random factor and cuts the model's size out at a random place.

    At a factor of 1 the image just covers the model's size. Where it is smaller than that, it is padded below and on
    the right: the image with the mean color, the mask with ignored pixels.

    Args:
        image: uint8 tensor `(height, width, channels)`.
        mask: int32 tensor `(height, width)`.
        seed: int32 tensor `(2,)`.
        segmentation: `SegmentationConfig`.
        input_spec: `InputSpec`; its interpolation is that of the image. Masks take the nearest pixel.

    Returns:
        uint8 tensor `(*input_spec.size, channels)` and int32 tensor `input_spec.size`.

    Source: mmsegmentation's `Resize` with `ratio_range`, `RandomCrop` and `Pad`, as in DINOv2's linear evaluation;
    there a crop is drawn again where one class fills more than three quarters of it.
    """
    draws = tf.random.stateless_uniform([3], tf.random.fold_in(seed, 3))
    size, target = tf.shape(mask), tf.constant(input_spec.size)
    low, high = segmentation.scale_range
    cover = tf.reduce_max(tf.cast(target, tf.float32) / tf.cast(size, tf.float32))
    factor = (low + draws[0] * (high - low)) * cover
    resized = tf.maximum(tf.cast(tf.round(tf.cast(size, tf.float32) * factor), tf.int32), 1)
    room = tf.maximum(resized - target, 0)
    first = tf.minimum(tf.cast(draws[1:] * tf.cast(room + 1, tf.float32), tf.int32), room)
    taken = tf.minimum(target, resized)
    method = METHODS[input_spec.interpolation]
    pixels = tf.cast(tf.image.resize(image, resized, method, antialias=method != "nearest"), tf.float32)
    pixels = tf.slice(pixels, [first[0], first[1], 0], [taken[0], taken[1], -1])
    pixels = fit_channels(tf.ensure_shape(pixels, (None, None, image.shape[-1])), input_spec.num_channels)
    pixels = tf.saturate_cast(tf.round(pixels), tf.uint8)
    color = np.round(255 * np.array(input_spec.mean)).clip(0, 255).astype("uint8")
    padding = [[0, target[0] - taken[0]], [0, target[1] - taken[1]]]
    # Zeros behind a shift by the mean color are that color.
    pixels = tf.pad(pixels - color, [*padding, [0, 0]]) + color
    rows, columns = (
        tf.minimum((2 * (first[axis] + tf.range(taken[axis])) + 1) * size[axis] // (2 * resized[axis]), size[axis] - 1)
        for axis in (0, 1)
    )
    labels = tf.gather(tf.gather(mask, rows, axis=0), columns, axis=1)
    labels = tf.pad(labels, padding, constant_values=segmentation.ignore_label)
    return tf.ensure_shape(pixels, (*input_spec.size, input_spec.num_channels)), tf.ensure_shape(
        labels, input_spec.size
    )


def flip_together(image, mask, seed):
    """Mirrors an image and its mask left to right, or neither."""
    is_flipped = tf.random.stateless_uniform([], tf.random.fold_in(seed, 2)) < 0.5
    return tf.cond(is_flipped, lambda: (image[:, ::-1], mask[:, ::-1]), lambda: (image, mask))


def _explainer(split, find, num_classes, offset, segmentation, input_spec, skipped):
    """Makes the callable with which `map_readable` explains a failed example; `skipped` of `None` skips none."""

    def explain(position):
        number, record = find(position)
        name = split.name_of(int(number))
        try:
            image, mask = (part.numpy() for part in split.read(record))
        except tf.errors.OpError as error:
            return _unreadable(name, error_reason(error), skipped)
        try:
            check_pair(split, int(number), image, mask, num_classes, offset, segmentation.ignore_label)
            reason = unreadable_reason(image, input_spec.num_channels)
        except UnreadableImage as error:
            name, reason = unreadable_part(split, int(number), mask), str(error)
        return _unreadable(name, reason, skipped)

    return explain


def _unreadable(name, reason, skipped):
    if skipped is None:
        return unreadable([name], reason)
    skipped.append(name)
    warnings.warn(skipped_message([name]), stacklevel=2)
    return ValueError("no image of the data set is readable")
