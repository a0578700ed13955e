"""Batches for training and evaluation."""

import dataclasses

import tensorflow as tf

from keras_vit.data.augment.augment import augment_batch, changes_images
from keras_vit.data.augment.mixup import smooth_targets
from keras_vit.data.labels import check_labels, check_weights, padding_weights
from keras_vit.data.pipeline.epochs import Course
from keras_vit.data.pipeline.stages import batched, cropped_examples, decoded_examples, gathered, in_order
from keras_vit.data.pipeline.tf_data_service import served_course
from keras_vit.data.pipeline.worker_shard import by_files, rows_to_make
from keras_vit.data.seeds import augmentation_seed
from keras_vit.data.sources.arrays import Split
from keras_vit.image_ops.resize import normalize


# No function in here needs AutoGraph, whose conversion would take longer than tracing.
@tf.autograph.experimental.do_not_convert
def training_dataset(
    split,
    num_classes,
    input_spec,
    batch_size,
    epochs,
    seed,
    augment,
    first_epoch=0,
    steps_per_epoch=None,
    *,
    first_step=0,
    repeats=1,
    label_smoothing=0.0,
    class_weights=None,
    skip_unreadable=False,
    skipped=None,
    part=None,
    service=None,
):
    """Shuffled, augmented, normalised batches for the rest of a run.

    The order of an epoch and every random change depend on `seed`, the epoch and the step alone: a run that goes on at
    `first_step` of `first_epoch` sees what an uninterrupted one would have seen. That holds for splits in memory, for
    files, and for streams unless they were made with `deterministic=False`. Images of the steps before are not decoded;
    of splits in memory and of files they are not read either, records of a stream are.

    Args:
        split: `Split`, `EncodedFiles` or `EncodedShards`.
        num_classes: int.
        input_spec: `InputSpec`; its mean and std normalise.
        batch_size: int. What remains of an epoch is dropped; which images differs from epoch to epoch.
        epochs: int. Of the whole run.
        seed: int.
        augment: `AugmentConfig`.
        first_epoch: int. The one that the data set begins in. Default 0.
        steps_per_epoch: int or `None`. Cuts every epoch short; `None` for all of it.
        first_step: int. Steps of the first epoch that are left out, from 0 to all of them. Default 0.
        repeats: int. Repeated augmentation: every drawn image comes so often in a batch. Default 1.
        label_smoothing: float in [0, 1). Of the targets; the loss must not smooth them again. Default 0.
        class_weights: sequence of `num_classes` floats or `None`. Gives every example the weight of its class; a mixed
            one the mixed weight.
        skip_unreadable: bool. The next readable image takes the place of one that is not. Default False.
        skipped: list or `None`. The names of skipped images are appended.
        part: `Part` or `None`. What one of several workers gets of every batch: its rows, as they are in the whole
            batch, of which it makes no others but those that they are mixed with. With `by_files` batches of its own
            instead, as large as its part of the rows, of its own files of an `EncodedShards`; an epoch has as many
            steps as the worker with the fewest examples has. Default `None`: whole batches.
        service: `Service` or `None`. Who makes the batches, in an order of its own; with `part` they are dealt to the
            workers as they come, each as large as one's part of the rows. Default `None`: this process, in order.

    Returns:
        A `tf.data.Dataset` of `(float32 images (batch, h, w, channels), float32 targets (batch, num_classes))`, with
        float32 weights `(batch,)` behind them where the split or the classes have weights, and the number of steps in
        an epoch.

    Raises:
        ValueError: if there are fewer images than a batch, or than the steps, need; if an epoch has no such first step;
            if a label is no class; if weights and mixing or multi-hot labels meet; if a service is to name unreadable
            images, or the workers it serves do not divide the batch. While it is iterated within `plain_errors`, if an
            image is unreadable.
    """
    if service and skip_unreadable:
        raise ValueError("a service cannot name unreadable images. Received: service and skip_unreadable=True")
    if split.labels is not None:
        check_labels(split.labels, num_classes)
    multi_label = split.labels is not None and split.labels.ndim > 1
    check_weights(split.weights is not None, class_weights, multi_label, num_classes, augment)
    place = (first_epoch, first_step)
    split, course, steps = _course(
        split, batch_size, steps_per_epoch, epochs, seed, place, repeats, augment, part, service
    )
    if isinstance(split, Split) and augment.crop_scale is None and not changes_images(augment):
        batches = gathered(split, num_classes, course)
    else:
        if isinstance(split, Split):
            examples = cropped_examples(split, num_classes, input_spec, augment, course)
        else:
            skip = "replace" if skip_unreadable else None
            examples = decoded_examples(split, num_classes, input_spec, augment, course, skip, skipped)
        batches = batched(examples, input_spec, augment, course)
        augment = dataclasses.replace(augment, flip=False)  # done, where a single image costs least

    def finish(epoch, step, images, targets, *sample_weights):
        key = augmentation_seed(course.seed, epoch, step)
        images, targets = augment_batch(normalize(images, input_spec), targets, augment, key, input_spec, course.rows)
        images = tf.ensure_shape(images, (course.batch_rows, *input_spec.size, input_spec.num_channels))
        if class_weights is not None:
            of_class = tf.linalg.matvec(targets, tf.constant(class_weights, tf.float32))
            sample_weights = (of_class * sample_weights[0] if sample_weights else of_class,)
        return images, smooth_targets(targets, label_smoothing), *sample_weights

    batches = batches.map(finish, num_parallel_calls=tf.data.AUTOTUNE)
    return (service.does(batches) if service else batches).prefetch(tf.data.AUTOTUNE), steps


