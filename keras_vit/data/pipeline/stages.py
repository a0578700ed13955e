"""The stages of a pipeline before the batch: examples drawn, read, decoded, cropped and changed one by one.

A run that goes on leaves out the first examples of its first epoch where they are drawn, in front of all work on them,
and a worker those that others make.
"""

import warnings

import numpy as np
import tensorflow as tf

from keras_vit.data.augment.augment import augment_image, changes_images, crop_image, moving_in, policy_of_batches
from keras_vit.data.augment.random_crop import decode_and_random_crop, prepare, random_crop
from keras_vit.data.labels import check_labels, one_hot
from keras_vit.data.pipeline.tf_data_service import served_stream
from keras_vit.data.seeds import augmentation_seed, repeated, shuffled
from keras_vit.data.sources.arrays import Split
from keras_vit.data.unreadable import left_out, map_readable, plain_reason, unreadable, unreadable_reason
from keras_vit.image_ops.decode import DATA, PORTABLE_DATA


def gathered(split, num_classes, course):
    """`(epoch, step, images, targets[, weights])` of a split in memory, whole batches at a time.

    Args:
        split: `Split`.
        num_classes: int.
        course: `Course`.
    """
    columns = _columns(split)
    steps, size = course.steps, course.batch_size

    def one_epoch(epoch):
        order = repeated(shuffled(len(split), course.seed, epoch), course.repeats)
        batches = tf.gather(tf.reshape(order[: course.count], (steps, size)), course.places, axis=1)
        return tf.data.Dataset.from_tensor_slices((tf.repeat(epoch, steps), tf.range(steps), batches))

    def gather(epoch, step, examples):
        images, labels, *rest = (tf.gather(column, examples) for column in columns)
        return epoch, step, images, one_hot(labels, num_classes), *rest

    dataset = course.flat_map(one_epoch, 1)
    return dataset.map(gather, num_parallel_calls=tf.data.AUTOTUNE)


def _columns(split):
    """Images, labels and, if there are some, weights of a split in memory."""
    columns = [tf.constant(column) for column in (split.images, split.labels)]
    return columns if split.weights is None else [*columns, tf.constant(split.weights, tf.float32)]


def cropped_examples(split, num_classes, input_spec, augment, course):
    """`(number, uint8 image, target[, weight])` of a split in memory, cropped one by one.

    The number counts the examples that are made, see `Course`.
    """
    columns = _columns(split)

    def one_epoch(epoch):
        order = repeated(shuffled(len(split), course.seed, epoch), course.repeats)[: course.count]
        order = tf.gather(tf.reshape(order, (course.steps, course.batch_size)), course.made, axis=1)
        numbers = (epoch * course.steps) * len(course.made) + tf.range(tf.size(order, tf.int64))
        return tf.data.Dataset.from_tensor_slices((numbers, tf.reshape(order, [-1])))

    def crop(number, example):
        image, label, *rest = (tf.gather(column, example) for column in columns)
        image = random_crop(image, _key(course, number), augment, input_spec)
        return number, image, one_hot(label, num_classes), *rest

    dataset = course.flat_map(one_epoch, len(course.made))
    return dataset.map(crop, num_parallel_calls=tf.data.AUTOTUNE)


