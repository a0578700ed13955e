"""Loads a SavedModel of keras_vit and calls its signatures, without building a Keras model."""

import functools
import io
import pathlib
import re

import keras
import tensorflow as tf
from PIL import Image

from keras_vit import models
from keras_vit.calibration import Calibration
from keras_vit.export.servable.description import read_description
from keras_vit.export.versions import newest
from keras_vit.metadata import ModelMetadata
from keras_vit.preprocessing import InputSpec


class LoadedSavedModel:
    """Calls the signatures of a SavedModel.

    Args:
        path: of a version, or of a folder of versions, of which the highest is used.

    Attributes:
        path: of the version.
        signatures: dict of functions by name.

    Raises:
        ValueError: if there is no SavedModel.
    """

    def __init__(self, path):
        self.path = newest(path)
        if not (self.path / "saved_model.pb").exists():
            raise ValueError(
                f"there must be a SavedModel in the folder or in a numbered folder in it. Received: {str(self.path)!r}"
            )
        self._loaded = tf.saved_model.load(str(self.path))
        self.signatures = self._loaded.signatures

    @functools.cached_property
    def description(self):
        """dict. Its metadata, see `keras_vit.export.read_description`."""
        return read_description(self.path)

    @property
    def input_spec(self):
        """`InputSpec` of its images."""
        return InputSpec.from_config(self.description["input_spec"])

    @property
    def num_classes(self):
        """int. Number of classes, 0 for none."""
        outputs = self.signatures["images"].structured_outputs if "images" in self.signatures else {}
        # A single output distinguishes two classes.
        return max(outputs["probabilities"].shape[-1], 2) if "probabilities" in outputs else 0

    @property
    def metadata(self):
        """`ModelMetadata` of `keras_model`, whose images are pixels from 0 to 255.

        Raises:
            ValueError: if the SavedModel has no metadata.
        """
        spec, labels = self.input_spec, self.description["labels"]
        config = getattr(models, self.description["family"]).from_config(self.description["config"])
        channels = spec.num_channels
        return ModelMetadata(
            config.replace(num_classes=self.num_classes),
            # The graph normalizes; this multiplies by 1.
            spec.replace(mean=(0.0,) * channels, std=(1 / 255,) * channels),
            labels if labels is None else tuple(labels),
            self.description["weights"]["origin"],
            calibration=self.calibration,
        )

    @property
    def calibration(self):
        """`keras_vit.calibration.Calibration` that its probabilities have, or `None`."""
        content = self.description.get("calibration")
        return None if content is None else Calibration(**content)

    def check_signature(self, name, what):
        """Raises a `ValueError` unless there is a signature; `what` completes "the SavedModel must"."""
        if name not in self.signatures:
            raise ValueError(
                f"the SavedModel must {what}. "
                f"Received: {str(self.path)!r} with the signatures {sorted(self.signatures)}"
            )

    def classify(self, files):
        """Classifies image files in one batch.

        Args:
            files: paths.

        Returns:
            A list with, for each file, a list of `(class name, score)`, best first, or a str: why there is none. Of a
            regression they are `(name, value)`.

        Raises:
            ValueError: if it does not classify encoded images.
        """
        self.check_signature("strict", "classify encoded images")

        def answers(outputs):
            if "values" in outputs:
                return self._named_values(outputs)
            names, scores = outputs["classes"].numpy(), outputs["scores"].numpy()
            return [
                [(name.decode(), score) for name, score in zip(*row, strict=True)]
                for row in zip(names.tolist(), scores.tolist(), strict=True)
            ]

        return self._call("serving_default", files, answers)

    def explain(self, files):
        """Computes attention heat maps of image files, in one batch.

        Args:
            files: paths.

        Returns:
            A list with, for each file, a dict with `heat_map`, float32 `(h, w)`, `class`, a str, and `score`, a float,
            of a regression its first value; or a str: why there is none.

        Raises:
            ValueError: if it has no signature `explain`, as Swin Transformers.
        """
        self.check_signature("explain", "have the signature `explain`, which Swin Transformers do not have")

        def answers(outputs):
            if "values" in outputs:
                firsts = [row[0] for row in self._named_values(outputs)]
                return [
                    {"heat_map": heat_map, "class": name, "score": value}
                    for heat_map, (name, value) in zip(outputs["heat_map"].numpy(), firsts, strict=True)
                ]
            columns = outputs["heat_map"].numpy(), outputs["class"].numpy(), outputs["score"].numpy()
            return [
                {"heat_map": heat_map, "class": name.decode(), "score": float(score)}
                for heat_map, name, score in zip(*columns, strict=True)
            ]

        return self._call("explain", files, answers)

    def _named_values(self, outputs):
        """Pairs the values of a regression with their names, or their indexes, in a list for each image."""
        rows = outputs["values"].numpy().tolist()
        names = self.description["labels"] or [str(number) for number in range(outputs["values"].shape[-1])]
        return [list(zip(names, row, strict=True)) for row in rows]

    def _call(self, signature, files, answers):
        """Calls a signature with the readable files; returns an answer, or the reason for none, for every file."""
        contents = [_bytes(file) for file in files]
        readable = [content for content in contents if isinstance(content, bytes)]
        outputs = self.signatures[signature](image_bytes=tf.constant(readable, tf.string, (len(readable),)))
        valid = iter(outputs["valid"].numpy().tolist() if "valid" in outputs else [True] * len(readable))
        found = iter(answers(outputs))
        results = []
        for content in contents:
            if not isinstance(content, bytes):
                results.append(content)
                continue
            answer, is_valid = next(found), next(valid)
            results.append(answer if is_valid else self._reason(content))
        return results

    def _reason(self, content):
        """Returns the reason why an image is bad, from the error of `strict`."""
        if "strict" in self.signatures:
            try:
                self.signatures["strict"](image_bytes=tf.constant([content]))
            except tf.errors.InvalidArgumentError as error:
                found = re.search(r"image_bytes\[0\] (must be .*?)(?:\]|\n|$)", str(error))
                text = found[1] if found else str(error)
                return text + _other_format(content) if "one of the formats" in text else text
        return "cannot be decoded"

    def keras_model(self):
        """Returns a `keras.Model` from pixels 0 to 255, `(batch, h, w, channels)`, to logits, else to probabilities.

        Raises:
            ValueError: if it has no classifier.
        """
        self.check_signature("images", "have a classifier")
        if not self.num_classes:
            raise ValueError(f"the SavedModel must have a classifier; it is a regression. Received: {str(self.path)!r}")
        return _SignatureModel(self)

    @property
    def has_logits(self):
        """bool. Whether `keras_model` returns logits."""
        return "logits" in self.signatures["images"].structured_outputs


class _SignatureModel(keras.Model):
    """The signature `images` as a model that can be compiled and evaluated."""

    def __init__(self, loaded):
        super().__init__(name="saved_model")
        # In a tuple, so that Keras does not track the weights.
        self._loaded = (loaded,)
        self.built = True

    def call(self, images):
        (loaded,) = self._loaded
        outputs = loaded.signatures["images"](images=images)
        found = outputs["logits" if loaded.has_logits else "probabilities"]
        if found.shape[-1] > 1:
            return found
        # Logits of two classes, of which one is 0, have the same probabilities.
        return tf.concat([tf.zeros_like(found) if loaded.has_logits else 1 - found, found], -1)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self._loaded[0].num_classes)


def _bytes(file):
    """Returns the content of a file, or the error, a str."""
    try:
        return pathlib.Path(file).read_bytes()
    except OSError as error:
        return error.strerror or str(error)


def _other_format(content):
    """Suggests converting an image of an unaccepted format; returns an empty str if it is no image."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            return f" of {image.format}; convert the file to one of them"
    except Exception:  # Pillow's readers raise anything for what is no image.
        return ""
