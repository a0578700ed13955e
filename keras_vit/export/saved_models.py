"""Writes models as SavedModels for TF Serving, and classifies images with them."""

import pathlib
import warnings

import numpy as np
import tensorflow as tf

from keras_vit.export.loaded_model import LoadedSavedModel
from keras_vit.export.servable.description import describe, write_description
from keras_vit.export.servable.fingerprint import write_fingerprint
from keras_vit.export.servable.functional import flat, is_quantized, with_compute_dtype
from keras_vit.export.servable.options import ExportOptions
from keras_vit.export.servable.quantization_error import quantization_error, synthetic_pixels
from keras_vit.export.servable.servable import make_servable
from keras_vit.export.servable.signature_defs import CLASSIFY_METHOD, SERVE_TAG
from keras_vit.export.server.warmup import has_protos, write_warmup
from keras_vit.export.versions import check_version, write_version

PREDICT_BATCH = 32  # Images per call.


def saved_model(model, directory, labels=None, version=None, **options):
    """Writes `<directory>/<version>/`, a SavedModel with the preprocessing in the graph.

    The version appears whole or not at all, and is on the disk before it has its number. Signatures, all with n = any
    number of images, 0 included; outputs are float32, int32, bool or strings under every dtype policy:

    * `serving_default`: `image_bytes`, string `(n,)`, encoded images of any size, to `scores` `(n, k)`, `classes`
      `(n, k)`, `class_ids` `(n, k)`, best first, and `valid` `(n,)`. An image that is no JPEG, PNG, WebP, BMP or GIF
      (of an animation the first frame counts), is damaged or too large gets `valid` False, zeros and empty names; it
      does not affect the other images of the batch, which a server may have combined from several clients.
    * `strict`: the same, but a bad image is the error INVALID_ARGUMENT, which names its row and the reason.
    * `images` and `images_uint8`: `images`, float32 or uint8 `(n, h, w, c)`, pixels from 0 to 255 as decoders return
      them, to `logits` and `probabilities` `(n, num_classes)`; without `logits` if the model itself ends in a softmax
      or sigmoid. Images of the model's size are used unchanged; all others are resized and cropped as encoded ones; NaN
      and infinity are rejected. There are two signatures because one has one dtype: float32 for JSON, uint8 for gRPC,
      with a quarter of the bytes.
    * `embeddings`: `image_bytes` to `representation` `(n, width)`, the input of the classifier, `embedding`, the same
      with length one, and `valid`.
    * `explain`, if every token attends to every other: `image_bytes` to `heat_map` `(n, h, w)` on the grid of the
      patches (see `keras_vit.interpret.rollout_model`), `class`, `class_id`, `score`, `valid` `(n,)`. Swin Transformers
      attend within windows and have none.
    * `classify`: `inputs`, serialized `tf.Example`s with the feature `image_bytes` or `image/encoded`, to `classes` and
      `scores` `(n, k)`, for TF Serving's Classify API; a bad image gets empty names and zeros.

    For a regression `serving_default` and `strict` return `values` `(n, k)` and `valid`, `images` returns `values`, and
    there is no `classify`. A single logit distinguishes two classes: `scores` have both, `probabilities` that of the
    second one. Layers that augment images in front of the model are left out; layers that normalize pixels there become
    part of the preprocessing.

    A model without a classifier has `embeddings` alone, which is then also `serving_default`; one whose images have
    neither 1 nor 3 channels has `images` and `images_uint8`.

    Args:
        model: a model of keras_vit, or any model built around one: with a custom head, behind layers that augment
            images or normalize pixels, in a `Sequential`, nested, or an attribute of a subclass.
        directory: path, for example `saved_models/flowers`; its name is the model's name on a server.
        labels: as in `ExportOptions`.
        version: int or `None`: the next one.
        **options: the fields of `keras_vit.export.ExportOptions`.

    Returns:
        The path of the version. `keras_vit.export.read_description` reads its metadata and the quantization error.

    Raises:
        ValueError: if the version exists, the model changes its images in an unknown way, or has neither a classifier
            nor images that can be encoded; if it is unknown whether a single output is a logit or a value; if an
            argument is invalid.
    """
    check_version(directory, version)
    options = ExportOptions(labels=labels, **options)
    servable = make_servable(model, options)
    functions = {name: function.get_concrete_function() for name, function in servable.signatures().items()}
    error = _quantization_error(servable, model) if servable.is_inexact else None
    description = describe(servable, functions, error)
    name = pathlib.Path(directory).resolve().name
    has_warmup = bool(options.batch_sizes) and has_protos()
    if options.batch_sizes and not has_warmup:
        warnings.warn(
            "no warm-up records were written: install the extra that they need, pip install 'keras-vit-zoo[serving] @ "
            "git+<this repository>', or pass batch_sizes=()",
            stacklevel=2,
        )

    def write(path, number):
        if not (path / "saved_model.pb").exists():
            # These variables and no model: `model.export` and `ExportArchive.track` store each of them twice.
            module = tf.Module()
            module.weights = _variables(functions.values())
            tf.saved_model.save(module, str(path), functions)
            _name_methods(path, functions)
        write_description(path, name, number, description)
        if has_warmup:
            write_warmup(path, name, options.batch_sizes, image_size=servable.input_spec.size)

    return write_version(directory, write, version)


def _name_methods(path, functions):
    """Sets the method name of `classify` that TF Serving's Classify API requires; TensorFlow 2 writes Predict."""
    if "classify" in functions:
        updater = tf.compat.v1.saved_model.signature_def_utils.MethodNameUpdater(str(path))
        updater.replace_method_name("classify", CLASSIFY_METHOD, tags=SERVE_TAG)
        updater.save()
        # The fingerprint that TensorFlow wrote is of the signatures before this change.
        write_fingerprint(path)


def _variables(functions):
    """Returns the variables that functions read, each once; under a strategy the copy of one device."""
    return list({id(variable): variable for function in functions for variable in function.variables}.values())


def _quantization_error(servable, model):
    """Measures the difference of the outputs from those of the model in float32."""
    spec, compare = servable.input_spec, servable.options.compare
    pixels = synthetic_pixels(spec) if compare is None else np.stack([spec.resize(image) for image in compare])
    reference = flat(model)
    if not is_quantized(reference):
        reference = with_compute_dtype(reference, "float32")
    return quantization_error(servable, reference, pixels)


def predict(path, files):
    """Classifies image files with a SavedModel, without Keras.

    Args:
        path: of a version, or of a folder of versions, of which the highest is used.
        files: paths of images.

    Returns:
        A list with a list of `(class name, score)` for each file, best first; for a regression `(name, value)`.

    Raises:
        ValueError: if there is no SavedModel, or it does not classify; or if a file cannot be read or decoded.
    """
    loaded, results = LoadedSavedModel(path), []
    for start in range(0, len(files), PREDICT_BATCH):
        results += loaded.classify(files[start : start + PREDICT_BATCH])
    for file, answer in zip(files, results, strict=True):
        if isinstance(answer, str):
            raise ValueError(f"an image must be a readable file. Received: {str(file)!r} ({answer})")
    return results
