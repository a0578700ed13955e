"""A SavedModel with the signatures of an export, small enough to be written in a second, and one fault on request."""

import json

import numpy as np
import tensorflow as tf

from keras_vit.export.checks.signatures import signature_table
from keras_vit.export.servable.fingerprint import write_fingerprint
from keras_vit.export.servable.signature_defs import signature_defs
from keras_vit.image_ops.decode import Limits
from keras_vit.image_ops.decode import decode as safely_decoded
from keras_vit.image_ops.resize import resize
from keras_vit.preprocessing import InputSpec

LABELS = ("red", "green", "blue", "/m/0gray")  # the last as in Open Images
SPEC = InputSpec(size=8, crop_fraction=None)
FEATURE = "image_bytes"
_STRINGS = [tf.TensorSpec((None,), tf.string, name="image_bytes")]


class Weights:
    """The numbers of the model, and what it computes in NumPy: pixels, normalized, to logits."""

    def __init__(self):
        random = np.random.default_rng(0)
        shapes = ((192, 32), (32, 4))
        self.weights = [tf.Variable(random.normal(size=shape, scale=0.2), dtype=tf.float32) for shape in shapes]

    def __call__(self, images, training=False):
        first, second = (weight.numpy() for weight in self.weights)
        return np.tanh(images.reshape(-1, 192) @ first) @ second


