"""What must hold of a classifier's answers: scores, labels, bad images, the same as Keras and Pillow."""

import io
import re

import numpy as np
import tensorflow as tf
from PIL import Image, ImageOps

from keras_vit.export.check_answers import difference, inputs
from keras_vit.export.checked import DoesNotApply, NotMet, require

BAD = (b"", b"no image", b"\xff\xd8\xff")
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
    if scores.shape[1] == found["probabilities"].shape[1]:
        require(np.abs(scores.sum(axis=1) - 1).max() <= 1e-5, "the scores of all classes do not sum to 1")
    return f"the best {scores.shape[1]} of {found['probabilities'].shape[1]}"


def _sums_to_one(exported):
    """Whether scores are those of a softmax: that of the graph, or one that the model ends in."""
    activation = exported.description["options"]["activation"]
    return (activation or exported.description["config"].get("classifier_activation")) == "softmax"


def labels_are_right(exported):
    """Names belong to the numbers beside them, as the description has them; without names they are the numbers."""
    outputs, labels = _classified(exported), exported.description["labels"]
    count = exported.signatures["images"].outputs["probabilities"].tensor_shape.dim[1].size
    labels = [str(number) for number in range(count)] if labels is None else labels
    require(len(labels) == count, f"there are {len(labels)} labels for {count} classes")
    names = np.array([name.encode() for name in labels], object)[outputs["class_ids"]]
    require(np.array_equal(names, outputs["classes"]), "classes are not the labels of class_ids")
    require(all(len(set(row)) == len(row) for row in outputs["class_ids"].tolist()), "a class comes twice")
    return f"{len(labels)} labels"


def a_bad_image_is_told(exported):
    """A row that is no image is not valid and zero, and its neighbours' answers are those that they get alone."""
    if not exported.takes_bytes:
        raise DoesNotApply(exported.WITHOUT_BYTES)

    def ask(*pictures):
        return exported.call("serving_default", image_bytes=np.array(pictures, object))

    good = exported.pictures[:2]
    outputs, alone = ask(good[0], *BAD, good[1]), ask(*good)
    valid = outputs["valid"].tolist()
    require(valid == [True, *(False for _ in BAD), True], f"valid is {valid}")
    for key, value in alone.items():
        found = outputs[key]
        if value.dtype.kind == "f":
            require(not found[1:-1].any(), f"{key} of a bad image is not zero")
        same = difference(found[[0, -1]], value) <= exported.tolerance
        require(same, f"{key} of the neighbours changes")
    return f"{len(BAD)} kinds"


def a_bad_image_is_an_error_in_strict(exported):
    """`strict` answers INVALID_ARGUMENT, with the number of the row."""
    if not exported.is_classifier or not exported.takes_bytes:
        raise DoesNotApply(exported.WITHOUT_CLASSES)
    good = exported.pictures[0]
    try:
        exported.call("strict", image_bytes=np.array([good, good, BAD[1]], object))
    except tf.errors.InvalidArgumentError as error:
        text = " ".join(error.message.partition("[[")[0].split())  # behind it stand the names of nodes
        require(re.search(r"\b2\b", text), f"the error does not name the row: {text[:200]}")
        return f"... {text[-60:]}"
    raise NotMet("there is no error")


def outputs_equal_keras(exported):
    """The graph computes what the model computes: its logits, or its representation where it has no classes."""
    if exported.model is None:
        raise DoesNotApply("no model was given to compare with")
    if rounded := exported.description["difference"]:
        moved = f"outputs moved by {rounded['outputs_max']:.1g} of the largest"
        raise DoesNotApply(f"rounded, as was asked for: {moved} for {rounded['images']} images")
    spec = exported.input_spec
    pixels = np.random.default_rng(0).integers(0, 256, (4, *spec.size, spec.num_channels), "uint8")
    expected = np.asarray(exported.model(spec.normalize(pixels), training=False), "float32")
    if exported.is_classifier:
        outputs = exported.call("images", images=pixels.astype("float32"))
        found = outputs.get("logits", outputs["probabilities"])
    else:
        files = np.array([_lossless(image, exported) for image in pixels], object)
        found = exported.call("embeddings", image_bytes=files)["representation"]
    most = difference(found, expected)
    require(most <= exported.tolerance, f"outputs differ by {most:.2g}")
    return f"within {most:.1g}"


def _lossless(pixels, exported):
    """The bytes of an image in a format that keeps its pixels."""
    known = ("png", "bmp", "webp") if pixels.shape[-1] == 3 else ("png",)
    formats = [name for name in known if name in exported.formats]
    if not formats:
        raise DoesNotApply("it takes no format that keeps the pixels")
    buffer = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(buffer, formats[0], **({"lossless": True} if formats[0] == "webp" else {}))
    return buffer.getvalue()


def bytes_are_prepared_as_by_pillow(exported):
    """Bytes give the class and nearly the scores that their pixels give, prepared by Pillow as the description says."""
    spec = exported.input_spec
    outputs = _classified(exported)
    pixels = np.stack([spec.resize(_opened(picture, exported)) for picture in exported.pictures]).astype("float32")
    expected = exported.call("images", images=pixels)["probabilities"]
    best = expected.argmax(axis=1)
    # A grey level may turn a tie.
    near = np.take_along_axis(expected, outputs["class_ids"][:, :1], axis=1)[:, 0] >= expected.max(axis=1) - 0.02
    same = outputs["class_ids"][:, 0] == best
    require((same | near).all(), f"other classes for {int((~(same | near)).sum())} of {len(best)} images")
    most = np.abs(np.take_along_axis(expected, outputs["class_ids"], axis=1) - outputs["scores"]).max()
    require(most <= 0.05, f"scores differ by {most:.2g}")
    return f"{int(same.sum())} of {len(best)} images of the same class, scores within {most:.1g}"


def _opened(picture, exported):
    """An image as Pillow has it, turned where the export turns it."""
    image = Image.open(io.BytesIO(picture))
    return ImageOps.exif_transpose(image) if exported.description["options"]["upright"] else image
