"""Example transforms of a pipeline: sample, read, decode, crop, augment, batch.

A resumed run skips the first examples of its first epoch, and a worker those of the other workers, before any work is
done on them.
"""

import warnings

import numpy as np
import tensorflow as tf

from keras_vit.data.augment.augment import (
    augment_image,
    batch_policy,
    changes_images,
    crop_image,
    fill_and_interpolation,
)
from keras_vit.data.augment.random_crop import decode_and_random_crop, prepare, random_crop
from keras_vit.data.labels import check_labels, one_hot
from keras_vit.data.pipeline.tf_data_service import served_stream
from keras_vit.data.seeds import repeated, shuffled
from keras_vit.data.sources.arrays import Split
from keras_vit.data.unreadable import error_reason, map_readable, skipped_message, unreadable, unreadable_reason
from keras_vit.image_ops.decode import DATA_LIMITS, PORTABLE_DATA_LIMITS


def gathered(split, num_classes, schedule):
    """Gathers whole batches `(epoch, step, images, targets[, weights])` of a split in memory.

    Args:
        split: `Split`.
        num_classes: int.
        schedule: `EpochSchedule`.
    """
    columns = _columns(split)
    steps, size = schedule.steps, schedule.batch_size

    def one_epoch(epoch):
        order = repeated(shuffled(len(split), schedule.seed, epoch), schedule.repeats)
        batches = tf.gather(tf.reshape(order[: schedule.count], (steps, size)), schedule.row_examples, axis=1)
        return tf.data.Dataset.from_tensor_slices((tf.repeat(epoch, steps), tf.range(steps), batches))

    def gather(epoch, step, examples):
        images, labels, *rest = (tf.gather(column, examples) for column in columns)
        return epoch, step, images, one_hot(labels, num_classes), *rest

    dataset = schedule.flat_map(one_epoch, 1)
    return dataset.map(gather, num_parallel_calls=tf.data.AUTOTUNE)


def _columns(split):
    """Converts images, labels and, if there are any, weights of a split in memory to tensors."""
    columns = [tf.constant(column) for column in (split.images, split.labels)]
    return columns if split.weights is None else [*columns, tf.constant(split.weights, tf.float32)]


def cropped_examples(split, num_classes, input_spec, augment, schedule):
    """Crops the examples `(number, uint8 image, target[, weight])` of a split in memory one by one.

    The number counts the computed examples, see `EpochSchedule`.
    """
    columns = _columns(split)

    def one_epoch(epoch):
        order = repeated(shuffled(len(split), schedule.seed, epoch), schedule.repeats)[: schedule.count]
        order = tf.gather(tf.reshape(order, (schedule.steps, schedule.batch_size)), schedule.computed, axis=1)
        numbers = (epoch * schedule.steps) * len(schedule.computed) + tf.range(tf.size(order, tf.int64))
        return tf.data.Dataset.from_tensor_slices((numbers, tf.reshape(order, [-1])))

    def crop(number, example):
        image, label, *rest = (tf.gather(column, example) for column in columns)
        image = random_crop(image, schedule.example_seed(number), augment, input_spec)
        return number, image, one_hot(label, num_classes), *rest

    dataset = schedule.flat_map(one_epoch, len(schedule.computed))
    return dataset.map(crop, num_parallel_calls=tf.data.AUTOTUNE)


def decoded_examples(split, num_classes, input_spec, augment, schedule, skip=None, skipped=None):
    """Decodes and crops like `cropped_examples`, for encoded images; see `map_readable` for `skip`."""
    limits = PORTABLE_DATA_LIMITS if schedule.is_served else DATA_LIMITS

    def crop(number, record):
        data, label = split.read(record)
        image = decode_and_random_crop(data, schedule.example_seed(number), augment, input_spec, limits)
        return image, one_hot(_checked(label, num_classes), num_classes)

    def find(number):
        epoch, index = divmod(int(schedule.position(tf.constant(number, tf.int64))), schedule.count)
        record = tf.data.Dataset.range(epoch, epoch + 1).flat_map(
            lambda e: split.epoch(schedule.seed, e, schedule.repeats).skip(index).take(1)
        )
        return next(iter(record))

    if schedule.is_served:  # A service runs no Python, so it cannot name an unreadable image.
        dataset = served_stream(split, schedule) if split.labels is None else schedule.records(split)
        return dataset.map(lambda number, record: (number, *crop(number, record)), num_parallel_calls=tf.data.AUTOTUNE)
    explain = _explainer(split, find, num_classes, input_spec.num_channels, skip, skipped)
    return map_readable(schedule.records(split), crop, schedule.start, schedule.end, explain, skip)


