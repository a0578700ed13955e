"""Checks of outputs against Keras, and of image preprocessing against Pillow."""

import io
import math

import keras
import numpy as np
from PIL import Image

from keras_vit.calibration import Calibration
from keras_vit.export.checks.answers import difference
from keras_vit.export.checks.base import NotApplicable, require
from keras_vit.export.servable.functional import flat
from keras_vit.image_ops.pillow_reader import read_picture

# Gray levels that the pixels may be away from Pillow's, by the number of channels: one is made of three, each rounded.
_LEVELS = {3: 1, 1: 2}
_DRAWS = 3
_BATCH = 8


def outputs_equal_keras(exported):
    """Checks that the graph returns the logits of the Keras model, or its representation without a classifier."""
    if exported.model is None:
        raise NotApplicable("no model was given to compare with")
    if rounded := exported.description["difference"]:
        moved = f"outputs moved by {rounded['outputs_max']:.1g} of the largest"
        raise NotApplicable(f"rounded, as was asked for: {moved} for {rounded['images']} images")
    spec = exported.input_spec
    pixels = np.random.default_rng(0).integers(0, 256, (4, *spec.size, spec.num_channels), "uint8")
    model = flat(exported.model) if isinstance(exported.model, keras.Model) else exported.model
    expected = np.asarray(model(spec.normalize(pixels), training=False), "float32")
    if exported.has_head:
        outputs = exported.call("images", images=pixels.astype("float32"))
        name = next(name for name in ("logits", "probabilities", "values") if name in outputs)
        found, calibration = outputs[name], exported.description.get("calibration")
        if name == "probabilities" and calibration:
            # The model itself ends in probabilities as they were before.
            expected = np.asarray(Calibration(**calibration).probabilities(expected, from_logits=False))
    else:
        files = np.array([_lossless(image, exported) for image in pixels], object)
        found = exported.call("embeddings", image_bytes=files)["representation"]
    most = difference(found, expected)
    require(most <= exported.tolerance, f"outputs differ by {most:.2g}")
    return f"within {most:.1g}"


def bytes_are_prepared_as_by_pillow(exported):
    """Checks that encoded images give the answers of pixels prepared by Pillow, up to the effect of one gray level.

    The bound is measured: it is how far the answers for an image move where each of its pixels goes a level up or down.
    The best class is the same, unless it and another one are closer than that.
    """
    if not exported.takes_bytes:
        raise NotApplicable(exported.WITHOUT_BYTES)
    spec, pictures = exported.input_spec, exported.pictures + exported.detailed
    pixels = np.stack([spec.resize(_opened(picture, exported)) for picture in pictures])
    answer, found = (_classes if exported.is_classifier else _vectors)(exported, pictures)
    expected = answer(pixels)
    random, moved = np.random.default_rng(0), np.zeros(len(pictures))
    for _ in range(_DRAWS):
        steps = random.choice([-1, 1], pixels.shape) * _LEVELS[spec.num_channels]
        shaken = answer(np.clip(pixels + steps, 0, 255).astype("uint8"))
        moved = np.maximum(moved, np.abs(shaken - expected).max(axis=1))
    bounds = moved + exported.tolerance * max(1.0, np.abs(expected).max())
    if exported.is_classifier:
        # How much better Pillow's pixels make another class than the best of the bytes; closer ones may change places.
        behind = expected[:, -1] - expected[:, 0]
        other = (behind / bounds).argmax()
        told = f"which is {behind[other]:.2g} behind, where a gray level moves answers by {moved[other]:.2g}"
        require(behind[other] <= bounds[other], f"image {other} is of another class than with Pillow's pixels, {told}")
    differences = np.abs(found - expected).max(axis=1)
    worst = (differences / bounds).argmax()
    told = f"by {differences[worst]:.2g}, where a gray level moves them by {moved[worst]:.2g}"
    require(differences[worst] <= bounds[worst], f"the answers for image {worst} differ {told}")
    told = f"within {differences.max():.1g}; a gray level moves answers by {moved.max():.1g}"
    if not exported.is_classifier:
        return f"{len(pictures)} images, {told}"
    same = int((expected[:, 0] == expected[:, -1]).sum())
    return f"{same} of {len(pictures)} images of the same class, {told}"


def _classes(exported, pictures):
    """A function from pixels to the probabilities of the classes that encoded images get, and of the best; the scores.

    So another class than that of Pillow's pixels comes through only where both are equally good.
    """
    found = _in_batches(exported, "serving_default", "image_bytes", np.array(pictures, object))
    ids = found["class_ids"]

    def answer(pixels):
        outputs = _in_batches(exported, "images", "images", pixels.astype("float32"))
        probabilities = class_probabilities(outputs["probabilities"])
        return np.hstack([np.take_along_axis(probabilities, ids, axis=1), probabilities.max(axis=1, keepdims=True)])

    return answer, np.hstack([found["scores"], found["scores"][:, :1]])


def class_probabilities(probabilities):
    """Returns the probabilities of every class, of both for a single output."""
    return np.hstack([1 - probabilities, probabilities]) if probabilities.shape[1] == 1 else probabilities


def _vectors(exported, pictures):
    """The same of representations, or of values; pixels go in as files that keep them."""
    name, output = ("serving_default", "values") if exported.has_head else ("embeddings", "representation")

    def ask(files):
        return _in_batches(exported, name, "image_bytes", np.array(files, object))[output]

    return lambda pixels: ask([_lossless(image, exported) for image in pixels]), ask(pictures)


def _in_batches(exported, name, key, rows):
    parts = [exported.call(name, **{key: rows[i : i + _BATCH]}) for i in range(0, len(rows), _BATCH)]
    return {output: np.concatenate([part[output] for part in parts]) for output in parts[0]}


def _lossless(pixels, exported):
    """Encodes an image whose crop is these pixels, in a lossless format."""
    known = ("png", "bmp", "webp") if pixels.shape[-1] == 3 else ("png",)
    formats = [name for name in known if name in exported.formats]
    if not formats:
        raise NotApplicable("it takes no format that keeps the pixels")
    fraction = exported.input_spec.crop_fraction or 1
    # Of this size nothing is resized before the crop.
    margins = [math.floor(side / fraction) - side for side in pixels.shape[:2]]
    before = [round(margin / 2) for margin in margins]
    sides = [(first, margin - first) for first, margin in zip(before, margins, strict=True)]
    buffer, options = io.BytesIO(), {"lossless": True} if formats[0] == "webp" else {}
    Image.fromarray(np.pad(pixels, (*sides, (0, 0))).squeeze(-1 if pixels.shape[-1] == 1 else ())).save(
        buffer, formats[0], **options
    )
    return buffer.getvalue()


def _opened(picture, exported):
    """Reads an image with Pillow, with the Exif orientation if the export applies it."""
    return read_picture(io.BytesIO(picture), exported.description["options"]["upright"])
