"""Splits whose images stay encoded until a step wants them: files that are found by number, and shards that stream.

Both give `(number, record)` elements: `in_order` all of them once, `epoch` in the order of an epoch, and `read`, in
the graph, makes `(encoded image, label)` of a record. Nothing random is drawn here but the order.
"""

import dataclasses
import functools
import itertools

import numpy as np
import tensorflow as tf

from keras_vit.data.augment.random_crop import prepare
from keras_vit.data.seeds import epoch_seed, hashed, repeated, shuffled
from keras_vit.data.sources.arrays import drawn_part
from keras_vit.data.unreadable import unreadable
from keras_vit.image_ops.pillow_reader import UnreadableImage, image_size


@dataclasses.dataclass(frozen=True)
class Opened:
    """What TFDS and TFRecords have in common.

    Args:
        name: str.
        class_names: tuple of str.
        num_channels: int.
        encoded: callable `split name -> EncodedShards`.
    """

    name: str
    class_names: tuple
    num_channels: int
    encoded: object


_TRIED = 100  # images of which one must be readable
CYCLE, BLOCK = 16, 16  # files that are read by turns, and records of a turn


class Encoded:
    """What `EncodedFiles` and `EncodedShards` share. Their examples have no weights of their own."""

    weights = None

    def example(self, input_spec):
        """The first readable uint8 image, prepared for evaluation, and its label.

        Raises:
            ValueError: if none of the first images is readable, with their names.
        """

        def decoded(data, label):
            return prepare(tf.constant(data), input_spec).numpy(), label

        return self._first(decoded)

    def image_size(self):
        """`(height, width)` of the first readable image as it is stored, upright; raises as `example`."""
        return self._first(lambda data, label: image_size(data))

    def _first(self, function):
        """What a function of bytes and label returns for the first image for which it does not fail."""
        names = []
        for name, data, label in itertools.islice(self.examples(), _TRIED):
            try:
                return function(data, label)
            except (UnreadableImage, tf.errors.OpError, UnicodeDecodeError):  # the last of errors that quote the bytes
                names.append(name)
        raise unreadable(names)

    def examples(self):
        """An iterator of `(name, bytes, label)`, in order."""
        for number, record in self.in_order():
            data, label = self.read(record)
            yield self.name_of(int(number)), data.numpy(), label.numpy()

    def cached(self):
        """The same split with the encoded bytes in memory."""
        names, contents, labels = zip(*self.examples(), strict=True)
        return EncodedFiles(names, np.stack(labels), contents)


class EncodedFiles(Encoded):
    """Encoded images that are found by their number: any order costs the same, so an epoch is shuffled wholly.

    Args:
        names: sequence of str, the paths.
        labels: int64 array `(examples,)` or float32 rows `(examples, classes)`.
        contents: sequence of bytes, the encoded images; `None` reads them from the paths, each when it is needed.
    """

    def __init__(self, names, labels, contents=None):
        self.names, self.labels, self.contents = list(names), np.asarray(labels), contents
        with tf.init_scope():
            self._source = tf.constant(self.names if contents is None else list(contents), tf.string)
            self._labels = tf.constant(self.labels)

    def __len__(self):
        return len(self.names)

    def name_of(self, number):
        """The path of an example."""
        return self.names[number]

    def in_order(self):
        """Dataset of all `(number, record)`; here the record is the number."""
        return tf.data.Dataset.range(len(self)).map(lambda number: (number, number))

    def epoch(self, seed, epoch, repeats=1):
        """As `in_order`, in the order of an epoch: a function of `seed`, `epoch` and `repeats` alone."""
        order = tf.cast(repeated(shuffled(len(self), seed, epoch), repeats), tf.int64)
        return tf.data.Dataset.from_tensor_slices((order, order))

    def read(self, number):
        """`(encoded image, label)` of a record."""
        data = tf.gather(self._source, number)
        return data if self.contents is not None else tf.io.read_file(data), tf.gather(self._labels, number)

    def divide(self, fraction):
        """As `Split.divide`."""
        part = drawn_part(self.labels, fraction)
        return self._take(~part), self._take(part)

    def _take(self, marks):
        chosen = np.flatnonzero(marks)
        contents = None if self.contents is None else [self.contents[i] for i in chosen]
        return EncodedFiles([self.names[i] for i in chosen], self.labels[chosen], contents)


