"""Training with a teacher, as DeiT does it: one head learns from the labels, the other from the teacher.

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
    """How far a student is from its teacher: DeiT's distillation term.

    `hard` is the cross-entropy with the class that the teacher finds likeliest. `soft` is the Kullback-Leibler
    divergence of the softmaxes of `logits / temperature`, times the temperature squared, divided by the number of
    classes: DeiT divides by all elements, not by the batch alone. Hinton et al. (arXiv:1503.02531) sum them up.

    Args:
        kind: `hard` or `soft`. Default `hard`, which the published models were trained with.
        temperature: float, positive. Only of `soft`. Default 1.
        sum_classes: bool. Whether `soft` is summed over the classes instead. Default False.
        reduction, name, dtype: as for `keras.losses.Loss`.

    Call arguments:
        y_true: the teacher's logits, `(batch, classes)`.
        y_pred: the student's logits, `(batch, classes)`.

    Returns:
        A scalar, the mean over the batch.

    Raises:
        ValueError: on another kind or temperature, or where teacher and student have other classes.

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
                "teacher and student must give logits of the same classes. "
                f"Received: {tuple(y_true.shape)} from the teacher, {tuple(y_pred.shape)} from the student"
            )
        if self.kind == "hard":
            return ops.sparse_categorical_crossentropy(ops.argmax(y_true, axis=-1), y_pred, from_logits=True)
        teacher, student = (ops.log_softmax(logits / self.temperature, axis=-1) for logits in (y_true, y_pred))
        each = ops.exp(teacher) * (teacher - student)
        return self.temperature**2 * (ops.sum if self.sum_classes else ops.mean)(each, axis=-1)

    def get_config(self):
        own = {name: getattr(self, name) for name in ("kind", "temperature", "sum_classes")}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="keras_vit")
class Distiller(keras.Model):
    """A model that trains another one with a teacher.

    `compile` and `fit` as ever: the compiled loss is that of the first head with the labels, compiled metrics are those
    of the mean of both heads, which is what the student gives on its own. Afterwards take `student`; its weights are
    those that were trained. A student without a distillation token has one head, which learns from labels and teacher.

    Not `keras.distillation.Distiller`: that one refuses a student with more outputs than its
    teacher, and where it reads a named layer it runs the student twice, with other dropout masks.

    Args:
        student: a model of this library.
        teacher: any model from the same images to logits. It is frozen, and runs as in inference.
        distillation_loss: `keras.losses.Loss` of the teacher's logits and those of the student's last head. Default
            `DistillationLoss()`.
        alpha: float in [0, 1]. The loss is `(1 - alpha)` of the compiled one, with what layers add to it, and `alpha`
            of `distillation_loss`. Default 0.5.
        name: str.

    Call arguments:
        images: tensor `(batch, height, width, channels)`.

    Returns:
        A dict of the logits of the heads, `head` and, where there is one, `head_dist`, each `(batch, classes)`.

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
        # A layer that is frozen already, as those of a loaded teacher are, does not pass it on (Keras on TensorFlow).
        for weight in teacher.weights:
            weight.trainable = False

    @property
    def trained_model(self):
        """The student, which a `fit` is for."""
        return self.student

    @property
    def changing_variables(self):
        """All that training changes but the optimizer's: those of the student."""
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
        parts = {"student": self.student, "teacher": self.teacher, "distillation_loss": self.distillation_loss}
        config = {name: keras.saving.serialize_keras_object(part) for name, part in parts.items()}
        return {**config, "alpha": self.alpha, "name": self.name}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        parts = ("student", "teacher", "distillation_loss")
        made = {name: keras.saving.deserialize_keras_object(config[name], custom_objects) for name in parts}
        return cls(**{**config, **made})


def trained_model(model):
    """The model that a `fit` is for: a `Distiller`'s student, a `MaskedAutoencoder`'s encoder, any other itself."""
    return getattr(model, "trained_model", model)