def steps_of_epoch(split, batch_size, part=None):
    """The whole batches of an epoch; with a `Part` by files those that every worker has.

    Args:
        split, batch_size, part: as for `training_dataset`.

    Raises:
        ValueError: if there are none.
    """
    whole = by_files(split, batch_size, 0, part)[3] if part and part.by_files else len(split) // batch_size
    if not whole:
        raise ValueError(
            f"a training split must hold at least one batch. Received: {len(split)} images, batch_size={batch_size}"
        )
    return whole


def _course(split, batch_size, steps_per_epoch, epochs, seed, place, repeats, augment, part, service):
    """`(split, Course, steps)`: what is read, in which order, and the steps of an epoch."""
    if service and part:
        part = dataclasses.replace(part, by_files=False)
    whole = steps_of_epoch(split, batch_size, part)
    if part and part.by_files:
        split, batch_size, seed, _ = by_files(split, batch_size, seed, part)
        part = None
    steps, (first_epoch, first_step) = steps_per_epoch or whole, place
    if steps > whole:
        raise ValueError(
            f"an epoch has {whole} steps of {batch_size} images at most. Received: steps_per_epoch={steps_per_epoch}"
        )
    if not 0 <= first_step <= steps:
        raise ValueError(f"first_step must be in 0..{steps}. Received: first_step={first_step!r}")
    if service:
        course = served_course(batch_size, steps, epochs, seed, first_epoch, first_step, repeats, part)
    else:
        rows = rows_to_make(batch_size, part, augment) if part else None
        course = Course(batch_size, steps, epochs, seed, first_epoch, first_step, repeats, rows)
    return split, course, steps


@tf.autograph.experimental.do_not_convert
def evaluation_dataset(
    split, num_classes, input_spec, batch_size, *, pad=False, skip_unreadable=False, skipped=None, part=None
):
    """Normalised batches in order, every example exactly once.

    Args:
        split, num_classes, input_spec, batch_size: as for `training_dataset`.
        pad: bool. Whether the last batch is filled up with black images, for steps that are compiled for one size and
            for strategies that divide a batch. Every batch then has weights: compile with `weighted_metrics=`, and the
            loss and the metrics of `evaluate` are those of the real examples. Default False: the last batch may be
            short.
        skip_unreadable: bool. Unreadable images are missing. Default False.
        skipped: list or `None`. Their names are appended.
        part: `Part` or `None`. Only the examples of one of several workers, to which they are dealt by turns, in
            batches of its part of the rows. Default `None`: all.

    Returns:
        A `tf.data.Dataset` of `(images, targets)` or `(images, targets, weights)`. It can be iterated again.

    Raises:
        ValueError: if a label is no class; if images are to be skipped, or of a part, where the batches are padded.
            While it is iterated within `plain_errors`, if an image is unreadable.
    """
    if pad and (skip_unreadable or part):
        raise ValueError(
            "padding needs the number of all examples. "
            f"Received: pad=True, skip_unreadable={skip_unreadable}, part={part}"
        )
    if split.labels is not None:
        check_labels(split.labels, num_classes)
    examples = in_order(split, num_classes, input_spec, "drop" if skip_unreadable else None, skipped, part)
    weights, count = split.weights, len(split)
    if part:
        weights = None if weights is None else weights[part.index :: part.count]
        count, batch_size = -(-count // part.count), -(-batch_size // part.count)  # of the first worker
    batches = examples.batch(batch_size)
    if pad:
        batches = _padded(batches, count, batch_size, weights)
    elif weights is not None:
        rows = tf.data.Dataset.from_tensor_slices(tf.constant(weights, tf.float32)).batch(batch_size)
        batches = tf.data.Dataset.zip(batches, rows).map(lambda batch, row: (*batch, row))
    if part and len(range(part.index, len(split), part.count)) == (count - 1) // batch_size * batch_size:
        # The first worker has one batch more.
        empty = tuple(tf.zeros([0, *spec.shape[1:]], spec.dtype) for spec in batches.element_spec)
        batches = batches.concatenate(tf.data.Dataset.from_tensors(empty))

    def prepare(images, *rest):
        return normalize(images, input_spec), *rest

    batches = batches.map(prepare, num_parallel_calls=tf.data.AUTOTUNE)
    if not skip_unreadable:
        # Keras takes the end of a data set of unknown length for an interruption.
        batches = batches.apply(tf.data.experimental.assert_cardinality(-(-count // batch_size)))
    return batches.prefetch(tf.data.AUTOTUNE)


def _padded(batches, count, batch_size, weights):
    """Batches of one size, with the weights of `padding_weights` times those of the examples."""
    rows = -(-count // batch_size) * batch_size
    of_rows = padding_weights(count, rows)
    if weights is not None:
        of_rows[:count] *= weights
    table = tf.constant(of_rows.reshape(-1, batch_size))

    def pad(number, batch):
        padded = []
        for column in batch:
            missing = batch_size - tf.shape(column)[0]
            column = tf.pad(column, [[0, missing]] + [[0, 0]] * (column.shape.rank - 1))
            padded.append(tf.ensure_shape(column, (batch_size, *column.shape[1:])))
        return *padded, tf.gather(table, number)

    return batches.enumerate().map(pad)