class EncodedShards(Encoded):
    """Encoded images in files that are read from beginning to end.

    An epoch takes the files in an order of its own, 16 of them by turns, and draws every example from a buffer.
    With `deterministic` that is a function of the run's seed and the epoch: a run that goes on at an epoch sees what
    an uninterrupted one would have seen.

    Args:
        names: sequence of str, the files.
        counts: sequence of int, the examples that are taken of each.
        open_shard: callable from a file's number (int64 tensor) to a dataset of its records.
        parse: callable from a record to `(encoded image, label)`, in the graph.
        buffer: int. Examples of the shuffle buffer.
        deterministic: bool.
        part: `(low, high)`, floats in [0, 1]: only the examples whose number, hashed, is in this part. Default all.
        shards: sequence of int or `None`. Only these of the files. Default all.
    """

    labels = None

    def __init__(
        self, names, counts, open_shard, parse, buffer=16384, deterministic=True, part=(0.0, 1.0), shards=None
    ):
        self.names, self.counts, self.part = list(names), [int(count) for count in counts], part
        self.open_shard, self.parse, self.buffer, self.deterministic = open_shard, parse, buffer, deterministic
        self.shards = [*range(len(self.names))] if shards is None else list(shards)
        self._starts = np.cumsum([0, *self.counts])
        self._bounds = [round(edge * 2**32) for edge in part]
        with tf.init_scope():
            self._start_tensor = tf.constant(self._starts, tf.int64)
            self._shard_tensor = tf.constant(self.shards, tf.int64)

    @functools.cached_property
    def lengths(self):
        """tuple of int: the examples of each of the files that belong to this part."""
        numbers = hashed(np.arange(self._starts[-1], dtype="int64"))
        belongs = (numbers >= self._bounds[0]) & (numbers < self._bounds[1])
        return tuple(int(belongs[self._starts[i] : self._starts[i + 1]].sum()) for i in range(len(self.names)))

    def __len__(self):
        return sum(self.lengths[i] for i in self.shards)

    def name_of(self, number):
        """`record 7 of file`."""
        shard = int(np.searchsorted(self._starts, number, side="right")) - 1
        return f"record {number - self._starts[shard]} of {self.names[shard]}"

    def in_order(self):
        """Dataset of all `(number, record)`, file by file."""
        return tf.data.Dataset.from_tensor_slices(self._shard_tensor).flat_map(self.records_of)

    def epoch(self, seed, epoch, repeats=1):
        """As `in_order`, in the order of an epoch; with `repeats`, every record so many times in a row."""
        # Of the function that is being traced: an order must not depend on TensorFlow's global seed.
        tf.random.set_seed(1)
        files = tf.gather(self._shard_tensor, shuffled(len(self.shards), seed, epoch))
        records = tf.data.Dataset.from_tensor_slices(files).interleave(
            self.records_of,
            cycle_length=min(CYCLE, len(self.shards)),
            block_length=BLOCK,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=self.deterministic,
        )
        drawn = tf.random.stateless_uniform([], epoch_seed(seed, epoch), maxval=2**31 - 1, dtype=tf.int64)
        records = records.shuffle(min(self.buffer, len(self)), seed=drawn, reshuffle_each_iteration=False)
        if repeats > 1:
            records = records.flat_map(lambda *record: tf.data.Dataset.from_tensors(record).repeat(repeats))
        return records.take(len(self))

    def records_of(self, shard):
        """Dataset of the `(number, record)` of a file that belong to this part."""
        records = self.open_shard(shard).enumerate(tf.gather(self._start_tensor, shard))
        if self.part == (0.0, 1.0):
            return records
        low, high = self._bounds
        return records.filter(lambda number, record: (hashed(number) >= low) & (hashed(number) < high))

    def read(self, record):
        """`(encoded image, label)` of a record."""
        return self.parse(record)

    def divide(self, fraction):
        """`(the rest, a part of about this fraction)`, drawn by the hash of every example's number.

        Raises:
            ValueError: if one of the two would be empty.
        """
        low, high = self.part
        edge = low + (high - low) * fraction
        part, rest = self._of((low, edge), self.shards), self._of((edge, high), self.shards)
        if not len(part) or not len(rest):
            raise ValueError(
                f"a part and its rest must both hold an image. Received: fraction={fraction} of {len(self)} images"
            )
        return rest, part

    def of_files(self, index, count):
        """Of every `count` files the `index`-th: what one of `count` workers reads."""
        return self._of(self.part, self.shards[index::count])

    def _of(self, part, shards):
        settings = (self.open_shard, self.parse, self.buffer, self.deterministic, part, shards)
        return EncodedShards(self.names, self.counts, *settings)
