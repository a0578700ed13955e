"""Splits of encoded images, decoded on demand: files with random access, and sharded streams.

Both yield `(number, record)`: `in_order` yields all records once, `epoch` shuffles them for an epoch. `read` converts a
record to `(encoded image, label)` in the graph. Only the order is random here.
"""

import dataclasses
import functools
import itertools

import numpy as np
import tensorflow as tf

from keras_vit.data.augment.random_crop import prepare
from keras_vit.data.seeds import epoch_seed, hashed, repeated, shuffled
from keras_vit.data.sources.arrays import stratified_mask
from keras_vit.data.unreadable import unreadable
from keras_vit.image_ops.pillow_reader import UnreadableImage, image_size


@dataclasses.dataclass(frozen=True)
class EncodedDataset:
    """An opened data set of encoded images: TFRecords, TensorFlow Datasets or synthetic images.

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


_MAX_TRIES = 100  # images of which one must be readable
CYCLE, BLOCK = 16, 16  # files read in turn, and records per turn


class Encoded:
    """Base of `EncodedFiles` and `EncodedShards`, whose examples have no sample weights."""

    weights = None

    def example(self, input_spec):
        """Returns the first readable uint8 image, prepared for evaluation, and its label.

        Raises:
            ValueError: if none of the first images is readable, with their names.
        """

        def decoded(data, label):
            return prepare(tf.constant(data), input_spec).numpy(), label

        return self._first(decoded)

    def image_size(self):
        """Returns `(height, width)` of the first readable image, upright; raises as `example`."""
        return self._first(lambda data, label: image_size(data))

    def _first(self, function):
        """Applies a function of bytes and label to the first image for which it does not fail."""
        names = []
        for name, data, label in itertools.islice(self.examples(), _MAX_TRIES):
            try:
                return function(data, label)
            except (
                UnreadableImage,
                tf.errors.OpError,
                UnicodeDecodeError,
            ):  # The last is raised by messages that quote the bytes.
                names.append(name)
        raise unreadable(names)

    def examples(self):
        """Yields `(name, bytes, label)`, in order."""
        for number, record in self.in_order():
            data, label = self.read(record)
            yield self.name_of(int(number)), data.numpy(), label.numpy()

    def cached(self):
        """Reads the encoded bytes into memory and returns the same split over them."""
        names, contents, labels = zip(*self.examples(), strict=True)
        return EncodedFiles(names, np.stack(labels), contents)


class EncodedFiles(Encoded):
    """Encoded images with random access: an epoch is shuffled fully.

    Args:
        names: sequence of str, the paths.
        labels: int64 array `(examples,)` or float32 rows `(examples, classes)`.
        contents: sequence of bytes, the encoded images; `None` reads them from the paths on demand.
    """

    def __init__(self, names, labels, contents=None):
        self.names, self.labels, self.contents = list(names), np.asarray(labels), contents
        with tf.init_scope():
            self._source = tf.constant(self.names if contents is None else list(contents), tf.string)
            self._labels = tf.constant(self.labels)

    def __len__(self):
        return len(self.names)

    def name_of(self, number):
        """Returns the path of an example."""
        return self.names[number]

    def in_order(self):
        """Returns a dataset of all `(number, record)`; here the record is the number."""
        return tf.data.Dataset.range(len(self)).map(lambda number: (number, number))

    def epoch(self, seed, epoch, repeats=1):
        """Returns `in_order` shuffled for an epoch: a function of `seed`, `epoch` and `repeats` alone."""
        order = tf.cast(repeated(shuffled(len(self), seed, epoch), repeats), tf.int64)
        return tf.data.Dataset.from_tensor_slices((order, order))

    def read(self, number):
        """Returns `(encoded image, label)` of a record."""
        data = tf.gather(self._source, number)
        return data if self.contents is not None else tf.io.read_file(data), tf.gather(self._labels, number)

    def divide(self, fraction):
        """Divides the split as `Split.divide`."""
        mask = stratified_mask(self.labels, fraction)
        return self._select(~mask), self._select(mask)

    def _select(self, mask):
        indices = np.flatnonzero(mask)
        contents = None if self.contents is None else [self.contents[i] for i in indices]
        return EncodedFiles([self.names[i] for i in indices], self.labels[indices], contents)


class EncodedShards(Encoded):
    """Encoded images in files that are read sequentially.

    An epoch shuffles the files, interleaves 16 of them, and samples every example from a shuffle buffer. With
    `deterministic` that is a function of the run's seed and the epoch: a resumed run sees the same examples as an
    uninterrupted one.

    Args:
        names: sequence of str, the files.
        counts: sequence of int, the examples of each file.
        open_shard: callable from a file's number (int64 tensor) to a dataset of its records.
        parse: callable from a record to `(encoded image, label)`, in the graph.
        buffer: int. Examples of the shuffle buffer.
        deterministic: bool.
        hash_range: `(low, high)`, floats in [0, 1]. Selects the examples whose hashed number is in this range. Default
            all.
        shards: sequence of int or `None`. Indices of the files to read. Default all.
    """

    labels = None

    def __init__(
        self, names, counts, open_shard, parse, buffer=16384, deterministic=True, hash_range=(0.0, 1.0), shards=None
    ):
        self.names, self.counts = list(names), [int(count) for count in counts]
        self.open_shard, self.parse, self.buffer, self.deterministic = open_shard, parse, buffer, deterministic
        self.shards = [*range(len(self.names))] if shards is None else list(shards)
        self._starts = np.cumsum([0, *self.counts])
        self.hash_range = hash_range
        self._bounds = [round(edge * 2**32) for edge in hash_range]
        with tf.init_scope():
            self._start_tensor = tf.constant(self._starts, tf.int64)
            self._shard_tensor = tf.constant(self.shards, tf.int64)

    @functools.cached_property
    def lengths(self):
        """tuple of int. Selected examples of each file."""
        numbers = hashed(np.arange(self._starts[-1], dtype="int64"))
        belongs = (numbers >= self._bounds[0]) & (numbers < self._bounds[1])
        return tuple(int(belongs[self._starts[i] : self._starts[i + 1]].sum()) for i in range(len(self.names)))

    def __len__(self):
        return sum(self.lengths[i] for i in self.shards)

    def name_of(self, number):
        """Names an example: `record 7 of <file>`."""
        shard = int(np.searchsorted(self._starts, number, side="right")) - 1
        return f"record {number - self._starts[shard]} of {self.names[shard]}"

    def in_order(self):
        """Returns a dataset of all `(number, record)`, file by file."""
        return tf.data.Dataset.from_tensor_slices(self._shard_tensor).flat_map(self.records_of)

    def epoch(self, seed, epoch, repeats=1):
        """Returns `in_order` shuffled for an epoch; with `repeats`, every record that many times in a row."""
        # The seed of the traced function: the order must not depend on TensorFlow's global seed.
        tf.random.set_seed(1)
        files = tf.gather(self._shard_tensor, shuffled(len(self.shards), seed, epoch))
        records = tf.data.Dataset.from_tensor_slices(files).interleave(
            self.records_of,
            cycle_length=min(CYCLE, len(self.shards)),
            block_length=BLOCK,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=self.deterministic,
        )
        shuffle_seed = tf.random.stateless_uniform([], epoch_seed(seed, epoch), maxval=2**31 - 1, dtype=tf.int64)
        records = records.shuffle(min(self.buffer, len(self)), seed=shuffle_seed, reshuffle_each_iteration=False)
        if repeats > 1:
            records = records.flat_map(lambda *record: tf.data.Dataset.from_tensors(record).repeat(repeats))
        return records.take(len(self))

    def records_of(self, shard):
        """Returns a dataset of the selected `(number, record)` of a file."""
        records = self.open_shard(shard).enumerate(tf.gather(self._start_tensor, shard))
        if self.hash_range == (0.0, 1.0):
            return records
        low, high = self._bounds
        return records.filter(lambda number, record: (hashed(number) >= low) & (hashed(number) < high))

    def read(self, record):
        """Returns `(encoded image, label)` of a record."""
        return self.parse(record)

    def divide(self, fraction):
        """Divides the split into `(rest, subset of about this fraction)` by the hash of every example's number.

        Raises:
            ValueError: if one of the two would be empty.
        """
        low, high = self.hash_range
        edge = low + (high - low) * fraction
        subset, rest = self._select((low, edge), self.shards), self._select((edge, high), self.shards)
        if not len(subset) or not len(rest):
            raise ValueError(
                f"both parts of a divided split need an image. Received: fraction={fraction} of {len(self)} images"
            )
        return rest, subset

    def shard_files(self, index, count):
        """Selects every `count`-th file from `index` on: the shard of one of `count` workers."""
        return self._select(self.hash_range, self.shards[index::count])

    def _select(self, hash_range, shards):
        settings = (self.open_shard, self.parse, self.buffer, self.deterministic, hash_range, shards)
        return EncodedShards(self.names, self.counts, *settings)
