"""What the commands ask of a model and its answers."""

import keras

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
