"""Checks of a classifier's answers: scores, labels, bad images."""

import contextlib
import os
import re
import struct

import numpy as np
import tensorflow as tf

from keras_vit.export.checks.answers import difference, inputs
from keras_vit.export.checks.base import CheckFailed, NotApplicable, require

_SIDE = 60_000  # that headers claim
# Inputs that no export may decode.
BAD = {
    "nothing": b"",
    "text": b"no image",
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "TIFF": b"II*\0\x08\0\0\0\0\0\0\0\0\0",
    "the start of a JPEG": b"\xff\xd8\xff",
    "a large PNG": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">IIBBBBB", _SIDE, _SIDE, 8, 2, 0, 0, 0) + bytes(4),
    "a large BMP": b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, _SIDE, _SIDE, 1, 24, *(0,) * 6),
    "a large GIF": b"GIF89a" + struct.pack("<HHBBB", _SIDE, _SIDE, 0, 0, 0) + b";",
    "a large WebP": b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0" + bytes(4) + struct.pack("<I", _SIDE - 1)[:3] * 2,
}
_MAX_SUM = 1 + 1e-5


def _classified(exported, pictures=None):
    """Returns the outputs of `serving_default`."""
    if not exported.is_classifier or not exported.takes_bytes:
        raise NotApplicable(exported.WITHOUT_CLASSES)
    return exported.call("serving_default", image_bytes=np.array(pictures or exported.pictures, object))


def scores_are_sorted(exported):
    """Checks that scores are sorted probabilities that sum to 1, or to less for the best ones."""
    scores = _classified(exported)["scores"]
    require((np.diff(scores, axis=1) <= 0).all(), "scores do not fall")
    require(((scores >= 0) & (scores <= 1)).all(), f"scores are from {scores.min():.3g} to {scores.max():.3g}")
    found = exported.call("images", **inputs(exported, "images", 3))
    if not _sums_to_one(exported):
        return "of classes that do not exclude each other"
    sums = found["probabilities"].sum(axis=1)
    require(np.abs(sums - 1).max() <= 1e-5, f"probabilities sum to {sums.min():.6f} to {sums.max():.6f}")
    require((scores.sum(axis=1) <= _MAX_SUM).all(), f"scores sum to {scores.sum(axis=1).max():.6f}")
    if scores.shape[1] == max(found["probabilities"].shape[1], 2):
        require(np.abs(scores.sum(axis=1) - 1).max() <= 1e-5, "the scores of all classes do not sum to 1")
    return f"the best {scores.shape[1]} of {found['probabilities'].shape[1]}"


def _sums_to_one(exported):
    """Returns whether scores are from a softmax, in the graph or at the end of the model."""
    activation = exported.description["options"]["activation"]
    return (activation or exported.description["config"].get("classifier_activation")) == "softmax"


def labels_are_right(exported):
    """Checks that class names match the class ids by the labels of the description; without labels they are the ids."""
    outputs, labels = _classified(exported), exported.description["labels"]
    # A single output distinguishes two classes.
    count = max(exported.signatures["images"].outputs["probabilities"].tensor_shape.dim[1].size, 2)
    labels = [str(number) for number in range(count)] if labels is None else labels
    require(len(labels) == count, f"there are {len(labels)} labels for {count} classes")
    names = np.array([name.encode() for name in labels], object)[outputs["class_ids"]]
    require(np.array_equal(names, outputs["classes"]), "classes are not the labels of class_ids")
    require(all(len(set(row)) == len(row) for row in outputs["class_ids"].tolist()), "a class comes twice")
    return f"{len(labels)} labels"


@contextlib.contextmanager
def _quiet():
    """Returns a context that silences standard error, where libjpeg reports truncated files."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def bad_images_are_marked(exported):
    """Checks that bad images get `valid` False and zeros, and do not change the answers of other images."""
    if not exported.takes_bytes:
        raise NotApplicable(exported.WITHOUT_BYTES)

    def ask(*pictures):
        return exported.call("serving_default", image_bytes=np.array(pictures, object))

    good = exported.pictures[:2]
    alone = ask(*good)
    with _quiet():
        outputs = ask(good[0], *BAD.values(), good[1])
    first, *bad, last = outputs["valid"].tolist()
    require(first and last, "rows beside a bad one are not valid")
    taken = [name for name, valid in zip(BAD, bad, strict=True) if valid]
    require(not taken, f"valid is True of {', '.join(taken)}")
    for key, value in alone.items():
        found = outputs[key]
        if value.dtype.kind == "f":
            require(not found[1:-1].any(), f"{key} of a bad image is not zero")
        same = difference(found[[0, -1]], value) <= exported.tolerance
        require(same, f"{key} of the neighbors changes")
    return f"{len(BAD)} kinds"


def bad_images_fail_in_strict(exported):
    """Checks that `strict` fails with INVALID_ARGUMENT and the number of the row."""
    if not exported.has_head or not exported.takes_bytes:
        raise NotApplicable(exported.WITHOUT_CLASSES)
    good = exported.pictures[0]
    try:
        exported.call("strict", image_bytes=np.array([good, good, BAD["text"]], object))
    except tf.errors.InvalidArgumentError as error:
        text = " ".join(error.message.partition("[[")[0].split())  # behind it stand the names of nodes
        require(re.search(r"\b2\b", text), f"the error does not name the row: {text[:200]}")
        return f"... {text[-60:]}"
    raise CheckFailed("there is no error")
