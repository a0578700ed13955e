"""The signatures of a SavedModel: inputs and outputs of TF Serving requests."""

import dataclasses

import keras
import tensorflow as tf

from keras_vit.calibration import Calibration
from keras_vit.export.servable.errors import assert_readable, checked_images
from keras_vit.export.servable.functional import with_representation
from keras_vit.export.servable.options import ExportOptions
from keras_vit.export.servable.quantization import QuantizedWeights
from keras_vit.image_ops.decode import VALID, decode_images
from keras_vit.image_ops.resize import normalize, resample, whole_pixels
from keras_vit.interpret.rollout import rollout_model
from keras_vit.layers import TransformerEncoder

# The features of a `tf.Example` that may hold the image; the first one present counts.
EXAMPLE_KEYS = ("image_bytes", "image/encoded")


@dataclasses.dataclass(frozen=True)
class Servable:
    """A model with everything that its signatures depend on.

    Args:
        model: flat `keras.Model`, see `keras_vit.export.servable.functional`.
        weights: `QuantizedWeights` of it.
        options: `ExportOptions` with the values that hold for this model: `input_spec` is set; `labels` of `None` means
            that classes are named by their numbers; `activation` of `None` that the model returns probabilities.
        has_head: bool. Whether the model has weights after its representation.
        front: str or `None`. Description of the layers in front of the model that are left out.
        calibration: `keras_vit.calibration.Calibration` of the probabilities, or `None`.
        is_inexact: bool. Whether it stores or computes in other dtypes than the original model.
    """

    model: keras.Model
    weights: QuantizedWeights
    options: ExportOptions
    has_head: bool
    front: str | None = None
    calibration: Calibration | None = None
    is_inexact: bool = False

    @property
    def input_spec(self):
        """`InputSpec` of the model's images."""
        return self.options.input_spec

    @property
    def is_classifier(self):
        """Returns whether the model returns scores of classes."""
        return self.has_head and self.options.activation != "linear"

    def signatures(self):
        """Builds the functions by name, each a `tf.function` of one signature that returns a dict of tensors.

        Raises:
            ValueError: if there are none: without a classifier, for images that cannot be encoded.
        """
        is_encoded = self.input_spec.num_channels in (1, 3)
        if not is_encoded and not self.has_head:
            raise ValueError(
                "a model without a classifier must take images of 1 or 3 channels to be exported. "
                f"Received: model={self.model.name!r} with {self.input_spec.num_channels} channels"
            )
        read, run, functions = self._reader(), self.runner(with_representation(self.model)), {}
        if self.has_head:
            functions |= self._images(run)
        if is_encoded:
            functions["embeddings"] = self._embeddings(read, run)
        if is_encoded and self.has_head:
            functions |= self._predictors(read, run)
            if any(isinstance(layer, TransformerEncoder) for layer in self.model.layers):
                functions["explain"] = self._explain(read)
        # For clients that name no signature.
        functions.setdefault("serving_default", functions.get("images", functions.get("embeddings")))
        return functions

    def runner(self, model):
        """Builds a function from normalized images to the float32 outputs of a model of these layers."""
        shape = (None, *self.input_spec.size, self.input_spec.num_channels)

        # A separate function, so that the graph of the signatures that call it holds it once.
        @_traced(tf.TensorSpec(shape, tf.float32))
        def run(images):
            with self.weights.scope():
                outputs = model(images, training=False)
            return tf.nest.map_structure(lambda output: tf.cast(output, tf.float32), outputs)

        return run

    def _reader(self, find=None):
        """Builds a function from strings to normalized images and error codes."""

        @_traced(tf.TensorSpec((None,), tf.string))
        def read(strings):
            limits = (self.options.formats, self.options.max_pixels, self.options.apply_exif_orientation)
            pixels, reasons = decode_images(strings, self.input_spec, *limits, find)
            return normalize(pixels, self.input_spec), reasons

        return read

    def _predictors(self, read, run):
        @_traced(_strings("image_bytes"))
        def serving_default(image_bytes):
            images, reasons = read(image_bytes)
            return self._answer(run(images)["outputs"], reasons == VALID)

        @_traced(_strings("image_bytes"))
        def strict(image_bytes):
            images, reasons = read(image_bytes)
            check = assert_readable(image_bytes, reasons, self.options.formats, self.options.max_pixels)
            with tf.control_dependencies([check]):
                return self._answer(run(tf.identity(images))["outputs"], reasons == VALID)

        read_example = self._reader(_image_of_example)

        @_traced(_strings("inputs"))
        def classify(inputs):
            images, reasons = read_example(inputs)
            answer = self._answer(run(images)["outputs"], reasons == VALID)
            return {name: answer[name] for name in ("classes", "scores")}

        functions = {"serving_default": serving_default, "strict": strict}
        return {**functions, "classify": classify} if self.is_classifier else functions

    def _explain(self, read):
        run = self.runner(rollout_model(self.model))

        @_traced(_strings("image_bytes"))
        def explain(image_bytes):
            images, reasons = read(image_bytes)
            explained, valid = run(images), reasons == VALID
            answer = self._answer(explained["outputs"], valid)
            heat_map = tf.where(valid[:, None, None], explained["heat_map"], 0.0)
            if not self.is_classifier:
                return {"heat_map": heat_map, **answer}
            return {
                "heat_map": heat_map,
                "class": answer["classes"][:, 0],
                "class_id": answer["class_ids"][:, 0],
                "score": answer["scores"][:, 0],
                "valid": valid,
            }

        return explain

    def _embeddings(self, read, run):
        @_traced(_strings("image_bytes"))
        def embeddings(image_bytes):
            images, reasons = read(image_bytes)
            valid = reasons == VALID
            vectors = tf.where(valid[:, None], run(images)["representation"], 0.0)
            return {"embedding": tf.math.l2_normalize(vectors, 1), "representation": vectors, "valid": valid}

        return embeddings

    def _images(self, run):
        def classify(images):
            images = checked_images(images, self.input_spec.num_channels, self.options.max_pixels)
            outputs = run(normalize(self._resized(images), self.input_spec))["outputs"]
            if not self.is_classifier:
                return {"values": outputs}
            logits = {"logits": outputs} if self.options.activation else {}
            return {**logits, "probabilities": self.probabilities(outputs)}

        shape = (None, None, None, self.input_spec.num_channels)
        kinds = {"images": tf.float32, "images_uint8": tf.uint8}
        return {name: _traced(tf.TensorSpec(shape, dtype, "images"))(classify) for name, dtype in kinds.items()}

    def _resized(self, images):
        """Resizes pixels to the model's size, as float32; those of that size stay unchanged."""
        size = self.input_spec.size
        resized = tf.cond(
            tf.reduce_all(tf.shape(images)[1:3] == size),
            lambda: tf.cast(images, tf.float32),
            lambda: whole_pixels(resample(images, self.input_spec)),
        )
        return tf.ensure_shape(resized, (None, *size, self.input_spec.num_channels))

    def probabilities(self, outputs):
        """Returns the probabilities of the classes, calibrated; for a single output that of the second class."""
        if self.calibration is not None:
            return self.calibration.probabilities(outputs, from_logits=self.options.activation is not None)
        activations = {None: tf.identity, "softmax": tf.nn.softmax, "sigmoid": tf.sigmoid}
        return activations[self.options.activation](outputs)

    def class_probabilities(self, outputs):
        """Returns the probabilities of every class, also of both classes of a single output: `(batch, classes)`."""
        probabilities = self.probabilities(outputs)
        if probabilities.shape[-1] > 1:
            return probabilities
        return tf.concat([1 - probabilities, probabilities], axis=-1)

    def _answer(self, outputs, valid):
        """Returns the best classes, or the values of a regression; zeros and empty names for bad images."""
        if not self.is_classifier:
            return {"values": tf.where(valid[:, None], outputs, 0.0), "valid": valid}
        scores, ids = tf.math.top_k(self.class_probabilities(outputs), self.options.top_k)
        names = (
            tf.strings.as_string(ids)
            if self.options.labels is None
            else tf.gather(tf.constant(self.options.labels), ids)
        )
        return {
            "scores": tf.where(valid[:, None], scores, 0.0),
            "classes": tf.where(valid[:, None], names, ""),
            "class_ids": tf.where(valid[:, None], ids, 0),
            "valid": valid,
        }


def _traced(spec):
    """Returns a decorator that makes a function of one input a `tf.function`."""
    return lambda function: tf.function(function, input_signature=[spec], autograph=False)


def _strings(name):
    return tf.TensorSpec((None,), tf.string, name)


def _image_of_example(example):
    """Reads the encoded image in a serialized `tf.Example`; an empty string if there is none."""
    features = {key: tf.io.FixedLenFeature((), tf.string, default_value=b"") for key in EXAMPLE_KEYS}
    parsed = tf.io.parse_single_example(example, features)
    first, second = (parsed[key] for key in EXAMPLE_KEYS)
    return tf.where(tf.strings.length(first) > 0, first, second)
