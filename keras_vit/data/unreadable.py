"""Unreadable images in a `tf.data` stream: named in the error, or skipped and counted.

TensorFlow can leave out elements whose map failed (`ignore_errors`), but says neither how many nor which. Here every
element has a position, and positions are consecutive: a gap tells which ones failed, at no cost for the others.
"""

import contextlib
import gc
import re
import traceback
import warnings

import numpy as np
import tensorflow as tf

from keras_vit.image_ops.decode import DAMAGED, DATA_LIMITS, FORMAT, SIZE, VALID, decode
from keras_vit.image_ops.pillow_reader import UnreadableImage, image_size, read_pixels

REPLACE, DROP = "replace", "drop"

_FAILED, _OVER = -1, -2  # in place of a position: the element that raises, and what comes behind it

_REASONS = {
    DAMAGED: "it is damaged",
    FORMAT: "its format is not decoded",
}
_LISTED = 10  # names in an error or a warning
# What TensorFlow puts around the message of an operation.
_DECORATION = re.compile(r"\{\{.*?\}\}\s*|\s*\[Op:.*")


def unreadable(names, reason=None):
    """Makes the `ValueError` about unreadable images.

    Args:
        names: sequence of str. Ten of them are listed.
        reason: str or `None`. Why, if it is known.
    """
    why = f" ({reason})" if reason else ""
    return ValueError(
        "every image must be readable; data.skip_unreadable=true (evaluate: --skip-unreadable) leaves out those that "
        f"are not. Received: {len(names)} unreadable: {_listed(names)}{why}"
    )


def skipped_message(names, limit=_LISTED):
    """Describes skipped unreadable images, `limit` of them by name; `None` lists all."""
    what = "image is" if len(names) == 1 else "images are"
    return f"{len(names):,} unreadable {what} left out: {_listed(names, limit)}"


def _listed(names, limit=_LISTED):
    more = len(names) - len(names[:limit])
    return ", ".join(names[:limit]) + (f" and {more:,} more" if more else "")


def error_reason(error):
    """Extracts the first line of the message of a `tf.errors.OpError`, without TensorFlow's decoration."""
    return _DECORATION.sub("", error.message.partition("\n")[0])[:200]


def unreadable_reason(data, num_channels=3, limits=DATA_LIMITS):
    """Why the bytes of an image cannot be decoded: Pillow's words, or TensorFlow's where Pillow can decode them.

    Args:
        data: bytes of a file.
        num_channels: int, of the model that cannot have the image.
        limits: `keras_vit.image_ops.decode.Limits`. Default: those of data sets.
    """
    try:
        if limits != DATA_LIMITS:
            height, width = image_size(data)
            if height * width > limits.max_pixels or max(height, width) > limits.max_side:
                return _size_reason(data, limits)
        read_pixels(data, num_channels)
        _, reason = decode(tf.constant(data), limits, num_channels=num_channels)
    except UnreadableImage as error:
        return str(error)
    except tf.errors.OpError as error:
        return error_reason(error)
    except UnicodeDecodeError:  # of an error that quotes the bytes
        return _REASONS[DAMAGED]
    if reason == SIZE:
        return _size_reason(data, limits)
    return "not when it was tried again" if reason == VALID else _REASONS[int(reason)]


def _size_reason(data, limits):
    """Returns the error of an exported model for the same image."""
    return f"must be {limits.size_rule}. Received: {len(data)} bytes"


