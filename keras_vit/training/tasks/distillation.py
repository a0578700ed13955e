"""Knowledge distillation as in DeiT: one head learns from the labels, the other from a teacher.

Source: Touvron et al., "Training data-efficient image transformers & distillation through attention"
(arXiv:2012.12877), section 4; facebookresearch/deit `losses.py`.
"""

import keras
from keras import ops

from keras_vit.config.recipe import DISTILLATION_KINDS
from keras_vit.models import features
from keras_vit.validation import check_choice, is_number


@keras.saving.register_keras_serializable(package="keras_vit")
class DistillationLoss(keras.losses.Loss):
    """DeiT's distillation loss between the logits of a teacher and a student.

    `hard` is the cross-entropy with the teacher's top-1 class. `soft` is the Kullback-Leibler divergence of the
    softmaxes of `logits / temperature`, times the temperature squared, averaged over the classes as in DeiT. Hinton et
    al. (arXiv:1503.02531) sum over the classes.

    Args:
        kind: `hard` or `soft` (DeiT `distillation_type`). Default `hard`, as for the published models.
        temperature: float, positive, for `soft` only (DeiT `distillation_tau`). Default 1.
        sum_classes: bool. Sums `soft` over the classes instead of averaging. Default False.
        reduction, name, dtype: as for `keras.losses.Loss`.

    Call arguments:
        y_true: the teacher's logits, `(batch, classes)`.
        y_pred: the student's logits, `(batch, classes)`.

    Returns:
        A scalar, the mean over the batch.

    Raises:
        ValueError: on an unknown kind, an invalid temperature, or if teacher and student differ in their classes.

    Source: facebookresearch/deit `losses.py`, `DistillationLoss`.
    """

    def __init__(
        self,
        kind="hard",
        temperature=1.0,
        sum_classes=False,
        reduction="sum_over_batch_size",
        name="distillation_loss",
        dtype=None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        if not is_number(temperature) or temperature <= 0:
            raise ValueError(f"temperature must be positive. Received: temperature={temperature!r}")
        self.kind, self.temperature = check_choice(kind, DISTILLATION_KINDS, "kind"), float(temperature)
        self.sum_classes = bool(sum_classes)

    def call(self, y_true, y_pred):
        if y_true.shape[1:] != y_pred.shape[1:]:
            raise ValueError(
                "teacher and student must have the same number of classes. "
                f"Received: {tuple(y_true.shape)} from the teacher, {tuple(y_pred.shape)} from the student"
            )
        if self.kind == "hard":
            return ops.sparse_categorical_crossentropy(ops.argmax(y_true, axis=-1), y_pred, from_logits=True)
        teacher, student = (ops.log_softmax(logits / self.temperature, axis=-1) for logits in (y_true, y_pred))
        divergence = ops.exp(teacher) * (teacher - student)
        return self.temperature**2 * (ops.sum if self.sum_classes else ops.mean)(divergence, axis=-1)

    def get_config(self):
        names = ("kind", "temperature", "sum_classes")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@keras.saving.register_keras_serializable(package="keras_vit")
class Distiller(keras.Model):
    """Trains a student with labels and a teacher.

    Use `compile` and `fit` as usual. The compiled loss compares the first head with the labels; compiled metrics use
    the mean of both heads, which is the student's own output. After training use `student`, which shares its weights. A
    student without a distillation token has one head, which learns from both the labels and the teacher.

    `keras.distillation.Distiller` does not fit here: it rejects a student with more outputs than its teacher, and to
    read a named layer it runs the student twice, with different dropout masks.

    Args:
        student: a model of this library.
        teacher: any model from the same images to logits. It is frozen and runs in inference mode.
        distillation_loss: `keras.losses.Loss` of the teacher's logits and the logits of the student's last head.
            Default `DistillationLoss()`.
        alpha: float in [0, 1] (DeiT `distillation_alpha`). The loss is `(1 - alpha)` times the compiled loss, losses
            added by layers included, plus `alpha` times `distillation_loss`. Default 0.5.
        name: str.

    Call arguments:
        images: tensor `(batch, height, width, channels)`.

    Returns:
        A dict of logits `(batch, classes)`: `head` and, if the student has one, `head_dist`.

    Raises:
        ValueError: if the student has no head, or `alpha` is out of range.

    Source: facebookresearch/deit `losses.py`, `DistillationLoss`, and `engine.py`.
    """

    def __init__(self, student, teacher, distillation_loss=None, alpha=0.5, name="distiller"):
        super().__init__(name=name)
        if not is_number(alpha) or not 0 <= alpha <= 1:
            raise ValueError(f"alpha must be in [0, 1]. Received: alpha={alpha!r}")
        self.student, self.teacher = student, teacher
        self.distillation_loss = distillation_loss or DistillationLoss()
        self.alpha = float(alpha)
        names = {layer.name for layer in student.layers}
        self._heads = features(student, ["head", "head_dist"] if "head_dist" in names else ["head"])
        teacher.trainable = False
        # Keras on TensorFlow does not pass `trainable` on to layers that are frozen already, as in a loaded teacher.
        for weight in teacher.weights:
            weight.trainable = False

    @property
    def trained_model(self):
        """The student."""
        return self.student

    @property
    def changing_variables(self):
        """The variables that training changes, without those of the optimizer: the student's."""
        return self.student.variables

    def call(self, images, training=None):
        return self._heads(images, training=training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = super().compute_loss(x, y, y_pred["head"], sample_weight, training)
        logits = ops.stop_gradient(self.teacher(x, training=False))
        distance = self.distillation_loss(logits, y_pred.get("head_dist", y_pred["head"]), sample_weight)
        return (1 - self.alpha) * loss + self.alpha * distance

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        mean = sum(y_pred.values()) / len(y_pred)
        return super().compute_metrics(x, y, mean, sample_weight)

    def get_config(self):
        objects = {"student": self.student, "teacher": self.teacher, "distillation_loss": self.distillation_loss}
        config = {name: keras.saving.serialize_keras_object(value) for name, value in objects.items()}
        return {**config, "alpha": self.alpha, "name": self.name}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        names = ("student", "teacher", "distillation_loss")
        objects = {name: keras.saving.deserialize_keras_object(config[name], custom_objects) for name in names}
        return cls(**{**config, **objects})


def trained_model(model):
    """Returns the model to save: the student of a `Distiller`, the encoder of a `MaskedAutoencoder`, or `model`."""
    return getattr(model, "trained_model", model)
