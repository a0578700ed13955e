"""What must hold of a classifier's answers: scores, labels, bad images."""

import contextlib
import os
import re
import struct

import numpy as np
import tensorflow as tf

from keras_vit.export.checks.answers import difference, inputs
from keras_vit.export.checks.base import DoesNotApply, NotMet, require

_SIDE = 60_000  # that headers claim
# Rows of a server's batch that no export may answer, nor decode: by what they are.
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
_MOST_SUM = 1 + 1e-5


def _classified(exported, pictures=None):
    """The outputs of `serving_default`."""
    if not exported.is_classifier or not exported.takes_bytes:
        raise DoesNotApply(exported.WITHOUT_CLASSES)
    return exported.call("serving_default", image_bytes=np.array(pictures or exported.pictures, object))


def scores_are_sorted(exported):
    """Scores are probabilities, best first; all of them sum to 1, those of the best to no more."""
    scores = _classified(exported)["scores"]
    require((np.diff(scores, axis=1) <= 0).all(), "scores do not fall")
    require(((scores >= 0) & (scores <= 1)).all(), f"scores are from {scores.min():.3g} to {scores.max():.3g}")
    found = exported.call("images", **inputs(exported, "images", 3))
    if not _sums_to_one(exported):
        return "of classes that do not exclude each other"
    sums = found["probabilities"].sum(axis=1)
    require(np.abs(sums - 1).max() <= 1e-5, f"probabilities sum to {sums.min():.6f} to {sums.max():.6f}")
    require((scores.sum(axis=1) <= _MOST_SUM).all(), f"scores sum to {scores.sum(axis=1).max():.6f}")
    if scores.shape[1] == max(found["probabilities"].shape[1], 2):
        require(np.abs(scores.sum(axis=1) - 1).max() <= 1e-5, "the scores of all classes do not sum to 1")
    return f"the best {scores.shape[1]} of {found['probabilities'].shape[1]}"


def _sums_to_one(exported):
    """Whether scores are those of a softmax: that of the graph, or one that the model ends in."""
    activation = exported.description["options"]["activation"]
    return (activation or exported.description["config"].get("classifier_activation")) == "softmax"


def labels_are_right(exported):
    """Names belong to the numbers beside them, as the description has them; without names they are the numbers."""
    outputs, labels = _classified(exported), exported.description["labels"]
    # A single output tells two classes apart.
    count = max(exported.signatures["images"].outputs["probabilities"].tensor_shape.dim[1].size, 2)
    labels = [str(number) for number in range(count)] if labels is None else labels
    require(len(labels) == count, f"there are {len(labels)} labels for {count} classes")
    names = np.array([name.encode() for name in labels], object)[outputs["class_ids"]]
    require(np.array_equal(names, outputs["classes"]), "classes are not the labels of class_ids")
    require(all(len(set(row)) == len(row) for row in outputs["class_ids"].tolist()), "a class comes twice")
    return f"{len(labels)} labels"


@contextlib.contextmanager
def _quiet():
    """Without what decoders of the process write to its standard error, such as libjpeg of a file without an end."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def a_bad_image_is_told(exported):
    """A row that is no image is not valid and zero, and its neighbours' answers are those that they get alone."""
    if not exported.takes_bytes:
        raise DoesNotApply(exported.WITHOUT_BYTES)

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
        require(same, f"{key} of the neighbours changes")
    return f"{len(BAD)} kinds"


def a_bad_image_is_an_error_in_strict(exported):
    """`strict` answers INVALID_ARGUMENT, with the number of the row."""
    if not exported.has_head or not exported.takes_bytes:
        raise DoesNotApply(exported.WITHOUT_CLASSES)
    good = exported.pictures[0]
    try:
        exported.call("strict", image_bytes=np.array([good, good, BAD["text"]], object))
    except tf.errors.InvalidArgumentError as error:
        text = " ".join(error.message.partition("[[")[0].split())  # behind it stand the names of nodes
        require(re.search(r"\b2\b", text), f"the error does not name the row: {text[:200]}")
        return f"... {text[-60:]}"
    raise NotMet("there is no error")
