"""Write a model as a SavedModel that TF Serving serves, and ask one."""

import pathlib
import warnings

import numpy as np
import tensorflow as tf

from keras_vit.export.loaded_model import LoadedSavedModel
from keras_vit.export.servable.description import describe, write_description
from keras_vit.export.servable.fingerprint import write_fingerprint
from keras_vit.export.servable.functional import flat, is_quantized, with_compute_dtype
from keras_vit.export.servable.quantization_error import fixed_pixels, measure_difference
from keras_vit.export.servable.servable import make_servable
from keras_vit.export.servable.signature_defs import CLASSIFY_METHOD, SERVE_TAG
from keras_vit.export.server.warmup import BATCH_SIZES, has_protos, write_warmup
from keras_vit.export.versions import check_version, write_version
from keras_vit.image_ops.decode import MAX_PIXELS
from keras_vit.image_ops.headers import FORMATS

PREDICT_BATCH = 32  # images that are asked about at once


def saved_model(
    model,
    directory,
    labels=None,
    input_spec=None,
    top_k=5,
    version=None,
    *,
    dtype=None,
    weights="float32",
    activation=None,
    formats=FORMATS,
    max_pixels=MAX_PIXELS,
    upright=True,
    compare=None,
    batch_sizes=BATCH_SIZES,
    license=None,
):
    """Writes `<directory>/<version>/`, a SavedModel with the preprocessing in the graph.

    The version appears whole or not at all, and is on the disk before it has its number. Signatures, all with n = any
    number of images, 0 included; outputs are float32, int32, bool or strings under every dtype policy:

    * `serving_default`: `image_bytes`, string `(n,)`, encoded images of any size, to `scores` `(n, k)`, `classes`
      `(n, k)`, `class_ids` `(n, k)`, best first, and `valid` `(n,)`. An image that is no JPEG, PNG, WebP, BMP or GIF
      (of an animation the first frame counts), is damaged or too large gets `valid` False, zeros and empty names; its
      neighbours in the batch, which a server may have put together from several clients, are not touched by it.
    * `strict`: the same, but a bad image is the error INVALID_ARGUMENT, which names its row and the reason.
    * `images` and `images_uint8`: `images`, float32 or uint8 `(n, h, w, c)`, pixels from 0 to 255 as decoders give
      them, to `logits` and `probabilities` `(n, num_classes)`; without `logits` where the model itself ends in a
      softmax or sigmoid. Images of the model's size go in as they are; all others are resized and cropped as encoded
      ones; NaN and infinity are refused. Two signatures, as one has one type: float32 for JSON, uint8 for gRPC, where
      it is a quarter of the bytes.
    * `embeddings`: `image_bytes` to `representation` `(n, width)`, what the classifier starts from, `embedding`, the
      same with length one, and `valid`.
    * `explain`, where every token attends to every other: `image_bytes` to `heat_map` `(n, h, w)` on the grid of the
      patches (see `keras_vit.interpret.rollout_model`), `class`, `class_id`, `score`, `valid` `(n,)`. Swin Transformers
      attend inside windows and have none.
    * `classify`: `inputs`, serialised `tf.Example`s with the feature `image_bytes` or `image/encoded`, to `classes` and
      `scores` `(n, k)`, as TF Serving's Classify API wants it; a bad image gets empty names and zeros.

    Of a regression `serving_default` and `strict` give `values` `(n, k)` and `valid`, `images` gives `values`, and
    there is no `classify`. A single logit tells two classes apart: `scores` have both, `probabilities` that of the
    second one. What augments images in front of the model is left out, what normalizes pixels there goes into the
    preprocessing.

    A model without a classifier has `embeddings` alone, which is then also `serving_default`; one whose images have
    neither 1 nor 3 channels has `images` and `images_uint8`.

    Args:
        model: a model of keras_vit, or any model built around one: with a head of one's own, behind layers that
            augment images or normalize pixels, in a `Sequential`, nested, or an attribute of a subclass.
        directory: path, for example `saved_models/flowers`; its name is what a server will call the model.
        labels: class names; both of them for a single logit, the second one last; `None` for the model's own, or the
            numbers of the classes.
        input_spec: `InputSpec`, of the model's size and channels; `None` for the model's own.
        top_k: int. How many classes an answer has, at most all. Default 5.
        version: int or `None`: the next one.
        dtype: what the model computes in, `float32` or `bfloat16`; `None`: as it does.
        weights: how weights are stored: `float32`; `bfloat16`, half of the bytes; `int8`, a quarter (dense layers and
            convolutions, a step size an output channel). They are unpacked in each call.
        activation: what makes probabilities of logits, `softmax` or `sigmoid` (several labels an image); `linear`:
            nothing, as the outputs are the values of a regression. `None`: as the loss tells that the model is compiled
            with, else `softmax`, and `sigmoid` for a single logit with labels of two classes. A model that ends in one
            of them keeps it.
        formats: those of `jpeg`, `png`, `webp`, `bmp`, `gif` that are accepted. Default all.
        max_pixels: int. Larger images are refused by their header. Default 2 ** 25; while it is decoded, an image takes
            six or seven bytes a pixel, a progressive JPEG up to eleven.
        upright: bool. Whether an image with an Exif orientation, as telephones write it, is turned as a person would
            see it. `InputSpec.load` and data sets for training and evaluation do so. Default True.
        compare: images by which the difference from the model in float32 is measured where `dtype` or `weights` ask
            for less: paths, or uint8 arrays `(h, w, channels)`; `None`: sixteen images of smooth noise.
        batch_sizes: increasing ints. The batches that a server makes, of which the version gets warm-up records. They
            take the extra `serving`; without it there are none, and a warning says so. `()`: none. Default
            (1, 2, 4, 8), which are those of `write_server_files` too.
        license: str, that of the weights, for the description; `None`: that of the published weights, if they are some.

    Returns:
        The path of the version. `keras_vit.export.read_description` tells what it holds, and the difference.

    Raises:
        ValueError: if the version exists, the model changes its images in a way that is not known, or has neither a
            classifier nor images that can be encoded; if nothing tells whether a single output is a logit or a value;
            if an argument does not fit.
    """
    check_version(directory, version)
    servable = make_servable(model, labels, input_spec, top_k, dtype, weights, activation, formats, max_pixels, upright)
    functions = {name: function.get_concrete_function() for name, function in servable.signatures().items()}
    difference = _difference(servable, model, compare) if servable.is_inexact else None
    options = {
        "top_k": servable.top_k,
        "dtype": dtype,
        "weights": weights,
        "activation": servable.activation,
        "formats": list(servable.formats),
        "max_pixels": max_pixels,
        "upright": servable.upright,
    }
    description = describe(servable, functions, options, difference, license)
    name = pathlib.Path(directory).resolve().name
    warms_up = bool(batch_sizes) and has_protos()
    if batch_sizes and not warms_up:
        warnings.warn(
            "no warm-up records: pip install 'keras-vit-zoo[serving] @ git+<this repository>', or batch_sizes=()",
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
        if warms_up:
            write_warmup(path, name, batch_sizes, image_size=servable.input_spec.size)

    return write_version(directory, write, version)


def _name_methods(path, functions):
    """Gives `classify` the name of the method that TF Serving's Classify API asks for; TensorFlow 2 writes Predict."""
    if "classify" in functions:
        updater = tf.compat.v1.saved_model.signature_def_utils.MethodNameUpdater(str(path))
        updater.replace_method_name("classify", CLASSIFY_METHOD, tags=SERVE_TAG)
        updater.save()
        # That of TensorFlow is of the signatures as they were.
        write_fingerprint(path)


def _variables(functions):
    """What functions read, each once: weights as they are stored; of those of a strategy the copy of one device."""
    return list({id(variable): variable for function in functions for variable in function.variables}.values())


def _difference(servable, model, compare):
    """How far the outputs are from those of the model in float32."""
    spec = servable.input_spec
    pixels = fixed_pixels(spec) if compare is None else np.stack([spec.resize(image) for image in compare])
    reference = flat(model)
    if not is_quantized(reference):
        reference = with_compute_dtype(reference, "float32")
    return measure_difference(servable, reference, pixels)


def predict(path, files):
    """Classifies image files with a SavedModel, without Keras.

    Args:
        path: of a version, or of a folder of versions, whose highest is taken.
        files: paths of images.

    Returns:
        A list with a list of `(class name, score)` for each file, best first; of a regression `(name, value)`.

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