def map_readable(dataset, function, start, end, explain, skip=None):
    """Maps a dataset whose positions are `start`, `start + 1` ... `end - 1`.

    Args:
        dataset: of tuples whose first component is the position, an int64 scalar.
        function: from the components to a tuple of tensors of fixed shapes. It may fail.
        start, end: int.
        explain: callable from a position to an exception; called for every element that failed. It is raised where
            `skip` is `None`.
        skip: `None`; `replace`: the next readable element takes the place of a failed one; `drop`: it is missing.

    Returns:
        A dataset of `(position, *results)`.
    """

    def mapped(position, *components):
        return (position, *function(position, *components))

    # The order must be kept, or late elements would look like missing ones.
    results = dataset.map(mapped, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    spec = results.element_spec
    sentinel = tuple(tf.zeros([size or 0 for size in s.shape], s.dtype) for s in spec)
    results = results.ignore_errors().concatenate(
        tf.data.Dataset.from_tensors((tf.constant(end, tf.int64), *sentinel[1:]))
    )

    errors = []

    def report(first, beyond):
        try:
            failed = [explain(position) for position in range(int(first), int(beyond))]
        except Exception as error:
            failed, is_over = [error], True
        else:
            is_over = skip is None or len(failed) >= end - start
        if is_over:
            errors.append(failed[0])
        return np.int64(_FAILED) if is_over else beyond

    def fail(position):
        raise errors[-1]

    def step(state, element):
        (expected, *last), (position, *result) = state, element
        gap, is_running = position - expected, expected >= 0
        checked = tf.where(is_running, position, tf.constant(_OVER, tf.int64))
        # Python is asked once: a thread that reads ahead would go on asking while the process ends.
        asks = is_running & (gap > 0)
        checked = tf.cond(asks, lambda: _call(report, expected, position), lambda: checked)
        if skip != REPLACE:
            return (_next(checked),), (checked, *result)
        # Only the last gap has nothing behind it: there the one before takes the place.
        is_end = tf.equal(position, end)
        result = tuple(tf.where(is_end, a, b) for a, b in zip(last, result, strict=True))
        is_over = checked < 0
        first = tf.where(is_over, checked, checked - gap)
        return (_next(checked), *result), (first, gap + 1 - tf.cast(is_end, tf.int64), *result)

    state = (tf.constant(start, tf.int64), *(sentinel[1:] if skip == REPLACE else ()))
    counted = results.scan(state, step).take_while(lambda position, *result: position != _OVER)
    counted = counted.map(
        lambda position, *result: (
            tf.cond(position == _FAILED, lambda: _call(fail, position), lambda: position),
            *result,
        )
    )
    if skip == REPLACE:
        return counted.flat_map(_spread)
    return counted.filter(lambda position, *result: position < end)


def _next(checked):
    """The position that is expected behind one, or that nothing is any more."""
    return tf.where(checked < 0, checked, checked + 1)


def _call(function, *positions):
    result = tf.numpy_function(function, positions, tf.int64)
    return tf.ensure_shape(result, ())


def _spread(first, count, *result):
    """One result for `count` consecutive positions."""
    return tf.data.Dataset.range(first, first + count).map(lambda position: (position, *result))


@contextlib.contextmanager
def unwrap_tf_errors():
    """Re-raises a `ValueError` from inside a `tf.data` stream as such, without TensorFlow's stack."""
    try:
        yield
    except tf.errors.OpError as error:
        found = re.search(r"ValueError: (.*)", error.message or "")
        if not found:
            raise
        raise ValueError(found[1]) from None


@contextlib.contextmanager
def ignore_end_of_data():
    """Silences the warning of Keras at the end of a dataset of unknown length."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Your input ran out of data")
        yield


@contextlib.contextmanager
def close_iterators():
    """Closes the `tf.data` iterators of this context, with their threads, also after an error.

    A traceback keeps the frames of an error alive, and Keras' iterators keep each other. A thread that calls Python at
    interpreter exit, as those do that name an unreadable image, aborts or blocks the process.
    """
    try:
        yield
    except BaseException as error:
        passed = error
        while passed is not None:
            for frame, _ in traceback.walk_tb(passed.__traceback__):
                _clear(frame)
            passed = passed.__cause__ or passed.__context__
        raise
    finally:
        gc.collect()


def _clear(frame):
    """Clears a finished frame and its callers, which Keras removes from tracebacks."""
    while frame is not None:
        try:
            frame.clear()
        except RuntimeError:  # still running, as are all around it
            return
        frame = frame.f_back
