"""Evaluation of data sets that do not fit into memory: images pass by once, prepared by Pillow as they come."""

import collections
import concurrent.futures
import contextlib
import dataclasses
import io
import itertools
import os
import warnings

import numpy as np
import tensorflow as tf

from keras_vit.data.readable import expected_end, left_out, unreadable
from keras_vit.data.split import Split
from keras_vit.data.targets import check_labels, check_not_empty, one_hot


@dataclasses.dataclass
class Stream:
    """Batches that can be iterated once, and what became of them.

    Args:
        dataset: a `tf.data.Dataset` of `(float32 images (batch, h, w, c), float32 one-hot (batch, num_classes))`.
        count: int. The images that came so far.
        skipped: list of str. The unreadable images that were left out so far.
        failure: the exception that ended the iteration, or `None`.
    """

    dataset: tf.data.Dataset | None = None
    count: int = 0
    skipped: list = dataclasses.field(default_factory=list)
    failure: Exception | None = None

    @contextlib.contextmanager
    def one_pass(self):
        """A context with the dataset, in which Keras may go through it: raises what went wrong as it was.

        TensorFlow would make an error of its own of it, with the stack of its generator for a message.
        """
        with expected_end():
            try:
                yield self.dataset
            except tf.errors.OpError:
                if self.failure is None:
                    raise
                raise self.failure from None


def evaluation_stream(source, split, input_spec, num_classes, batch_size, skip_unreadable=False):
    """Normalised batches in order, every example exactly once; the last batch may be short.

    Args:
        source: `Source` with `examples`.
        split: str.
        input_spec: `InputSpec` that prepares the images.
        num_classes: int.
        batch_size: int.
        skip_unreadable: bool. Leave unreadable images out and list them. Default False.

    Returns:
        A `Stream`.

    Raises:
        ValueError: if there are no images; where it is iterated, within `one_pass`, also if an image is unreadable
            or a label no class.
    """
    examples, count = source.examples(split)
    if count is not None:
        check_not_empty(count, source.name, split)
    stream = Stream()

    def read_batches():
        prepared = _readable(_prepared(examples, input_spec), stream.skipped if skip_unreadable else None)
        while rows := list(itertools.islice(prepared, batch_size)):
            images, labels = (tf.stack(column) for column in zip(*rows, strict=True))
            check_labels(labels.numpy(), num_classes)
            stream.count += len(rows)
            yield input_spec.normalize(images.numpy()), one_hot(labels, num_classes)
        check_not_empty(stream.count, source.name, split)

    def batches():
        try:
            yield from read_batches()
        except Exception as error:
            stream.failure = error
            raise

    shapes = ((None, *input_spec.size, input_spec.num_channels), (None, num_classes))
    signature = tuple(tf.TensorSpec(shape, tf.float32) for shape in shapes)
    dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)
    if count is not None and not skip_unreadable:  # a progress bar wants to know
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(-(-count // batch_size)))
    stream.dataset = dataset.prefetch(2)
    return stream


def _prepared(examples, input_spec):
    """`(name, uint8 image or the error, label)` in order.

    A few images ahead in threads: Pillow lets go of the interpreter's lock.
    """

    def read(image):
        try:
            return input_spec.resize(image)
        except ValueError as error:
            return error

    workers = os.cpu_count()
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        waiting = collections.deque()
        for number, (image, label) in enumerate(examples):
            name = getattr(image, "name", f"example {number}") if isinstance(image, io.BytesIO) else str(image)
            waiting.append((name, pool.submit(read, image), label))
            if len(waiting) >= 4 * workers:
                name, future, known = waiting.popleft()
                yield name, future.result(), known
        for name, future, known in waiting:
            yield name, future.result(), known


def _readable(prepared, skipped):
    """`(uint8 image, label)` of what is readable; the names of the others go to the list `skipped`, if there is one."""
    for name, image, label in prepared:
        if not isinstance(image, ValueError):
            yield image, label
        elif skipped is None:
            raise unreadable([name], image.__cause__ or image) from image
        else:
            skipped.append(name)


class NamedBytes(io.BytesIO):
    """An encoded image in memory, with a name for errors."""

    def __init__(self, data, name):
        super().__init__(data)
        self.name = name


def read_examples(examples, input_spec, skip_unreadable=False):
    """Reads all images into memory.

    Args:
        examples: iterator of `(image, label)` with what `InputSpec.resize` takes.
        input_spec: `InputSpec` that prepares the images.
        skip_unreadable: bool. Leave unreadable images out, with a warning that names them. Default False.

    Returns:
        A `Split`.

    Raises:
        ValueError: if an image is unreadable.
    """
    skipped = [] if skip_unreadable else None
    pairs = list(_readable(_prepared(examples, input_spec), skipped))
    if skipped:
        warnings.warn(left_out(skipped), stacklevel=2)
    images, labels = zip(*pairs, strict=True) if pairs else ((), np.zeros(0, "int64"))
    return Split(np.array(images, "uint8"), np.array(labels))
