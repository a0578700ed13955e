"""What the commands ask of a model and its answers."""

import concurrent.futures

import keras
import numpy as np

from keras_vit.applications import decode_predictions
from keras_vit.metadata import has_classifier, metadata, output_activation


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


def classify_files(model, files, top):
    """Classifies image files in one batch.

    Args:
        model: a classifier.
        files: paths.
        top: int. How many classes.

    Returns:
        A list with, for each file, a list of `(class name, score)`, best first, or a str: why there is none.
    """
    prepared = load_files(metadata(model).input_spec.load, files)
    images = [image for image in prepared if not isinstance(image, str)]
    answers = iter(best_classes(model, model.predict_on_batch(np.stack(images)), top) if images else [])
    return [image if isinstance(image, str) else next(answers) for image in prepared]


def load_files(load, files):
    """What `load` makes of each file, or a str: why it cannot be read. Pillow decodes in threads."""

    def attempt(file):
        try:
            return load(file)
        except (ValueError, OSError) as error:
            return _reason(error)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        return list(pool.map(attempt, files))


def _reason(error):
    """The cause of an error about a file, without the rule and the name, which a list of files need not repeat."""
    text = str(error.__cause__ or error)
    return " ".join(text.split())
