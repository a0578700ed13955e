"""Classification of image files with a Keras model."""

import dataclasses
import functools

import keras

from keras_vit.calibration import check_activation
from keras_vit.data import read_batches
from keras_vit.export.saved_models import PREDICT_BATCH
from keras_vit.image_ops.decode import PREDICTION_LIMITS
from keras_vit.metadata import has_classifier, metadata, output
from keras_vit.outputs import class_names, score_activation
from keras_vit.zoo.applications import decode_predictions


def check_head(model):
    """Raises a `ValueError` unless a model ends in scores of classes, or in values."""
    if not has_classifier(model):
        raise ValueError(
            "the model has no classifier. "
            f"Received: {model.name!r} with num_classes={metadata(model).config.num_classes}"
        )


def best_classes(model, outputs, top, activation=None):
    """Finds the best classes of a batch of images, or the values of a regression.

    Args:
        model: one with a head.
        outputs: array `(batch, num_classes)`, what it returned.
        top: int. Number of classes.
        activation: as for `score_activation`.

    Returns:
        For every image a list of `(class name, score)`, best first; of a regression of `(name, value)`, all of them.
    """
    found, content = output(model), metadata(model)
    labels, calibration = content.labels, content.calibration
    kind = score_activation(model, found, labels, check_activation(calibration, activation))
    outputs = keras.ops.convert_to_numpy(outputs)
    if kind == "linear":
        names = labels or [str(number) for number in range(found.units)]
        return [[(name, float(value)) for name, value in zip(names, row, strict=True)] for row in outputs]
    apply = {None: keras.ops.convert_to_tensor, "softmax": keras.ops.softmax, "sigmoid": keras.ops.sigmoid}[kind]
    if calibration is not None:
        apply = functools.partial(calibration.probabilities, from_logits=kind is not None)
    scores = keras.ops.convert_to_numpy(apply(outputs))
    rows = decode_predictions(scores, top=top, labels=class_names(labels, found.units))
    return [[(name, score) for _, name, score in row] for row in rows]


def prediction_limits(max_pixels=None):
    """Returns the `Limits` of images to classify: those of a served model, or with another `max_pixels`."""
    return PREDICTION_LIMITS if max_pixels is None else dataclasses.replace(PREDICTION_LIMITS, max_pixels=max_pixels)


def check_no_limit(max_pixels):
    """Raises a `ValueError` if a limit is given for a SavedModel, whose limit is set at export."""
    if max_pixels is not None:
        raise ValueError(
            "the --max-pixels of a SavedModel is set when it is exported; export it again to change it. "
            f"Received: --max-pixels {max_pixels}"
        )


def classify_files(model, files, top, activation=None, batch_size=PREDICT_BATCH, max_pixels=None):
    """Classifies image files with the preprocessing of `evaluate`.

    Args:
        model: one with a head.
        files: paths.
        top: int. Number of classes.
        activation: as for `score_activation`.
        batch_size: int.
        max_pixels: int or `None`: the limit of a served model. Larger images are rejected.

    Yields:
        For each batch a list with, for each of its files, a list of `(class name, score)`, best first, or a str: why
        there is none.
    """
    spec = metadata(model).input_spec
    for images, errors in read_batches(files, spec, batch_size, prediction_limits(max_pixels)):
        outputs = model.predict_on_batch(images) if len(images) else None
        answers = iter(() if outputs is None else best_classes(model, outputs, top, activation))
        yield [next(answers) if error is None else error.reason for error in errors]