class Faulty(tf.Module):
    """The graph.

    Args:
        fault: str, one of those that the code asks for, or `None`: everything is right.
    """

    def __init__(self, fault=None):
        self.fault = fault
        self.kernel, self.head = Weights().weights
        if fault == "weights twice":
            self.copy = tf.Variable(self.kernel)
        self.large = tf.constant(np.random.default_rng(1).normal(size=2**19), tf.float32)

    def signatures(self):
        """A dict of functions by name."""
        images = tf.TensorSpec((None, None, None, 3), tf.float32, name="images")
        if self.fault == "batch of four":
            images = tf.TensorSpec((4, None, None, 3), tf.float32, name="images")
        examples = [tf.TensorSpec((None,), tf.string, name="inputs")]
        specs = {"serving_default": _STRINGS, "strict": _STRINGS, "images": [images], "embeddings": _STRINGS}
        specs["images_uint8"] = [tf.TensorSpec((None, None, None, 3), tf.uint8, name="images")]
        specs |= {"explain": _STRINGS, "classify": examples}
        if self.fault == "no strict":
            del specs["strict"]
        if self.fault == "no explain":
            del specs["explain"]
        return {
            name: tf.function(getattr(self, name), spec, jit_compile=(self.fault, name) == ("XLA", "images"))
            for name, spec in specs.items()
        }

    def _pixels(self, data):
        """One encoded image to pixels of the model's size, and whether it is one."""

        def decode():
            if self.fault == "recovers":
                image = tf.io.decode_jpeg(data, 3, try_recover_truncated=True, dct_method="INTEGER_ACCURATE")
            elif self.fault == "fast DCT":
                image = tf.io.decode_jpeg(data, 3)
            else:
                image = safely_decoded(data, Limits())[0]
            image = image[..., ::-1] if self.fault == "BGR" else image
            return self._resize(image[None], "bilinear" if self.fault == "bilinear" else "bicubic")[0]

        valid = (tf.strings.substr(data, 0, 1) == b"\xff") | (tf.strings.substr(data, 0, 1) == b"\x89")
        valid &= tf.strings.length(data) > 50
        return tf.cond(valid, decode, lambda: tf.zeros((8, 8, 3))), valid

    def _resize(self, images, method="bicubic"):
        return resize(images, SPEC.replace(interpolation=method))

    def _decode(self, image_bytes):
        pixels, valid = tf.map_fn(self._pixels, image_bytes, fn_output_signature=(tf.float32, tf.bool))
        if self.fault == "silent":
            valid = tf.ones_like(valid)
        return tf.ensure_shape(pixels, (None, 8, 8, 3)), valid

    def _representation(self, pixels):
        rows = tf.reshape(SPEC.normalize(pixels), (-1, 192))
        if self.fault == "rows depend on the batch":
            rows -= tf.reduce_mean(rows, axis=0)
        if self.fault == "random":
            rows += tf.random.normal(tf.shape(rows))
        return tf.tanh(rows @ self.kernel)

    def _best(self, pixels, valid):
        probabilities = tf.nn.softmax(self._representation(pixels) @ self.head)
        scores, ids = tf.math.top_k(probabilities, 4 if self.fault == "second best" else 3)
        if self.fault == "second best":
            scores, ids = scores[:, 1:], ids[:, 1:]
        names = LABELS[1:] + LABELS[:1] if self.fault == "labels" else LABELS
        scores = scores[:, ::-1] if self.fault == "unsorted" else scores
        keep = tf.reduce_all(valid) & valid if self.fault == "neighbors" else valid
        return {
            "scores": tf.where(keep[:, None], scores, 0),
            "classes": tf.gather(tf.constant(names), ids),
            "class_ids": ids,
            "valid": valid,
        }

    def serving_default(self, image_bytes):
        return self._best(*self._decode(image_bytes))

    def strict(self, image_bytes):
        pixels, valid = self._decode(image_bytes)
        bad = tf.strings.reduce_join(tf.strings.as_string(tf.where(~valid)[:, 0]))
        message = "bad image" if self.fault == "nameless" else tf.strings.join(["no image in row ", bad])
        checks = [] if self.fault == "lenient" else [tf.debugging.Assert(tf.reduce_all(valid), [message])]
        with tf.control_dependencies(checks):
            return self._best(tf.identity(pixels), valid)

    def images(self, images):
        logits = self._representation(self._resize(images)) @ self.head
        outputs = {"logits": logits, "probabilities": tf.nn.softmax(logits)}
        if self.fault == "sums":
            outputs["probabilities"] *= 0.9
        if self.fault == "half precision":
            outputs["logits"] = tf.cast(logits, tf.bfloat16)
        if self.fault == "NaN":
            outputs["logits"] = tf.math.log(tf.zeros_like(logits)) * 0
        if self.fault == "Python":
            outputs["logits"] = tf.ensure_shape(tf.numpy_function(lambda x: x, [logits], tf.float32), (None, 4))
        if self.fault == "large constant":
            outputs["logits"] += 0 * self.large[:4]
        if self.fault == "path":
            outputs["logits"] += tf.cast(tf.strings.length(tf.constant("/home/somebody/labels.txt")), tf.float32)
        if self.fault == "no empty batch":
            with tf.control_dependencies([tf.debugging.assert_positive(tf.shape(logits)[0])]):
                outputs["logits"] = tf.identity(logits)
        if self.fault == "other logits":
            outputs["logits"] += 1e-3
        return outputs

    def images_uint8(self, images):
        logits = self._representation(self._resize(tf.cast(images, tf.float32))) @ self.head
        return {"logits": logits, "probabilities": tf.nn.softmax(logits)}

    def embeddings(self, image_bytes):
        pixels, valid = self._decode(image_bytes)
        raw = self._representation(pixels)
        unit = raw if self.fault == "length" else tf.math.l2_normalize(raw, axis=1)
        return {"representation": raw, "embedding": unit, "valid": valid}

    def explain(self, image_bytes):
        pixels, valid = self._decode(image_bytes)
        grid = tf.reduce_mean(tf.reshape(pixels, (-1, 2, 4, 2, 4, 3)), (2, 4, 5))
        best = self._best(pixels, valid)
        column = 1 if self.fault == "second class" else 0
        return {
            "heat_map": tf.zeros_like(grid) if self.fault == "flat" else grid,
            "class": best["classes"][:, column],
            "class_id": best["class_ids"][:, column],
            "score": best["scores"][:, column],
            "valid": valid,
        }

    def classify(self, inputs):
        parsed = tf.io.parse_example(inputs, {FEATURE: tf.io.FixedLenFeature((), tf.string)})
        best = self._best(*self._decode(parsed[FEATURE]))
        return (
            {k: best[k] for k in ("classes", "scores", "class_ids")}
            if self.fault == "third output"
            else {key: best[key] for key in ("classes", "scores")}
        )


def write(path, fault=None):
    """Writes it, with its description; gives the path."""
    model = Faulty(fault)
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(model, str(path), signatures=model.signatures(), options=options)
    updater = tf.compat.v1.saved_model.signature_def_utils.MethodNameUpdater(str(path))
    updater.replace_method_name("classify", "tensorflow/serving/classify", tags="serve")
    updater.save()
    write_fingerprint(path)
    (path / "assets.extra").mkdir()
    table = signature_table(signature_defs(path))
    if fault == "another description":
        table["images"]["outputs"]["logits"]["shape"] = [-1, 5]
    told = {name: {key: signature[key] for key in ("inputs", "outputs")} for name, signature in table.items()}
    told |= {} if fault != "no strict" else {"strict": told["serving_default"]}
    description = {
        "name": path.parent.name,
        "family": "ViTConfig",
        "config": {},
        "input_spec": SPEC.get_config(),
        "labels": LABELS,
        "options": {"activation": "softmax", "formats": ["jpeg", "png"], "max_pixels": 2**20, "upright": True},
        "difference": None,
        "signatures": told,
    }
    (path / "assets.extra" / "keras_vit.json").write_text(json.dumps(description))
    return path
