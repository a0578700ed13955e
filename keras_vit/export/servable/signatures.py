"""The signatures of a SavedModel: what the clients of TF Serving send and get."""

import dataclasses

import keras
import tensorflow as tf

from keras_vit.export.servable.errors import assert_readable, checked_images
from keras_vit.export.servable.functional import with_representation
from keras_vit.export.servable.quantization import StoredWeights
from keras_vit.image_ops.decode import VALID, decode_images
from keras_vit.image_ops.resize import normalize, resample, whole_pixels
from keras_vit.interpret.rollout import rollout_model
from keras_vit.layers import TransformerEncoder
from keras_vit.preprocessing import InputSpec

# The features of a `tf.Example` in which an image is looked for, in this order.
EXAMPLE_KEYS = ("image_bytes", "image/encoded")


@dataclasses.dataclass(frozen=True)
class Servable:
    """A model and everything that its signatures depend on.

    Args:
        model: flat `keras.Model`, see `keras_vit.export.servable.functional`.
        weights: `StoredWeights` of it.
        input_spec: `InputSpec`.
        labels: tuple of str, or `None`: classes are called by their numbers.
        top_k: int. How many classes an answer has.
        activation: `softmax` or `sigmoid`, which makes probabilities of the model's logits; `None` where the model
            gives probabilities; `linear` where its outputs are the values of a regression.
        has_head: bool. Whether something with weights follows the representation.
        formats, max_pixels, upright: as for `decode_images`.
        front: str or `None`. What was in front of the model, in words for people.
        is_inexact: bool. Whether it stores or computes in other types than the model that it was made of.
    """

    model: keras.Model
    weights: StoredWeights
    input_spec: InputSpec
    labels: tuple | None
    top_k: int
    activation: str | None
    has_head: bool
    formats: tuple
    max_pixels: int
    upright: bool
    front: str | None = None
    is_inexact: bool = False

    @property
    def is_classifier(self):
        """Whether the model gives scores of classes."""
        return self.has_head and self.activation != "linear"

    def signatures(self):
        """The functions by their names: dict of `tf.function`, each of one signature, that return dicts of tensors.

        Raises:
            ValueError: if there are none: without a classifier, of images that are never encoded.
        """
        is_encoded = self.input_spec.num_channels in (1, 3)
        if not is_encoded and not self.has_head:
            raise ValueError(
                "a model without a classifier must take images of 1 or 3 channels to be exported. "
                f"Received: model={self.model.name!r} with {self.input_spec.num_channels} channels"
            )
        read, run, found = self._reader(), self.runner(with_representation(self.model)), {}
        if self.has_head:
            found |= self._images(run)
        if is_encoded:
            found["embeddings"] = self._embeddings(read, run)
        if is_encoded and self.has_head:
            found |= self._predictors(read, run)
            if any(isinstance(layer, TransformerEncoder) for layer in self.model.layers):
                found["explain"] = self._explain(read)
        # What a client gets that names no signature.
        found.setdefault("serving_default", found.get("images", found.get("embeddings")))
        return found

    def runner(self, model):
        """A function from normalised images to what a model of these layers returns, as float32."""
        shape = (None, *self.input_spec.size, self.input_spec.num_channels)

        # A function of its own, which the graph of the signatures that call it holds once.
        @_traced(tf.TensorSpec(shape, tf.float32))
        def run(images):
            with self.weights.scope():
                outputs = model(images, training=False)
            return tf.nest.map_structure(lambda output: tf.cast(output, tf.float32), outputs)

        return run

    def _reader(self, find=None):
        """A function from strings to normalised images, and the reasons why some are bad."""

        @_traced(tf.TensorSpec((None,), tf.string))
        def read(strings):
            options = (self.input_spec, self.formats, self.max_pixels, self.upright, find)
            pixels, reasons = decode_images(strings, *options)
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
            check = assert_readable(image_bytes, reasons, self.formats, self.max_pixels)
            with tf.control_dependencies([check]):
                return self._answer(run(tf.identity(images))["outputs"], reasons == VALID)

        read_example = self._reader(_image_of_example)

        @_traced(_strings("inputs"))
        def classify(inputs):
            images, reasons = read_example(inputs)
            answer = self._answer(run(images)["outputs"], reasons == VALID)
            return {name: answer[name] for name in ("classes", "scores")}

        found = {"serving_default": serving_default, "strict": strict}
        return {**found, "classify": classify} if self.is_classifier else found

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
            images = checked_images(images, self.input_spec.num_channels, self.max_pixels)
            outputs = run(normalize(self._resized(images), self.input_spec))["outputs"]
            if not self.is_classifier:
                return {"values": outputs}
            logits = {"logits": outputs} if self.activation else {}
            return {**logits, "probabilities": self.probabilities(outputs)}

        shape = (None, None, None, self.input_spec.num_channels)
        kinds = {"images": tf.float32, "images_uint8": tf.uint8}
        return {name: _traced(tf.TensorSpec(shape, dtype, "images"))(classify) for name, dtype in kinds.items()}

    def _resized(self, images):
        """Pixels of any size as float32 pixels of the model's; those that have it are not touched."""
        size = self.input_spec.size
        resized = tf.cond(
            tf.reduce_all(tf.shape(images)[1:3] == size),
            lambda: tf.cast(images, tf.float32),
            lambda: whole_pixels(resample(images, self.input_spec)),
        )
        return tf.ensure_shape(resized, (None, *size, self.input_spec.num_channels))

    def probabilities(self, outputs):
        """Probabilities of the classes, from what the model returns; of a single output that of the second class."""
        activations = {None: tf.identity, "softmax": tf.nn.softmax, "sigmoid": tf.sigmoid}
        return activations[self.activation](outputs)

    def class_probabilities(self, outputs):
        """Probabilities of every class, also of both that a single output tells apart: `(batch, classes)`."""
        probabilities = self.probabilities(outputs)
        if probabilities.shape[-1] > 1:
            return probabilities
        return tf.concat([1 - probabilities, probabilities], axis=-1)

    def _answer(self, outputs, valid):
        """The best classes, or the values of a regression; zeros and empty names where an image is bad."""
        if not self.is_classifier:
            return {"values": tf.where(valid[:, None], outputs, 0.0), "valid": valid}
        scores, ids = tf.math.top_k(self.class_probabilities(outputs), self.top_k)
        names = tf.strings.as_string(ids) if self.labels is None else tf.gather(tf.constant(self.labels), ids)
        return {
            "scores": tf.where(valid[:, None], scores, 0.0),
            "classes": tf.where(valid[:, None], names, ""),
            "class_ids": tf.where(valid[:, None], ids, 0),
            "valid": valid,
        }


def _traced(spec):
    """Makes a function of one input a `tf.function`."""
    return lambda function: tf.function(function, input_signature=[spec], autograph=False)


def _strings(name):
    return tf.TensorSpec((None,), tf.string, name)


def _image_of_example(example):
    """The encoded image in a serialised `tf.Example`; an empty string where it holds none."""
    features = {key: tf.io.FixedLenFeature((), tf.string, default_value=b"") for key in EXAMPLE_KEYS}
    parsed = tf.io.parse_single_example(example, features)
    first, second = (parsed[key] for key in EXAMPLE_KEYS)
    return tf.where(tf.strings.length(first) > 0, first, second)
