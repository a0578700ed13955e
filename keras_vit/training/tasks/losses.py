"""What a recipe minimises."""

import keras
from keras import ops

from keras_vit.validation import check_rate


@keras.saving.register_keras_serializable(package="keras_vit")
class BinaryLoss(keras.losses.Loss):
    """Every class is a question of its own: sigmoid cross-entropy of logits.

    Args:
        positive: bool. Whether every class with a target above 0 becomes a whole one, as in DeiT-III and in timm with
            a threshold of 0: an image mixed of two shows both. Default False: targets as they are.
        label_smoothing: float in [0, 1). Behind that, targets become `(1 - smoothing) * target + smoothing / classes`,
            as in timm. Default 0.
        sum_classes: bool. Whether the classes of an image are summed up, as in big_vision, or averaged, as in PyTorch
            and timm. Default False.
        reduction, name, dtype: as for `keras.losses.Loss`.

    Call arguments:
        y_true: `(batch, classes)`, from 0 to 1; rows need not add up to 1.
        y_pred: logits `(batch, classes)`.

    Returns:
        A scalar, the mean over the batch.

    Sources: timm `loss/binary_cross_entropy.py`; facebookresearch/deit `engine.py`, `bce_loss`; google-research/
    big_vision `utils.py`, `sigmoid_xent`.
    """

    def __init__(
        self,
        positive=False,
        label_smoothing=0.0,
        sum_classes=False,
        reduction="sum_over_batch_size",
        name="binary_loss",
        dtype=None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.positive, self.sum_classes = bool(positive), bool(sum_classes)
        self.label_smoothing = check_rate(label_smoothing, "label_smoothing")

    def call(self, y_true, y_pred):
        targets = ops.cast(y_true > 0, y_pred.dtype) if self.positive else ops.cast(y_true, y_pred.dtype)
        if self.label_smoothing:
            targets = (1 - self.label_smoothing) * targets + self.label_smoothing / targets.shape[-1]
        each = ops.binary_crossentropy(targets, y_pred, from_logits=True)
        return ops.sum(each, axis=-1) if self.sum_classes else ops.mean(each, axis=-1)

    def get_config(self):
        own = {name: getattr(self, name) for name in ("positive", "label_smoothing", "sum_classes")}
        return {**super().get_config(), **own}


def _names_a_label(y_true, y_pred):
    likeliest = ops.argmax(y_pred, axis=-1)
    return ops.take_along_axis(y_true, likeliest[:, None], axis=-1)[:, 0] > 0


def make_accuracy(multi_label=False):
    """The metric that a run is judged by, named `accuracy`.

    Args:
        multi_label: bool. Whether images have several labels or none: then, as in big_vision, the part of the images
            whose likeliest class is one of their labels. Default False: of images with one.

    Returns:
        A `keras.metrics.Metric` of rows of targets and logits.
    """
    if multi_label:
        return keras.metrics.MeanMetricWrapper(_names_a_label, name="accuracy")
    return keras.metrics.CategoricalAccuracy(name="accuracy")


def make_loss(name, label_smoothing=0.0):
    """The loss of a recipe.

    Args:
        name: `softmax` (cross-entropy), `sigmoid` (big_vision's for ImageNet-21k: summed over the classes) or `binary`
            (DeiT-III's: averaged over the classes, and what a mixed image shows counts whole).
        label_smoothing: float in [0, 1). Default 0.

    Returns:
        A `keras.losses.Loss` of rows of targets and logits.
    """
    if name == "softmax":
        return keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=label_smoothing)
    return BinaryLoss(name == "binary", label_smoothing, sum_classes=name == "sigmoid")
