"""Batches for training and evaluation."""

import dataclasses

import tensorflow as tf

from keras_vit.data.augment.augment import augment_batch, changes_images
from keras_vit.data.augment.mixup import smooth_targets
from keras_vit.data.labels import check_labels, check_weights, padding_weights
from keras_vit.data.pipeline.epochs import EpochSchedule
from keras_vit.data.pipeline.tf_data_service import served_schedule
from keras_vit.data.pipeline.transforms import batched, cropped_examples, decoded_examples, gathered, ordered_examples
from keras_vit.data.pipeline.worker_shard import rows_for_shard, shard_by_files
from keras_vit.data.seeds import augmentation_seed
from keras_vit.data.sources.arrays import Split
from keras_vit.image_ops.resize import normalize


# AutoGraph has nothing to convert here, and its conversion would take longer than tracing.
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
    shard=None,
    service=None,
):
    """Makes shuffled, augmented, normalized batches for the rest of a run.

    The order of an epoch and all augmentation depend on `seed`, the epoch and the step alone: a run that is resumed at
    `first_step` of `first_epoch` sees the same batches as an uninterrupted one. That holds for splits in memory, for
    files, and for streams unless they were made with `deterministic=False`. Images of skipped steps are not decoded;
    only a stream still reads their records.

    Args:
        split: `Split`, `EncodedFiles` or `EncodedShards`.
        num_classes: int.
        input_spec: `InputSpec`; its mean and std normalize the images.
        batch_size: int. An incomplete last batch is dropped; its images differ from epoch to epoch.
        epochs: int. Of the whole run.
        seed: int.
        augment: `AugmentConfig`.
        first_epoch: int. The epoch that the dataset starts in. Default 0.
        steps_per_epoch: int or `None`. Cuts every epoch short; `None` for all of it.
        first_step: int. Steps of the first epoch to skip, from 0 to all of them. Default 0.
        repeats: int. Repeated augmentation: the number of copies of every sampled image in a batch. Default 1.
        label_smoothing: float in [0, 1). Smooths the targets; the loss must not smooth them again. Default 0.
        class_weights: sequence of `num_classes` floats or `None`. Weighs every example by its class, a mixed one by the
            mixed weight.
        skip_unreadable: bool. Replaces an unreadable image by the next readable one. Default False.
        skipped: list or `None`. Receives the names of skipped images.
        shard: `WorkerShard` or `None`. Gives one of several workers its rows of every batch, equal to those of the
            whole batch; the worker computes only these and their mixup partners. With `by_files` the worker gets
            batches of its own instead, as large as its share of the rows, from its own files of an `EncodedShards`; an
            epoch then has as many steps as the worker with the fewest examples. Default `None`: whole batches.
        service: `DataService` or `None`. Makes the batches, in an order of its own; with `shard` each goes to the
            next free worker and is as large as its share of the rows. Default `None`: this process, in order.

    Returns:
        A `tf.data.Dataset` of `(float32 images (batch, h, w, channels), float32 targets (batch, num_classes))`, with
        float32 weights `(batch,)` behind them where the split or the classes have weights, and the number of steps in
        an epoch.

    Raises:
        ValueError: if there are fewer images than a batch, or than the steps, need; if an epoch has no such first step;
            if a label is no class; if weights are combined with mixing or multi-hot labels; if a service is to skip
            unreadable images, or the number of workers that it serves does not divide the batch size. While the dataset
            is iterated within `unwrap_tf_errors`, if an image is unreadable.
    """
    if service and skip_unreadable:
        raise ValueError("a service cannot skip unreadable images. Received: service and skip_unreadable=True")
    if split.labels is not None:
        check_labels(split.labels, num_classes)
    multi_label = split.labels is not None and split.labels.ndim > 1
    check_weights(split.weights is not None, class_weights, multi_label, num_classes, augment)
    position = (first_epoch, first_step)
    split, schedule, steps = _schedule(
        split, batch_size, steps_per_epoch, epochs, seed, position, repeats, augment, shard, service
    )
    if isinstance(split, Split) and augment.crop_scale is None and not changes_images(augment):
        batches = gathered(split, num_classes, schedule)
    else:
        if isinstance(split, Split):
            examples = cropped_examples(split, num_classes, input_spec, augment, schedule)
        else:
            skip = "replace" if skip_unreadable else None
            examples = decoded_examples(split, num_classes, input_spec, augment, schedule, skip, skipped)
        batches = batched(examples, input_spec, augment, schedule)
        augment = dataclasses.replace(augment, flip=False)  # `batched` has flipped the single images: cheaper

    def finish(epoch, step, images, targets, *sample_weights):
        key = augmentation_seed(schedule.seed, epoch, step)
        images, targets = augment_batch(normalize(images, input_spec), targets, augment, key, input_spec, schedule.rows)
        images = tf.ensure_shape(images, (schedule.local_batch_size, *input_spec.size, input_spec.num_channels))
        if class_weights is not None:
            weights = tf.linalg.matvec(targets, tf.constant(class_weights, tf.float32))
            sample_weights = (weights * sample_weights[0] if sample_weights else weights,)
        return images, smooth_targets(targets, label_smoothing), *sample_weights

    batches = batches.map(finish, num_parallel_calls=tf.data.AUTOTUNE)
    return (service.distribute(batches) if service else batches).prefetch(tf.data.AUTOTUNE), steps


