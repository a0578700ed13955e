"""Shared parts of exports to other runtimes: model function, metadata, verification, atomic writes."""

import contextlib
import dataclasses
import os
import pathlib
import shutil
import tempfile

import keras
import numpy as np
import tensorflow as tf

from keras_vit.atomic import keep_names
from keras_vit.backend.export_mode import portable_graph
from keras_vit.export.servable.functional import check_backend, flat_composition, is_quantized, with_compute_dtype
from keras_vit.export.servable.labels import model_labels
from keras_vit.metadata import composed_metadata, composition, describe_front, folded_spec, metadata
from keras_vit.origin import portable_origin
from keras_vit.outputs import describe_output, score_activation
from keras_vit.preprocessing import InputSpec
from keras_vit.weights.publish.push import license_of

BATCHES = (1, 2, 5)  # Batch sizes that a written file is tested with.
TOLERANCE = 1e-4  # Of outputs, relative to the largest value or 1.
INPUT = "images"
SIGNATURE = "serving_default"


@dataclasses.dataclass(frozen=True)
class RuntimeFile:
    """A written file.

    Args:
        path: `pathlib.Path`.
        runtime: str or `None`. Name and version of the runtime that verified it; `None` if that is not installed.
        difference: float or `None`. The largest difference between its outputs and those of Keras.
        quantization: dict or `None`. Of a quantized file, how its outputs differ from those of Keras: `images`, their
            number; `outputs_max` and `outputs_mean`, as parts of the largest output of Keras; of classifiers also
            `top1_agreement`.
    """

    path: pathlib.Path
    runtime: str | None = None
    difference: float | None = None
    quantization: dict | None = None


@dataclasses.dataclass(frozen=True)
class Source:
    """A model that is ready to be converted.

    Args:
        model: `keras.Model` that computes in float32.
        output: str. Name of its output: `logits`, `probabilities`, `values` of a regression, or
            `representation` without a classifier.
        labels: tuple of str or `None`. Of a single output perhaps those of both classes, the second one last.
        input_spec: `InputSpec`. How its images are prepared.
        front: str or `None`. Description of the layers in front of the model that are left out.
        calibration: dict or `None`. The calibration of the model: probabilities have it, for logits it says how to make
            calibrated probabilities of them.
    """

    model: keras.Model
    output: str
    labels: tuple | None
    input_spec: InputSpec
    front: str | None = None
    calibration: dict | None = None

    @property
    def signature(self):
        """The input: float32 `(batch, h, w, channels)`, normalized, of the model's size and any batch size."""
        spec = self.input_spec
        return [tf.TensorSpec((None, *spec.size, spec.num_channels), tf.float32, name=INPUT)]

    def function(self):
        """Builds a `tf.function` of operations that other runtimes support."""

        def call(images):
            with portable_graph():
                return {self.output: self.model(images, training=False)}

        return tf.function(call, input_signature=self.signature, autograph=False)

    def save(self, path):
        """Writes a SavedModel of this function, for converters that read one."""
        archive = keras.export.ExportArchive()
        archive.add_endpoint(SIGNATURE, self.function())
        archive.write_out(str(path), verbose=False)

    def description(self):
        """Returns the metadata of the file, a dict of JSON types."""
        content = metadata(self.model)
        return {
            "name": self.model.name,
            "input": INPUT,
            "output": self.output,
            "layout": "NHWC",
            "input_spec": self.input_spec.get_config(),
            "front": self.front,
            "preprocessing": "resize and crop as input_spec says, then (pixel / 255 - mean) / std",
            "labels": None if self.labels is None else [*self.labels],
            **({} if self.calibration is None else {"calibration": self.calibration}),
            "origin": portable_origin(content.origin),
            "license": license_of(content),
        }


