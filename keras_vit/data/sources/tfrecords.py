"""TFRecords of `tf.train.Example`: encoded images with labels, written and read."""

import dataclasses
import gzip
import json
import os
import pathlib
import struct

import numpy as np
import tensorflow as tf

from keras_vit.data.sources.encoded import EncodedDataset, EncodedShards

IMAGE, LABEL = "image/encoded", "image/class/label"
_HEADER = struct.Struct("<QI")  # length, checksum; behind the data comes another checksum


def write_tfrecords(folder, split, examples, class_names=None, shards=16, origin=None):
    """Writes a split as `<folder>/<split>-00000-of-00016.tfrecord` ..., and what is known of it as `<split>.json`.

    Examples are dealt to the files in turn. Without the JSON file, which is written last, a split is not complete.

    Args:
        folder: path.
        split: str.
        examples: iterable of `(image, label)`: a path, bytes of a JPEG or PNG, or a uint8 array `(h, w, channels)`,
            stored as PNG; an int, or a multi-hot row.
        class_names: sequence of str or `None`.
        shards: int. Files. Default 16.
        origin: any JSON value, stored beside the counts.

    Returns:
        int, the examples that were written.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{split}-{i:05d}-of-{shards:05d}.tfrecord" for i in range(shards)]
    (folder / f"{split}.json").unlink(missing_ok=True)
    counts = [0] * shards
    writers = [tf.io.TFRecordWriter(str(path)) for path in paths]
    try:
        for number, (image, label) in enumerate(examples):
            writers[number % shards].write(_serialized(image, label))
            counts[number % shards] += 1
    finally:
        for writer in writers:
            writer.close()
    known = {"files": [path.name for path in paths], "examples": counts, "origin": origin}
    known["class_names"] = None if class_names is None else [*class_names]
    partial = folder / f"{split}.json.partial"
    partial.write_text(json.dumps(known, indent=1) + "\n")
    os.replace(partial, folder / f"{split}.json")
    return sum(counts)


def _serialized(image, label):
    if isinstance(image, np.ndarray):
        image = tf.io.encode_png(image).numpy()
    elif not isinstance(image, bytes):
        image = pathlib.Path(image).read_bytes()
    classes = [int(label)] if np.ndim(label) == 0 else np.flatnonzero(label).tolist()
    features = {
        IMAGE: tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
        LABEL: tf.train.Feature(int64_list=tf.train.Int64List(value=classes)),
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def open_tfrecords(config):
    """The data set of `DataConfig.tfrecords`.

    Args:
        config: `DataConfig`; `num_classes`, `multi_label`, `image_key`, `label_key` and `label_offset` count too.

    Returns:
        An `EncodedDataset`. Images have three channels.

    Raises:
        ValueError: if there are no files, or the number of classes is unknown.
    """
    names = _known(config, config.train_split).get("class_names")
    if names is None and config.num_classes is None:
        raise ValueError(
            "TFRecords that do not name their classes need data.num_classes. "
            f"Received: {config.tfrecords!r}, num_classes=None"
        )
    names = tuple(names) if names is not None else tuple(str(i) for i in range(config.num_classes))
    return EncodedDataset(str(config.tfrecords), names, 3, lambda split: _split(config, split, len(names)))


def _known(config, split):
    """Reads the description that `write_tfrecords` wrote for a split; an empty dict for files of other programs."""
    path = pathlib.Path(config.tfrecords) / f"{split}.json"
    return json.loads(path.read_text()) if "{split}" not in config.tfrecords and path.exists() else {}


def _split(config, split, num_classes):
    known = _known(config, split)
    if known:
        paths = [str(pathlib.Path(config.tfrecords) / name) for name in known["files"]]
        counts = known["examples"]
    else:
        pattern = config.tfrecords.format(split=split) if "{split}" in config.tfrecords else None
        paths = sorted(tf.io.gfile.glob(pattern or os.path.join(config.tfrecords, f"{split}-*")))
        counts = [count_records(path) for path in paths]
    if not paths:
        raise ValueError(
            f"TFRecords must match their pattern. Received: {config.tfrecords!r}, split={split!r}: no files"
        )
    return _shards(paths, counts, _parser(config, num_classes), config)


def _shards(paths, counts, parse, config):
    """`EncodedShards` of the files that hold something."""
    kept = [(path, count) for path, count in zip(paths, counts, strict=True) if count]
    paths, counts = (list(column) for column in zip(*kept, strict=True)) if kept else ([], [])
    kind = "GZIP" if paths and all(path.endswith(".gz") for path in paths) else ""
    with tf.init_scope():
        table = tf.constant(paths, tf.string)

    def open_shard(shard):
        return tf.data.TFRecordDataset(tf.gather(table, shard), kind)

    return EncodedShards(paths, counts, open_shard, parse, config.shuffle_buffer, config.deterministic)


def _parser(config, num_classes):
    """From a serialized example to `(encoded image, label)`."""
    kind = tf.io.VarLenFeature(tf.int64) if config.multi_label else tf.io.FixedLenFeature([], tf.int64)
    features = {config.image_key: tf.io.FixedLenFeature([], tf.string), config.label_key: kind}

    def parse(serialized):
        example = tf.io.parse_single_example(serialized, features)
        label = example[config.label_key]
        if not config.multi_label:
            return example[config.image_key], label - config.label_offset
        classes = tf.sparse.to_dense(label) - config.label_offset
        valid = tf.debugging.Assert(tf.reduce_all((classes >= 0) & (classes < num_classes)), [classes])
        with tf.control_dependencies([valid]):
            # The row behind them is that of an example without classes.
            rows = tf.pad(tf.one_hot(classes, num_classes), [[0, 1], [0, 0]])
        return example[config.image_key], tf.ensure_shape(tf.reduce_max(rows, 0), (num_classes,))

    return parse


def count_records(path):
    """The number of records of a TFRecord file, from their headers: the data between is not read.

    Raises:
        ValueError: if the file ends within a record.
    """
    opened = gzip.open if str(path).endswith(".gz") else tf.io.gfile.GFile
    count = position = 0
    with opened(path, "rb") as file:
        size = None if opened is gzip.open else file.size()
        while header := file.read(_HEADER.size):
            length = _HEADER.unpack(header)[0] if len(header) == _HEADER.size else 0
            position += _HEADER.size + length + 4
            if len(header) < _HEADER.size or (size is not None and position > size):
                raise ValueError(f"a TFRecord file must hold whole records. Received: {str(path)!r}, cut short")
            file.seek(position)
            count += 1
    return count


def cached_records(split, config, name, origin):
    """Caches a split as TFRecords in `config.cache`, written on first use in a random order.

    Args:
        split: `EncodedFiles` or `EncodedShards`.
        config: `DataConfig`.
        name: str, of the split.
        origin: str. The data set's name: a copy of another one is refused.

    Returns:
        `EncodedShards`.

    Raises:
        ValueError: if the folder holds a copy of another data set.
    """
    folder = pathlib.Path(config.cache)
    file_name = "".join(c if c.isalnum() else "_" for c in name)
    expected = [str(origin), name, len(split)]
    path = folder / f"{file_name}.json"
    if path.exists() and (cached := json.loads(path.read_text())["origin"]) != expected:
        raise ValueError(
            f"a cache must be of the same data set. Received: {str(path)!r} of {cached}, expected {expected}"
        )
    if not path.exists():
        # Files of one class lie together: a stream would show one class after the other.
        order = tf.data.Dataset.range(1).flat_map(lambda epoch: split.epoch(0, epoch))
        write_tfrecords(folder, file_name, _pairs(split, order), origin=expected)
    known = json.loads(path.read_text())
    _, label = split.read(next(iter(split.in_order()))[1])
    num_classes = label.shape[0] if label.dtype.is_floating else None
    written = {"image_key": IMAGE, "label_key": LABEL, "label_offset": 0, "multi_label": num_classes is not None}
    paths = [str(folder / file) for file in known["files"]]
    return _shards(paths, known["examples"], _parser(dataclasses.replace(config, **written), num_classes), config)


def _pairs(split, order):
    """`(bytes, label)` of records in some order."""
    for _, record in order:
        data, label = split.read(record)
        yield data.numpy(), label.numpy()