def _key(course, number):
    """What the random changes of an example are drawn from."""
    position = course.position(number)
    return augmentation_seed(course.seed, position // course.count, position % course.count)


def decoded_examples(split, num_classes, input_spec, augment, course, skip=None, skipped=None):
    """As `cropped_examples`, of a split of encoded images; see `map_readable` for `skip`."""
    made, share = course.made, course.steps * len(course.made)
    limits = PORTABLE_DATA if course.is_served else DATA

    def one_epoch(epoch):
        records = split.epoch(course.seed, epoch, course.repeats).take(course.count)
        if not course.makes_all:
            is_made = tf.constant(np.isin(np.arange(course.batch_size), made))
            records = records.enumerate().filter(lambda number, record: tf.gather(is_made, number % course.batch_size))
            records = records.map(lambda number, record: record)
        return records.enumerate().map(lambda number, element: (epoch * share + number, element[1]))

    def crop(number, record):
        data, label = split.read(record)
        image = decode_and_random_crop(data, _key(course, number), augment, input_spec, limits)
        return image, one_hot(_checked(label, num_classes), num_classes)

    def find(number):
        epoch, place = divmod(int(course.position(tf.constant(number, tf.int64))), course.count)
        found = tf.data.Dataset.range(epoch, epoch + 1).flat_map(
            lambda e: split.epoch(course.seed, e, course.repeats).skip(place).take(1)
        )
        return next(iter(found))

    if course.is_served:  # which runs no Python, so that it can name no image
        is_stream = split.labels is None
        dataset = served_stream(split, course) if is_stream else course.flat_map(one_epoch, len(made))
        return dataset.map(lambda number, record: (number, *crop(number, record)), num_parallel_calls=tf.data.AUTOTUNE)
    dataset = course.flat_map(one_epoch, len(made))
    explain = _explainer(split, find, num_classes, input_spec.num_channels, skip, skipped)
    return map_readable(dataset, crop, course.begin, course.end, explain, skip)


def in_order(split, num_classes, input_spec, skip=None, skipped=None, part=None):
    """`(uint8 image, target)` of all examples, or of the worker of a `Part` those dealt to it by turns."""
    first, every = (part.index, part.count) if part else (0, 1)
    if isinstance(split, Split):
        split = split[first::every]
        dataset = tf.data.Dataset.from_tensor_slices((split.images, split.labels))
        return dataset.map(lambda image, label: (image, one_hot(label, num_classes)))

    def prepared(position, record):
        data, label = split.read(record)
        return prepare(data, input_spec), one_hot(_checked(label, num_classes), num_classes)

    def find(position):
        return next(iter(split.in_order().skip(first + every * position).take(1)))

    records = split.in_order().shard(every, first) if part else split.in_order()
    records = records.enumerate().map(lambda position, element: (position, element[1]))
    explain = _explainer(split, find, num_classes, input_spec.num_channels, skip, skipped)
    examples = map_readable(records, prepared, 0, len(range(first, len(split), every)), explain, skip)
    return examples.map(lambda position, *example: example)


def _checked(label, num_classes):
    """A label, or a failure where it is no class."""
    if label.dtype.is_floating:
        return tf.ensure_shape(label, (num_classes,))
    with tf.control_dependencies([tf.debugging.Assert((label >= 0) & (label < num_classes), [label])]):
        return tf.identity(label)


def _explainer(split, find, num_classes, num_channels, skip, skipped):
    """The callable that `map_readable` asks what was wrong with an element."""

    def explain(position):
        number, record = find(position)
        name = split.name_of(int(number))
        try:
            data, label = split.read(record)
            check_labels([label.numpy()], num_classes)
            reason = unreadable_reason(data.numpy(), num_channels)
        except tf.errors.OpError as error:
            reason = plain_reason(error)
        if skip is None:
            return unreadable([name], reason)
        if skipped is not None:
            skipped.append(name)
        warnings.warn(left_out([name]), stacklevel=2)
        return ValueError("no image of the data set is readable")

    return explain


def batched(examples, input_spec, augment, course):
    """`(epoch, step, images, targets[, weights])`, after the changes of single images."""
    size = len(course.made)
    share = course.steps * size
    order = np.searchsorted(course.made, course.places)
    together = policy_of_batches(augment, input_spec)

    def change(number, image, *rest):
        key = tf.random.fold_in(_key(course, number), 2)
        if augment.flip and not changes_images(augment):
            # Here every second image is turned; of a float batch all are gathered, at three times the cost.
            is_turned = tf.random.stateless_uniform([], key) < 0.5
            image = tf.cond(is_turned, lambda: tf.reverse(image, [1]), lambda: image)
        if together:
            return number, (crop_image(image, augment, key), together.draw(key)), *rest
        return number, augment_image(image, augment, key, input_spec), *rest

    def arrange(numbers, images, *rest):
        epoch, step = numbers[0] // share, numbers[0] % share // size
        columns = [together.apply(*images, *moving_in(augment, input_spec)) if together else images, *rest]
        if course.repeats > 1:
            columns = [tf.gather(column, order) for column in columns]
        return epoch, tf.cast(step, tf.int32), *columns

    examples = examples.map(change, num_parallel_calls=tf.data.AUTOTUNE)
    batches = examples.batch(size, drop_remainder=True, num_parallel_calls=tf.data.AUTOTUNE)
    return batches.map(arrange, num_parallel_calls=tf.data.AUTOTUNE)
