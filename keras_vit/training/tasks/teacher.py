"""Adapts a distillation teacher to the size and normalization of its student's images."""

import keras
import numpy as np

from keras_vit.metadata import has_classifier, metadata, output_activation
from keras_vit.preprocessing import InputSpec
from keras_vit.training.tasks.distillation import DistillationLoss, Distiller


def make_distiller(student, teacher, config):
    """Builds the `Distiller` of a recipe.

    Args:
        student: a model of this library.
        teacher: any model from images to logits of the same classes.
        config: `DistillationConfig`.

    Returns:
        A `Distiller`. The soft loss is averaged over the classes for a student with a distillation token, as in DeiT,
        else summed, as in Hinton et al. (arXiv:1503.02531).

    Raises:
        ValueError: as `adapt_teacher`.
    """
    has_distillation_head = any(layer.name == "head_dist" for layer in student.layers)
    loss = DistillationLoss(config.kind, config.temperature, sum_classes=not has_distillation_head)
    spec = _input_spec(teacher, config, metadata(student).input_spec)
    return Distiller(student, adapt_teacher(student, teacher, spec), loss, config.alpha)


def adapt_teacher(student, teacher, input_spec=None):
    """Builds a model from the student's images to the teacher's logits.

    Student and teacher get the same augmented and mixed images, so these are normalized and resized for the teacher
    inside the model.

    Args:
        student: a model of this library.
        teacher: a `keras.Model`.
        input_spec: `InputSpec` of a teacher from outside this library: its size, mean and std. `None` if it takes the
            student's images unchanged.

    Returns:
        `teacher` itself if it takes the student's images unchanged, else a `keras.Model` around it.

    Raises:
        ValueError: if classes or channels differ, or the teacher does not output logits.
    """
    student_metadata = metadata(student)
    if not _is_keras_vit_model(teacher):
        activation = getattr(teacher.layers[-1], "activation", None)
        name = getattr(teacher.layers[-1], "name", "").lower()
        if activation in (keras.activations.softmax, keras.activations.sigmoid) or "softmax" in name:
            raise ValueError(f"a teacher must output logits. Received: {teacher.name!r}, which outputs probabilities")
        _check_classes(teacher.output_shape[-1], student_metadata.config.num_classes)
        return (
            teacher if input_spec is None else _with_own_preprocessing(teacher, student_metadata.input_spec, input_spec)
        )
    teacher_metadata = metadata(teacher)
    if not has_classifier(teacher) or output_activation(teacher) is not None:
        raise ValueError(f"a teacher must output logits. Received: {teacher.name!r}")
    _check_classes(teacher_metadata.config.num_classes, student_metadata.config.num_classes)
    student_labels, teacher_labels = student_metadata.labels, teacher_metadata.labels
    if None not in (student_labels, teacher_labels) and student_labels != teacher_labels:
        raise ValueError(
            "teacher and student must have the same classes in the same order. "
            f"Received: {teacher_labels[:3]}... for the teacher, {student_labels[:3]}... for the student"
        )
    return _with_own_preprocessing(teacher, student_metadata.input_spec, teacher_metadata.input_spec)


def _input_spec(teacher, config, student_spec):
    """Reads the `InputSpec` of a teacher from outside this library from its recipe; `None` for others."""
    if _is_keras_vit_model(teacher):
        return None
    if config.teacher_mean is None or config.teacher_std is None:
        raise ValueError(
            "a teacher from outside this library needs distillation.teacher_mean and teacher_std, for pixels from 0 to "
            f"1 (set 0 and 1 / 255 if it takes pixels from 0 to 255). Received: {teacher.name!r} without them"
        )
    size = [
        side or student_side for side, student_side in zip(teacher.input_shape[1:3], student_spec.size, strict=True)
    ]
    mean, std = (
        tuple(np.broadcast_to(value, student_spec.num_channels).tolist())
        for value in (config.teacher_mean, config.teacher_std)
    )
    return InputSpec(size=tuple(size), mean=mean, std=std)


def _is_keras_vit_model(model):
    return any(layer.name == "metadata" for layer in model.layers)


def _check_classes(teacher_classes, student_classes):
    if teacher_classes != student_classes:
        raise ValueError(
            "teacher and student must have the same number of classes. "
            f"Received: {teacher_classes} and {student_classes}"
        )


def _with_own_preprocessing(teacher, student_spec, teacher_spec):
    if teacher_spec.num_channels != student_spec.num_channels:
        raise ValueError(
            "teacher and student must have the same number of channels. "
            f"Received: {teacher_spec.num_channels} and {student_spec.num_channels}"
        )
    if (teacher_spec.size, teacher_spec.mean, teacher_spec.std) == (
        student_spec.size,
        student_spec.mean,
        student_spec.std,
    ):
        return teacher
    images = keras.Input((*student_spec.size, student_spec.num_channels), name="images")
    # From (pixel - student mean) / student std to (pixel - teacher mean) / teacher std.
    mean, std, teacher_mean, teacher_std = (
        np.array(v) for v in (student_spec.mean, student_spec.std, teacher_spec.mean, teacher_spec.std)
    )
    scale, offset = std / teacher_std, (mean - teacher_mean) / teacher_std
    x = keras.layers.Rescaling(scale.tolist(), offset.tolist(), dtype="float32", name="normalize")(images)
    if teacher_spec.size != student_spec.size:
        interpolation = {"lanczos": "lanczos3"}.get(teacher_spec.interpolation, teacher_spec.interpolation)
        x = keras.layers.Resizing(
            *teacher_spec.size, interpolation=interpolation, antialias=True, dtype="float32", name="resize"
        )(x)
    return keras.Model(images, teacher(x), name=f"{teacher.name}_for_student")
