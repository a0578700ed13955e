"""Evaluation of data sets that do not fit into memory: images pass by once, prepared by Pillow as they come."""

import collections
import concurrent.futures
import io
import itertools
import os

import tensorflow as tf

from keras_vit.data.folder import list_images
from keras_vit.data.pipeline import check_labels


def evaluation_stream(source, split, input_spec, num_classes, batch_size):
    """Normalised batches in order, every example exactly once; the last batch may be short.

    Args:
        source: `Source` with `examples`.
        split: str.
        input_spec: `InputSpec` that prepares the images.
        num_classes: int.
        batch_size: int.

    Returns:
        A `tf.data.Dataset` of `(float32 images (batch, h, w, channels), float32 one-hot (batch, num_classes))`.

    Raises:
        ValueError: where it is iterated, if an image is unreadable or a label no class.
    """

    examples, count = source.examples(split)

    def batches():
        prepared = _prepared(examples, input_spec)
        while rows := list(itertools.islice(prepared, batch_size)):
            images, labels = (tf.stack(column) for column in zip(*rows, strict=True))
            check_labels(labels.numpy(), num_classes)
            yield input_spec.normalize(images.numpy()), tf.one_hot(labels, num_classes)

    shapes = ((None, *input_spec.size, input_spec.num_channels), (None, num_classes))
    signature = tuple(tf.TensorSpec(shape, tf.float32) for shape in shapes)
    dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)
    if count is not None:  # a progress bar wants to know
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(-(-count // batch_size)))
    return dataset.prefetch(2)


def _prepared(examples, input_spec):
    """`(uint8 image, label)` in order, a few images ahead in threads: Pillow lets go of the interpreter's lock."""
    workers = os.cpu_count()
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        waiting = collections.deque()
        for image, label in examples:
            waiting.append((pool.submit(input_spec.resize, image), label))
            if len(waiting) >= 4 * workers:
                future, known = waiting.popleft()
                yield future.result(), known
        for future, known in waiting:
            yield future.result(), known


def folder_examples(folder, split):
    """An iterator of `(path, label)` of a folder's images, and how many there are."""
    paths, labels, _ = list_images(folder, split)
    return zip(paths, labels, strict=True), len(paths)


def tfds_examples(dataset):
    """As `folder_examples`, of a TFDS data set whose images are left undecoded; the number may be `None`."""
    pairs = ((io.BytesIO(example["image"]), int(example["label"])) for example in dataset.as_numpy_iterator())
    count = int(dataset.cardinality())
    return pairs, count if count >= 0 else None