def steps_of_epoch(split, batch_size, shard=None):
    """Counts the whole batches of an epoch; with a `WorkerShard` by files those that every worker has.

    Args:
        split, batch_size, part: as for `training_dataset`.

    Raises:
        ValueError: if there are none.
    """
    whole = shard_by_files(split, batch_size, 0, shard)[3] if shard and shard.by_files else len(split) // batch_size
    if not whole:
        raise ValueError(
            f"a training split must hold at least one batch. Received: {len(split)} images, batch_size={batch_size}"
        )
    return whole


def _schedule(split, batch_size, steps_per_epoch, epochs, seed, position, repeats, augment, shard, service):
    """Returns the split to read, its `EpochSchedule` and the steps of an epoch."""
    if service and shard:
        shard = dataclasses.replace(shard, by_files=False)
    whole = steps_of_epoch(split, batch_size, shard)
    if shard and shard.by_files:
        split, batch_size, seed, _ = shard_by_files(split, batch_size, seed, shard)
        shard = None
    steps, (first_epoch, first_step) = steps_per_epoch or whole, position
    if steps > whole:
        raise ValueError(
            f"steps_per_epoch must be at most {whole}, at {batch_size} images a step. "
            f"Received: steps_per_epoch={steps_per_epoch}"
        )
    if not 0 <= first_step <= steps:
        raise ValueError(f"first_step must be in 0..{steps}. Received: first_step={first_step!r}")
    if service:
        schedule = served_schedule(batch_size, steps, epochs, seed, first_epoch, first_step, repeats, shard)
    else:
        rows = rows_for_shard(batch_size, shard, augment) if shard else None
        schedule = EpochSchedule(batch_size, steps, epochs, seed, first_epoch, first_step, repeats, rows)
    return split, schedule, steps


@tf.autograph.experimental.do_not_convert
def evaluation_dataset(
    split, num_classes, input_spec, batch_size, *, pad=False, skip_unreadable=False, skipped=None, shard=None
):
    """Makes normalized batches in order, every example exactly once.

    Args:
        split, num_classes, input_spec, batch_size: as for `training_dataset`.
        pad: bool. Whether to pad the last batch with black images, for steps that are compiled for one size and for
            strategies that divide a batch. Every batch then has weights: compile with `weighted_metrics=`, and the
            loss and the metrics of `evaluate` are those of the real examples. Default False: the last batch may be
            short.
        skip_unreadable: bool. Leaves unreadable images out. Default False.
        skipped: list or `None`. Receives their names.
        shard: `WorkerShard` or `None`. Selects every `count`-th example, in batches of the worker's share of the rows.
            Default `None`: all examples.

    Returns:
        A `tf.data.Dataset` of `(images, targets)` or `(images, targets, weights)`. It can be iterated again.

    Raises:
        ValueError: if a label is no class; if `pad` is combined with `skip_unreadable` or `shard`. While the dataset is
            iterated within `unwrap_tf_errors`, if an image is unreadable.
    """
    if pad and (skip_unreadable or shard):
        raise ValueError(
            "pad=True excludes skip_unreadable and shard: it needs the number of all examples. "
            f"Received: pad=True, skip_unreadable={skip_unreadable}, shard={shard}"
        )
    if split.labels is not None:
        check_labels(split.labels, num_classes)
    examples = ordered_examples(split, num_classes, input_spec, "drop" if skip_unreadable else None, skipped, shard)
    weights, count = split.weights, len(split)
    if shard:
        weights = None if weights is None else weights[shard.index :: shard.count]
        count, batch_size = -(-count // shard.count), -(-batch_size // shard.count)  # of the first worker
    batches = examples.batch(batch_size)
    if pad:
        batches = _padded(batches, count, batch_size, weights)
    elif weights is not None:
        rows = tf.data.Dataset.from_tensor_slices(tf.constant(weights, tf.float32)).batch(batch_size)
        batches = tf.data.Dataset.zip(batches, rows).map(lambda batch, row: (*batch, row))
    if shard and len(range(shard.index, len(split), shard.count)) == (count - 1) // batch_size * batch_size:
        # The first worker has one batch more.
        empty = tuple(tf.zeros([0, *spec.shape[1:]], spec.dtype) for spec in batches.element_spec)
        batches = batches.concatenate(tf.data.Dataset.from_tensors(empty))

    def prepare(images, *rest):
        return normalize(images, input_spec), *rest

    batches = batches.map(prepare, num_parallel_calls=tf.data.AUTOTUNE)
    if not skip_unreadable:
        # Keras warns at the end of a dataset of unknown length.
        batches = batches.apply(tf.data.experimental.assert_cardinality(-(-count // batch_size)))
    return batches.prefetch(tf.data.AUTOTUNE)


def _padded(batches, count, batch_size, weights):
    """Pads the last batch and adds the weights of `padding_weights` times those of the examples."""
    rows = -(-count // batch_size) * batch_size
    row_weights = padding_weights(count, rows)
    if weights is not None:
        row_weights[:count] *= weights
    table = tf.constant(row_weights.reshape(-1, batch_size))

    def pad(number, batch):
        padded = []
        for column in batch:
            missing = batch_size - tf.shape(column)[0]
            column = tf.pad(column, [[0, missing]] + [[0, 0]] * (column.shape.rank - 1))
            padded.append(tf.ensure_shape(column, (batch_size, *column.shape[1:])))
        return *padded, tf.gather(table, number)

    return batches.enumerate().map(pad)
