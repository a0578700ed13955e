"""What commands and recipes take for a model: one answer for all of them."""

import pathlib

import keras

from keras_vit.applications import decode_predictions
from keras_vit.export.versions import version_folders
from keras_vit.metadata import has_classifier, metadata, output_activation
from keras_vit.training.fine_tune import model_file
from keras_vit.validation import nearest
from keras_vit.weights import from_checkpoint
from keras_vit.weights.catalog import catalog
from keras_vit.weights.downloads import WEIGHTS_FILE, is_remote
from keras_vit.weights.files import SUFFIXES
from keras_vit.zoo import create_model


def load_model(name, **overrides):
    """The model that a command was given.

    Args:
        name: str or path: a `.keras` file, the directory of a run, a checkpoint, a folder with `model.safetensors`,
            what `keras_vit.weights.download` takes, or a name of the catalog. What exists goes before names.
        **overrides: fields of the config, where the model is built anew.

    Returns:
        A `keras.Model`.

    Raises:
        ValueError: if it is none of them, with the nearest name; on `overrides` for a `.keras` file.
    """
    path = pathlib.Path(name)
    if path.is_dir() and (path / WEIGHTS_FILE).is_file():
        path = path / WEIGHTS_FILE
    if file := model_file(path):
        if overrides:
            raise ValueError(
                f"a .keras file has its own config; nothing of it can be changed. Received: {str(file)!r}, {overrides}"
            )
        return keras.models.load_model(file)
    if is_remote(name):
        return from_checkpoint(name, **overrides)
    if path.suffix in SUFFIXES and path.is_file():
        return from_checkpoint(path, **overrides)
    if str(name) in catalog():
        return create_model(str(name), **overrides)
    what = ", a SavedModel" if is_saved_model(path) else ""
    raise ValueError(
        f"a model must be an existing .keras file, the directory of a run, a checkpoint "
        f"({', '.join(SUFFIXES)}), a folder with {WEIGHTS_FILE}, "
        "hub:organisation/repository, a name of `keras_vit list --pretrained` or, to predict, a SavedModel"
        f"{nearest(name, catalog())} Received: {str(name)!r}{what}"
    )


def is_saved_model(path):
    """Whether a path is the folder of a SavedModel, or of its versions."""
    path = pathlib.Path(path)
    return any((folder / "saved_model.pb").is_file() for folder in (path, *version_folders(path).values()))


def check_classifier(model):
    """Raises a `ValueError` unless a model ends in scores of classes."""
    if not has_classifier(model):
        raise ValueError(
            "the model has no classifier. "
            f"Received: {model.name!r} with num_classes={metadata(model).config.num_classes}"
        )


def best_classes(model, outputs, top):
    """The best classes of a batch of images.

    Args:
        model: a classifier.
        outputs: array `(batch, num_classes)`, what it returned.
        top: int. How many classes.

    Returns:
        For every image a list of `(class name, score)`, best first.
    """
    scores = outputs if output_activation(model) else keras.ops.convert_to_numpy(keras.ops.softmax(outputs))
    return [[(name, score) for _, name, score in row] for row in decode_predictions(scores, top=top, model=model)]
