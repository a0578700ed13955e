"""The stages of a pipeline before the batch: examples drawn, read, decoded, cropped and changed one by one.

Examples of a run have a position, `epoch * examples of an epoch + number`, from which their random changes are drawn.
A run that goes on leaves out the first examples of its first epoch where they are drawn, in front of all work on them.
"""

import warnings

import tensorflow as tf

from keras_vit.data.augment import augment_image, changes_images
from keras_vit.data.decode import decode_and_random_crop, random_crop
from keras_vit.data.order import apart, augmentation_seed, repeated, shuffled
from keras_vit.data.preprocess import decode, resize
from keras_vit.data.readable import map_readable
from keras_vit.data.split import Split
from keras_vit.data.targets import check_labels, one_hot


def gathered(split, num_classes, batch_size, epochs, seed, first_epoch, first_step, steps, repeats):
    """`(epoch, step, images, targets[, weights])` of a split in memory, whole batches at a time."""
    weights = split.weights
    columns = [tf.constant(column) for column in (split.images, split.labels)]
    columns += [] if weights is None else [tf.constant(weights, tf.float32)]
    places = apart(batch_size, repeats)

    def one_epoch(epoch):
        order = repeated(shuffled(len(split), seed, epoch), repeats)
        batches = tf.gather(tf.reshape(order[: steps * batch_size], (steps, batch_size)), places, axis=1)
        return tf.data.Dataset.from_tensor_slices((tf.repeat(epoch, steps), tf.range(steps), batches))

    def gather(epoch, step, examples):
        images, labels, *rest = (tf.gather(column, examples) for column in columns)
        return epoch, step, images, one_hot(labels, num_classes), *rest

    dataset = tf.data.Dataset.range(first_epoch, epochs).flat_map(one_epoch).skip(first_step)
    return dataset.map(gather, num_parallel_calls=tf.data.AUTOTUNE)


def cropped_examples(split, num_classes, input_spec, epochs, seed, augment, first_epoch, first, count, repeats):
    """`(position, uint8 image, target[, weight])` of a split in memory, `count` an epoch, cropped one by one.

    Without the `first` of `first_epoch`.
    """
    columns = [tf.constant(column) for column in (split.images, split.labels)]
    columns += [] if split.weights is None else [tf.constant(split.weights, tf.float32)]

    def one_epoch(epoch):
        order = repeated(shuffled(len(split), seed, epoch), repeats)[:count]
        positions = epoch * count + tf.range(count, dtype=tf.int64)
        return tf.data.Dataset.from_tensor_slices((positions, order))

    def crop(position, example):
        image, label, *rest = (tf.gather(column, example) for column in columns)
        key = augmentation_seed(seed, position // count, position % count)
        return position, random_crop(image, key, augment, input_spec), one_hot(label, num_classes), *rest

    dataset = tf.data.Dataset.range(first_epoch, epochs).flat_map(one_epoch).skip(first)
    return dataset.map(crop, num_parallel_calls=tf.data.AUTOTUNE)


def decoded_examples(
    split, num_classes, input_spec, epochs, seed, augment, first_epoch, first, count, repeats, skip=None, skipped=None
):
    """As `cropped_examples`, of a split of encoded images; see `map_readable` for `skip`."""

    def one_epoch(epoch):
        records = split.epoch(seed, epoch, repeats).take(count).enumerate()
        return records.map(lambda number, element: (epoch * count + number, element[1]))

    def crop(position, record):
        data, label = split.read(record)
        key = augmentation_seed(seed, position // count, position % count)
        image = decode_and_random_crop(data, key, augment, input_spec)
        return image, one_hot(_checked(label, num_classes), num_classes)

    def find(position):
        epoch, number = divmod(position, count)
        return next(
            iter(
                tf.data.Dataset.range(epoch, epoch + 1).flat_map(
                    lambda e: split.epoch(seed, e, repeats).skip(number).take(1)
                )
            )
        )

    dataset = tf.data.Dataset.range(first_epoch, epochs).flat_map(one_epoch).skip(first)
    explain = _explainer(split, find, num_classes, skip, skipped)
    return map_readable(dataset, crop, first_epoch * count + first, epochs * count, explain, skip)


def in_order(split, num_classes, input_spec, skip=None, skipped=None):
    """`(uint8 image, target)` of all examples, prepared as for evaluation."""
    if isinstance(split, Split):
        dataset = tf.data.Dataset.from_tensor_slices((split.images, split.labels))
        return dataset.map(lambda image, label: (image, one_hot(label, num_classes)))

    def prepare(position, record):
        data, label = split.read(record)
        image = tf.cast(resize(decode(data, input_spec.num_channels), input_spec), tf.uint8)
        return image, one_hot(_checked(label, num_classes), num_classes)

    def find(position):
        return next(iter(split.in_order().skip(position).take(1)))

    records = split.in_order().enumerate().map(lambda position, element: (position, element[1]))
    explain = _explainer(split, find, num_classes, skip, skipped)
    examples = map_readable(records, prepare, 0, len(split), explain, skip)
    return examples.map(lambda position, *example: example)


def _checked(label, num_classes):
    """A label, or a failure where it is no class."""
    if label.dtype.is_floating:
        return tf.ensure_shape(label, (num_classes,))
    with tf.control_dependencies([tf.debugging.Assert((label >= 0) & (label < num_classes), [label])]):
        return tf.identity(label)


def _explainer(split, find, num_classes, skip, skipped):
    """The callable that `map_readable` asks what was wrong with an element."""

    def explain(position):
        number, record = find(position)
        name = split.name_of(int(number))
        try:
            data, label = split.read(record)
            check_labels([label.numpy()], num_classes)
            decode(data, 3)
            reason = "not when it was tried again"
        except tf.errors.OpError as error:
            reason = error.message.partition("\n")[0][:200]
        if skip is None:
            return ValueError(
                f"every image must be readable; skip_unreadable leaves the others away. Received: {name!r} ({reason})"
            )
        if skipped is not None:
            skipped.append(name)
        warnings.warn(f"an unreadable image is left away: {name}", stacklevel=2)
        return ValueError("no image of the data set is readable")

    return explain


def batched(examples, input_spec, batch_size, steps, seed, augment, repeats):
    """`(epoch, step, images, targets[, weights])`, after the changes of single images."""
    count = steps * batch_size
    places = apart(batch_size, repeats)

    def change(position, image, *rest):
        key = tf.random.fold_in(augmentation_seed(seed, position // count, position % count), 2)
        if augment.flip and not changes_images(augment):
            # Here every second image is turned; of a float batch all are gathered, at three times the cost.
            is_turned = tf.random.stateless_uniform([], key) < 0.5
            image = tf.cond(is_turned, lambda: tf.reverse(image, [1]), lambda: image)
        return position, augment_image(image, augment, key, input_spec), *rest

    def arrange(positions, *columns):
        epoch, step = positions[0] // count, positions[0] % count // batch_size
        if repeats > 1:
            columns = [tf.gather(column, places) for column in columns]
        return epoch, tf.cast(step, tf.int32), *columns

    examples = examples.map(change, num_parallel_calls=tf.data.AUTOTUNE)
    batches = examples.batch(batch_size, drop_remainder=True, num_parallel_calls=tf.data.AUTOTUNE)
    return batches.map(arrange, num_parallel_calls=tf.data.AUTOTUNE)
