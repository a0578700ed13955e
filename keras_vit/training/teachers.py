"""A teacher beside its student: the same images in its own size and normalisation."""

import keras
import numpy as np

from keras_vit.metadata import has_classifier, metadata, output_activation
from keras_vit.training.distillation import DistillationLoss, Distiller


def make_distiller(student, teacher, config):
    """The model that trains a recipe's student.

    Args:
        student: a model of this library.
        teacher: any model from images to logits of the same classes; one of this library, or one that takes the
            student's images as they are.
        config: `DistillationConfig`.

    Returns:
        A `Distiller`. The soft loss of a student without a distillation token is summed over the classes, as in Hinton
        et al. (arXiv:1503.02531); with one it is their mean, as in DeiT.

    Raises:
        ValueError: as `teacher_for`.
    """
    own_head = any(layer.name == "head_dist" for layer in student.layers)
    loss = DistillationLoss(config.kind, config.temperature, sum_classes=not own_head)
    return Distiller(student, teacher_for(student, teacher), loss, config.alpha)


def teacher_for(student, teacher):
    """A model from the images of the student to the logits of the teacher.

    Augmented and mixed images are shared, so they are normalised and resized for the teacher inside the graph.

    Args:
        student: a model of this library.
        teacher: a `keras.Model`.

    Returns:
        `teacher` itself where it takes the student's images as they are, else a `keras.Model` around it.

    Raises:
        ValueError: if its classes or channels are others, or it does not end in logits.
    """
    if not _is_ours(teacher):
        _check_classes(teacher.output_shape[-1], metadata(student).config.num_classes)
        return teacher
    ours, theirs = metadata(student), metadata(teacher)
    if not has_classifier(teacher) or output_activation(teacher) is not None:
        raise ValueError(f"a teacher must end in logits. Received: {teacher.name!r}")
    _check_classes(theirs.config.num_classes, ours.config.num_classes)
    if None not in (ours.labels, theirs.labels) and ours.labels != theirs.labels:
        raise ValueError(
            "a teacher must have the student's classes in the same order. "
            f"Received: {theirs.labels[:3]}... for {ours.labels[:3]}..."
        )
    return _with_own_preprocessing(teacher, ours.input_spec, theirs.input_spec)


def _is_ours(model):
    return any(layer.name == "metadata" for layer in model.layers)


def _check_classes(theirs, ours):
    if theirs != ours:
        raise ValueError(f"a teacher must have the student's classes. Received: {theirs} classes for {ours}")


def _with_own_preprocessing(teacher, ours, theirs):
    if theirs.num_channels != ours.num_channels:
        raise ValueError(
            "a teacher must take the channels of the student's images. "
            f"Received: {theirs.num_channels} channels for {ours.num_channels}"
        )
    if (theirs.size, theirs.mean, theirs.std) == (ours.size, ours.mean, ours.std):
        return teacher
    images = keras.Input((*ours.size, ours.num_channels), name="images")
    # From (pixel - our mean) / our std to (pixel - their mean) / their std.
    mean, std, their_mean, their_std = (np.array(v) for v in (ours.mean, ours.std, theirs.mean, theirs.std))
    scale, offset = std / their_std, (mean - their_mean) / their_std
    x = keras.layers.Rescaling(scale.tolist(), offset.tolist(), dtype="float32", name="normalize")(images)
    if theirs.size != ours.size:
        interpolation = {"lanczos": "lanczos3"}.get(theirs.interpolation, theirs.interpolation)
        x = keras.layers.Resizing(
            *theirs.size, interpolation=interpolation, antialias=True, dtype="float32", name="resize"
        )(x)
    return keras.Model(images, teacher(x), name=f"{teacher.name}_for_student")