def source(model, labels=None, max_bytes=None):
    """Prepares a model for conversion.

    Args:
        model: a model of keras_vit, or any model built around one. What augments or normalizes images in front of it is
            left out: `Source.input_spec` has what it does. Under a mixed dtype policy its weights are converted with
            computations in float32, which is what the runtimes know; adapters of LoRA are merged.
        labels: class names; `None`: the model's own.
        max_bytes: int or `None`. How much the weights may take in float32.

    Returns:
        A `Source`.

    Raises:
        ValueError: if the model changes its images in a way that is not known, has several outputs, is quantized or is
            too large; if the labels do not fit it; under another backend of Keras.
    """
    check_backend()
    parts = composition(model)
    core = flat_composition(parts)
    output = describe_output(parts, parts.marker.content.config)
    if len(core.outputs[0].shape) != 2:
        raise ValueError(f"a model to export must return one vector per image. Received: model={model.name!r}")
    if max_bytes is not None and 4 * core.count_params() > max_bytes:
        raise ValueError(
            f"a file of this format holds at most {max_bytes / 1e9:.1f} GB. "
            f"Received: model={model.name!r} with {4 * core.count_params() / 1e9:.1f} GB of weights in float32"
        )
    labels = model_labels(parts, output, labels)
    spec, prepared = folded_spec(parts), _in_float32(core)
    if not output.has_head:
        return Source(prepared, "representation", None, spec)
    name = "probabilities" if output.activation in ("softmax", "sigmoid") else _name_of_values(model, output, labels)
    calibration = composed_metadata(parts).calibration
    if calibration is None:
        return Source(prepared, name, labels, spec, describe_front(model))
    if name == "probabilities":
        calibrated = calibration.probabilities(prepared.output, from_logits=False)
        prepared = keras.Model(prepared.input, calibrated, name=prepared.name)
    return Source(prepared, name, labels, spec, describe_front(model), calibration.get_config())


def _name_of_values(model, output, labels):
    """Returns `values` for a regression, else `logits`, also for a single output of unknown meaning."""
    try:
        return "values" if score_activation(model, output, labels) == "linear" else "logits"
    except ValueError:
        return "logits"


def _in_float32(model):
    """Returns the model, or a float32 copy if it has another compute dtype or LoRA adapters."""
    if is_quantized(model):
        raise ValueError(
            "a quantized model computes as it was quantized; other runtimes get models in float32. "
            f"Received: model={model.name!r}"
        )
    return with_compute_dtype(model, "float32")


def check_suffix(path, suffix):
    """Returns `path` as a `pathlib.Path`; raises a `ValueError` unless it ends in `suffix`."""
    path = pathlib.Path(path)
    if path.suffix != suffix:
        raise ValueError(f"a file of this format must end in {suffix}. Received: {str(path)!r}")
    return path


def require(module, extra, what):
    """Raises an `ImportError` that names the extra unless a module can be imported."""
    try:
        __import__(module)
    except ImportError as error:
        raise ImportError(
            f"{what} needs {module}: pip install 'keras-vit-zoo[{extra}] @ git+<this repository>' ({error})"
        ) from error


def difference(source, load):
    """Measures the largest difference between a written file and Keras, with batches of `BATCHES` images.

    Args:
        source: `Source`.
        load: callable that loads the file and gives a callable from float32 images `(batch, h, w, channels)` to outputs
            `(batch, outputs)`.

    Returns:
        float.

    Raises:
        ValueError: if the runtime fails, or its outputs have another shape or differ by more than `TOLERANCE`.
    """
    spec = source.input_spec
    pixels = np.random.default_rng(0).integers(0, 256, (max(BATCHES), *spec.size, spec.num_channels))
    images = spec.normalize(pixels)
    expected = keras.ops.convert_to_numpy(source.model(images, training=False))
    if not np.isfinite(expected).all():
        raise ValueError(f"the outputs of a model must be finite. Received: model={source.model.name!r}, whose are not")
    try:
        run = load()
        outputs = [np.asarray(run(images[:batch])) for batch in BATCHES]
    except Exception as error:  # Every runtime has its own errors.
        raise ValueError(f"the runtime must run the written file. Received: {error}") from error
    shapes, expected_shapes = [found.shape for found in outputs], [expected[:batch].shape for batch in BATCHES]
    if shapes != expected_shapes:
        raise ValueError(f"the written file must give outputs of the shapes {expected_shapes}. Received: {shapes}")
    largest = float(np.max([np.abs(found - expected[: len(found)]).max() for found in outputs]))
    # Not `>`, so that NaN fails.
    if not largest <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
        raise ValueError(f"the written file must give the outputs of Keras. Received: a difference of {largest:.2g}")
    return largest


@contextlib.contextmanager
def beside(path):
    """Returns a context with a hidden temporary folder beside `path`, on the same file system."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = pathlib.Path(tempfile.mkdtemp(prefix=".partial-", dir=path.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def put(written, path):
    """Moves a finished file to its path atomically; replaces an older file."""
    with open(written, "rb") as file:
        os.fsync(file.fileno())
    os.chmod(written, 0o644)
    os.replace(written, path)
    keep_names(path.parent)
