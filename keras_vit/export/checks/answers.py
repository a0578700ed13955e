"""Checks of the answers of all signatures."""

import json
import math

import numpy as np
import tensorflow as tf

from keras_vit.export.checks.base import require
from keras_vit.export.server.warmup import EXAMPLES_INPUT, image_example

BATCHES = (1, 2, 5, 0)
_ANY_SHAPE = (57, 91, 3)  # of images whose size is left open


def inputs(exported, name, count, first=0):
    """Makes the inputs of a signature: `count` images, starting with number `first`.

    Args:
        exported: `Exported`.
        name: str, the signature.
        count: int.
        first: int.

    Returns:
        A dict of arrays by input.
    """
    return {key: _batch(exported, key, info, count, first) for key, info in exported.signatures[name].inputs.items()}


def _batch(exported, key, info, count, first):
    pictures = exported.pictures
    chosen = [pictures[(first + i) % len(pictures)] for i in range(count)]
    if info.dtype == tf.string.as_datatype_enum:
        is_example = key == EXAMPLES_INPUT
        rows = [image_example(picture).SerializeToString() for picture in chosen] if is_example else chosen
        return np.array(rows, object)
    sides, most = zip(info.tensor_shape.dim[1:], _ANY_SHAPE, strict=True), exported.description["options"]["max_pixels"]
    shape = [dim.size if dim.size > 0 else min(default, math.isqrt(most)) for dim, default in sides]
    # Drawn for each row by its own number, so that a batch and its rows alone are the same images.
    rows = [np.random.default_rng(first + i).integers(0, 256, shape) for i in range(count)]
    dtype = tf.as_dtype(info.dtype).as_numpy_dtype
    return np.array(rows, dtype).reshape(count, *shape)


def answers_every_batch(exported):
    """Checks that batches of 1, 2, 5 and 0 images have one output row per image, in the dtypes of the signature."""
    for name, signature in exported.signatures.items():
        for count in BATCHES:
            outputs = exported.call(name, **inputs(exported, name, count))
            for key, info in signature.outputs.items():
                found, dtype = outputs[key], tf.as_dtype(info.dtype).as_numpy_dtype
                require(
                    found.ndim and len(found) == count, f"{name}: {key} has the shape {found.shape} for {count} images"
                )
                require(found.dtype == dtype, f"{name}: {key} is {found.dtype}, not {np.dtype(dtype)}")
    return f"{len(exported.signatures)} signatures, batches of {', '.join(map(str, BATCHES))}"


def batch_equals_rows(exported):
    """Checks that answers do not depend on the rest of the batch, because a server combines requests."""
    largest, count = 0.0, max(BATCHES)
    for name in exported.signatures:
        together = exported.call(name, **inputs(exported, name, count))
        for row in range(count):
            alone = exported.call(name, **inputs(exported, name, 1, row))
            for key, value in alone.items():
                found = difference(together[key][row : row + 1], value)
                largest = max(largest, found)
                require(found <= exported.tolerance, f"{name}: {key} of row {row} differs by {found:.2g}")
    return f"within {largest:.1g}"


def difference(one, other):
    """Returns the largest difference, relative to the largest value or 1; infinity if other types differ."""
    if one.dtype.kind != "f":
        return 0.0 if np.array_equal(one, other) else np.inf
    if not one.size:
        return 0.0
    found = np.abs(one - other).max() / max(1.0, np.abs(one).max())
    return np.inf if np.isnan(found) else float(found)


def answers_are_repeated(exported):
    """Checks that repeated calls return identical bits."""
    for name in exported.signatures:
        first, second = (exported.call(name, **inputs(exported, name, 3)) for _ in range(2))
        for key, value in first.items():
            require(
                value.tobytes() == second[key].tobytes() or _same_text(value, second[key]), f"{name}: {key} changes"
            )
    return "to the last bit"


def _same_text(one, other):
    return one.dtype == object and np.array_equal(one, other)


def answers_become_json(exported):
    """Checks the rules of TF Serving's REST API: no bfloat16, no NaN, one batch dimension for all outputs."""
    for name in exported.signatures:
        outputs = exported.call(name, **inputs(exported, name, 2))
        lengths = {len(value) for value in outputs.values() if value.ndim}
        require(lengths == {2}, f"{name}: the outputs have the leading dimensions {sorted(lengths)}")
        for key, value in outputs.items():
            require(value.dtype.kind in "biufO" and value.dtype != np.float16, f"{name}: {key} is {value.dtype}")
            try:
                json.dumps([_plain(item, key) for item in value], allow_nan=False)
            except (ValueError, UnicodeDecodeError) as error:
                require(False, f"{name}: {key} is no JSON: {error}")
    return "rows and columns"


def _plain(value, key):
    """Converts a value to JSON types; the REST API encodes outputs named `..._bytes` as base64."""
    if isinstance(value, np.ndarray) and value.ndim:
        return [_plain(item, key) for item in value]
    if isinstance(value, bytes):
        return "" if key.endswith("_bytes") else value.decode()
    return value.item()
