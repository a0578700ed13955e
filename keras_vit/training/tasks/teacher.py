"""A teacher beside its student: the same images in its own size and normalisation."""

import keras
import numpy as np

from keras_vit.metadata import has_classifier, metadata, output_activation
from keras_vit.preprocessing import InputSpec
from keras_vit.training.tasks.distillation import DistillationLoss, Distiller


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
    spec = _input_spec(teacher, config, metadata(student).input_spec)
    return Distiller(student, teacher_for(student, teacher, spec), loss, config.alpha)


def teacher_for(student, teacher, input_spec=None):
    """A model from the images of the student to the logits of the teacher.

    Augmented and mixed images are shared, so they are normalised and resized for the teacher inside the graph.

    Args:
        student: a model of this library.
        teacher: a `keras.Model`.
        input_spec: `InputSpec` of a teacher that is not of this library: its size, mean and std. `None`: it takes
            the student's images as they are.

    Returns:
        `teacher` itself where it takes the student's images as they are, else a `keras.Model` around it.

    Raises:
        ValueError: if its classes or channels are others, or it does not end in logits.
    """
    ours = metadata(student)
    if not _is_ours(teacher):
        activation = getattr(teacher.layers[-1], "activation", None)
        name = getattr(teacher.layers[-1], "name", "").lower()
        if activation in (keras.activations.softmax, keras.activations.sigmoid) or "softmax" in name:
            raise ValueError(f"a teacher must end in logits. Received: {teacher.name!r}, which ends in probabilities")
        _check_classes(teacher.output_shape[-1], ours.config.num_classes)
        return teacher if input_spec is None else _with_own_preprocessing(teacher, ours.input_spec, input_spec)
    theirs = metadata(teacher)
    if not has_classifier(teacher) or output_activation(teacher) is not None:
        raise ValueError(f"a teacher must end in logits. Received: {teacher.name!r}")
    _check_classes(theirs.config.num_classes, ours.config.num_classes)
    if None not in (ours.labels, theirs.labels) and ours.labels != theirs.labels:
        raise ValueError(
            "a teacher must have the student's classes in the same order. "
            f"Received: {theirs.labels[:3]}... for {ours.labels[:3]}..."
        )
    return _with_own_preprocessing(teacher, ours.input_spec, theirs.input_spec)


def _input_spec(teacher, config, ours):
    """What a recipe says of the images of a teacher that is not of this library."""
    if _is_ours(teacher):
        return None
    if config.teacher_mean is None or config.teacher_std is None:
        raise ValueError(
            "a teacher that is not of this library needs distillation.teacher_mean and teacher_std, of pixels from 0 "
            f"to 1 (0 and 1 / 255 where it takes pixels from 0 to 255). Received: {teacher.name!r} without them"
        )
    size = [side or own for side, own in zip(teacher.input_shape[1:3], ours.size, strict=True)]
    mean, std = (
        tuple(np.broadcast_to(value, ours.num_channels).tolist()) for value in (config.teacher_mean, config.teacher_std)
    )
    return InputSpec(size=tuple(size), mean=mean, std=std)


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