def ordered_examples(split, num_classes, input_spec, skip=None, skipped=None, shard=None):
    """Prepares `(uint8 image, target)` of all examples in order; with a `WorkerShard` every `count`-th of them."""
    first, every = (shard.index, shard.count) if shard else (0, 1)
    if isinstance(split, Split):
        split = split[first::every]
        dataset = tf.data.Dataset.from_tensor_slices((split.images, split.labels))
        return dataset.map(lambda image, label: (image, one_hot(label, num_classes)))

    def prepared(position, record):
        data, label = split.read(record)
        return prepare(data, input_spec), one_hot(_checked(label, num_classes), num_classes)

    def find(position):
        return next(iter(split.in_order().skip(first + every * position).take(1)))

    records = split.in_order().shard(every, first) if shard else split.in_order()
    records = records.enumerate().map(lambda position, element: (position, element[1]))
    explain = _explainer(split, find, num_classes, input_spec.num_channels, skip, skipped)
    examples = map_readable(records, prepared, 0, len(range(first, len(split), every)), explain, skip)
    return examples.map(lambda position, *example: example)


def _checked(label, num_classes):
    """Returns a label; fails in the graph if it is no class."""
    if label.dtype.is_floating:
        return tf.ensure_shape(label, (num_classes,))
    with tf.control_dependencies([tf.debugging.Assert((label >= 0) & (label < num_classes), [label])]):
        return tf.identity(label)


def _explainer(split, find, num_classes, num_channels, skip, skipped):
    """Makes the callable with which `map_readable` explains a failed element."""

    def explain(position):
        number, record = find(position)
        name = split.name_of(int(number))
        try:
            data, label = split.read(record)
            check_labels([label.numpy()], num_classes)
            reason = unreadable_reason(data.numpy(), num_channels)
        except tf.errors.OpError as error:
            reason = error_reason(error)
        if skip is None:
            return unreadable([name], reason)
        if skipped is not None:
            skipped.append(name)
        warnings.warn(skipped_message([name]), stacklevel=2)
        return ValueError("no image of the data set is readable")

    return explain


def batched(examples, input_spec, augment, schedule):
    """Augments single images, then batches: `(epoch, step, images, targets[, weights])`."""
    size = len(schedule.computed)
    per_epoch = schedule.steps * size
    order = np.searchsorted(schedule.computed, schedule.row_examples)
    policy = batch_policy(augment, input_spec)

    def change(number, image, *rest):
        seed = tf.random.fold_in(schedule.example_seed(number), 2)
        if augment.flip and not changes_images(augment):
            # Flipping uint8 images costs a third of gathering a whole float batch.
            is_flipped = tf.random.stateless_uniform([], seed) < 0.5
            image = tf.cond(is_flipped, lambda: tf.reverse(image, [1]), lambda: image)
        if policy:
            return number, (crop_image(image, augment, seed), policy.draw(seed)), *rest
        return number, augment_image(image, augment, seed, input_spec), *rest

    def arrange(numbers, images, *rest):
        epoch, step = numbers[0] // per_epoch, numbers[0] % per_epoch // size
        if policy:
            images = policy.apply(*images, *fill_and_interpolation(augment, input_spec))
        columns = [images, *rest]
        if schedule.repeats > 1:
            columns = [tf.gather(column, order) for column in columns]
        return epoch, tf.cast(step, tf.int32), *columns

    examples = examples.map(change, num_parallel_calls=tf.data.AUTOTUNE)
    batches = examples.batch(size, drop_remainder=True, num_parallel_calls=tf.data.AUTOTUNE)
    return batches.map(arrange, num_parallel_calls=tf.data.AUTOTUNE)
