"""Batches for training and evaluation."""

import tensorflow as tf

from keras_vit.data.augment import affine, mixup


def check_labels(labels, num_classes):
    """Raises a `ValueError` where a label is no class: `tf.one_hot` would make a row of zeros of it."""
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise ValueError(f"labels must be in 0..{num_classes - 1}. Received: {low}..{high}")


def check_not_empty(count, name, split):
    """Raises a `ValueError` unless a split of the data set `name` has an image."""
    if not count:
        raise ValueError(f"a data set must hold at least one image. Received: {name!r}, split {split!r}: empty")


def training_dataset(
    split, num_classes, input_spec, batch_size, epochs, seed, augment, first_epoch=0, steps_per_epoch=None
):
    """Shuffled, augmented, normalised batches for the rest of a run.

    The order of an epoch and every random change depend on `seed`, the epoch and the step alone: a run that
    goes on at `first_epoch` sees what an uninterrupted one would have seen.

    Args:
        split: `Split`.
        num_classes: int.
        input_spec: `InputSpec`; its mean and std normalise.
        batch_size: int. What remains of an epoch is dropped; which images differs from epoch to epoch.
        epochs: int. Of the whole run.
        seed: int.
        augment: `AugmentConfig`.
        first_epoch: int.
        steps_per_epoch: int or `None`. Cuts every epoch short; `None` for all of it.

    Returns:
        A `tf.data.Dataset` of `(float32 images (batch, h, w, channels), float32 one-hot (batch, num_classes))`,
        and the number of steps in an epoch.

    Raises:
        ValueError: if there are fewer images than a batch, or than the steps, need; if a label is no class.
    """
    whole = len(split) // batch_size
    if not whole:
        raise ValueError(
            f"a training split must hold at least one batch. Received: {len(split)} images, batch_size={batch_size}"
        )
    steps = steps_per_epoch or whole
    if steps > whole:
        raise ValueError(
            f"an epoch has {whole} steps of {batch_size} images at most. Received: steps_per_epoch={steps_per_epoch}"
        )
    check_labels(split.labels, num_classes)
    images, labels = tf.constant(split.images), tf.constant(split.labels)

    def one_epoch(epoch):
        order = tf.random.experimental.stateless_shuffle(
            tf.range(len(split)), seed=tf.stack([seed, tf.cast(epoch, tf.int32)])
        )
        batches = tf.reshape(order[: steps * batch_size], (steps, batch_size))
        return tf.data.Dataset.from_tensor_slices((tf.repeat(epoch, steps), tf.range(steps), batches))

    def batch(epoch, step, examples):
        key = tf.random.fold_in(tf.stack([seed, 1 + tf.cast(epoch, tf.int32)]), step)
        x = affine(tf.gather(images, examples), augment, key)
        y = tf.one_hot(tf.gather(labels, examples), num_classes)
        x, y = mixup(input_spec.normalize(x), y, augment.mixup, key)
        return tf.ensure_shape(x, (batch_size, *split.images.shape[1:])), y

    dataset = tf.data.Dataset.range(first_epoch, epochs).flat_map(one_epoch)
    return dataset.map(batch, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE), steps


def evaluation_dataset(split, num_classes, input_spec, batch_size):
    """Normalised batches in order, every example exactly once; the last batch may be short.

    Args:
        split, num_classes, input_spec, batch_size: as for `training_dataset`.

    Returns:
        A `tf.data.Dataset` of `(images, one-hot rows)`.

    Raises:
        ValueError: if a label is no class.
    """
    check_labels(split.labels, num_classes)

    def prepare(images, labels):
        return input_spec.normalize(images), tf.one_hot(labels, num_classes)

    dataset = tf.data.Dataset.from_tensor_slices((split.images, split.labels)).batch(batch_size)
    return dataset.map(prepare, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
