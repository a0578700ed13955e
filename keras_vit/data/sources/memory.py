"""Images decoded into memory: a whole split, or files one after the other."""

import functools
import itertools
import pathlib
import warnings

import numpy as np
import tensorflow as tf

from keras_vit.data.augment.random_crop import prepare
from keras_vit.data.sources.arrays import Split
from keras_vit.data.unreadable import skipped_message, unreadable, unreadable_reason
from keras_vit.image_ops.decode import DATA_LIMITS, VALID, decode
from keras_vit.image_ops.resize import normalize

_TOGETHER = 64  # images that come out of TensorFlow at a time


class UnreadableFile(ValueError):
    """An image file that cannot be read.

    Args:
        path: str.
        reason: str.
    """

    def __init__(self, path, reason):
        super().__init__(f"an image must be a readable file. Received: {path!r} ({reason})")
        self.path = path
        self.reason = reason


def decode_split(encoded, input_spec, skip_unreadable=False):
    """Decodes all images of a split, as a stream of them would be decoded.

    Args:
        encoded: `EncodedFiles` or `EncodedShards`.
        input_spec: `InputSpec` that prepares the images.
        skip_unreadable: bool. Leave unreadable images out, with a warning that names them. Default False.

    Returns:
        A `Split` of the readable images, in order.

    Raises:
        ValueError: if an image is unreadable; all of them are named.
    """
    shape = (len(encoded), *input_spec.size, input_spec.num_channels)
    images, labels, readable = np.zeros(shape, "uint8"), [], np.zeros(len(encoded), bool)

    def decoded(position, element):
        data, label = encoded.read(element[1])
        return position, prepare(data, input_spec), label

    rows = _readable(encoded.in_order().enumerate(), decoded)
    for positions, pixels, found in rows.as_numpy_iterator():
        images[positions], readable[positions] = pixels, True
        labels.append(found)
    if not readable.all():
        names, reason = _unreadable(encoded, readable, input_spec.num_channels)
        if not skip_unreadable:
            raise unreadable(names, reason)
        warnings.warn(skipped_message(names), stacklevel=2)
        images = images[readable]
    return Split(images, np.concatenate(labels) if labels else np.zeros(0, "int64"))


def read_images(paths, input_spec, limits=DATA_LIMITS):
    """Decodes, resizes and crops image files.

    Args:
        paths: sequence of paths.
        input_spec: `InputSpec`.
        limits: `keras_vit.image_ops.decode.Limits`. Default: those of data sets.

    Yields:
        For each path, in order, a uint8 array `(*input_spec.size, channels)`, or the `UnreadableFile` that names the
        file and the reason where it cannot be read.
    """
    names = [str(path) for path in paths]

    def decoded(position, name):
        return position, prepare(tf.io.read_file(name), input_spec, limits)

    error = functools.partial(_error, num_channels=input_spec.num_channels, limits=limits)
    rows = _readable(tf.data.Dataset.from_tensor_slices(tf.constant(names, tf.string)).enumerate(), decoded)
    following = 0
    for positions, pixels in rows.as_numpy_iterator():
        for position, image in zip(positions, pixels, strict=True):
            yield from map(error, names[following:position])
            yield image
            following = position + 1
    yield from map(error, names[following:])


def read_batches(paths, input_spec, batch_size, limits=DATA_LIMITS):
    """Reads image files batch by batch, normalized, for a model to predict.

    Args:
        paths, input_spec, limits: as for `read_images`.
        batch_size: int. Files of a batch.

    Yields:
        `(images, errors)`: a float32 array `(readable, *input_spec.size, channels)`, and a list with `None` or the
        `UnreadableFile` for each file of the batch.
    """
    files = read_images(paths, input_spec, limits)
    while batch := list(itertools.islice(files, batch_size)):
        errors = [item if isinstance(item, UnreadableFile) else None for item in batch]
        pixels = [item for item, error in zip(batch, errors, strict=True) if error is None]
        shape = (len(pixels), *input_spec.size, input_spec.num_channels)
        yield normalize(np.reshape(pixels, shape).astype("uint8"), input_spec).numpy(), errors


def find_unreadable_files(paths):
    """Finds the image files that cannot be decoded, by decoding each of them once.

    Args:
        paths: sequence of paths.

    Returns:
        A list of str, in order.
    """
    names = [str(path) for path in paths]
    if not names:
        return []

    def checked(position, name):
        _, reason = decode(tf.io.read_file(name), DATA_LIMITS)
        return position, reason

    rows = _readable(tf.data.Dataset.from_tensor_slices(tf.constant(names, tf.string)).enumerate(), checked)
    readable = np.zeros(len(names), bool)
    for positions, reasons in rows.as_numpy_iterator():
        readable[positions] = reasons == VALID
    return [name for name, is_readable in zip(names, readable, strict=True) if not is_readable]


def _readable(dataset, function):
    """Batches of what a function makes of the elements, in order; those for which it fails are missing."""
    # AutoGraph has nothing to convert, and takes long.
    function = tf.autograph.experimental.do_not_convert(function)
    rows = dataset.map(function, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return rows.ignore_errors().batch(_TOGETHER).prefetch(1)


def _unreadable(encoded, readable, num_channels):
    """The names of unreadable images, and the reason of a single one."""
    names, reason = [], None
    for (number, record), is_readable in zip(encoded.in_order(), readable, strict=True):
        if is_readable:
            continue
        names.append(encoded.name_of(int(number)))
        if len(names) == 1:
            try:
                reason = unreadable_reason(encoded.read(record)[0].numpy(), num_channels)
            except tf.errors.OpError as error:
                reason = str(error.message)
    return names, reason if len(names) == 1 else None


def _error(name, num_channels, limits):
    """The `UnreadableFile` of a file that cannot be read."""
    try:
        return UnreadableFile(name, unreadable_reason(pathlib.Path(name).read_bytes(), num_channels, limits))
    except OSError as error:
        return UnreadableFile(name, error.strerror)
