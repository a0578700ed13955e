"""Losses and the accuracy metric of a recipe."""

import keras
from keras import ops

from keras_vit.validation import check_rate


# The registered name is that of version 0.1, which saved models hold.
@keras.saving.register_keras_serializable(package="keras_vit", name="BinaryLoss")
class SigmoidCrossEntropy(keras.losses.Loss):
    """Sigmoid cross-entropy of logits over independent classes.

    Args:
        positive: bool. Sets every target above 0 to 1 (timm `bce_target_thresh=0`), as in DeiT-III, so that both
            classes of a mixed image count fully. Default False.
        label_smoothing: float in [0, 1). Targets become `(1 - smoothing) * target + smoothing / classes` after that, as
            in timm. Default 0.
        sum_classes: bool. Sums over the classes, as in big_vision, instead of averaging, as in PyTorch and timm.
            Default False.
        reduction, name, dtype: as for `keras.losses.Loss`.

    Call arguments:
        y_true: `(batch, classes)`, from 0 to 1; rows need not sum to 1.
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
        losses = ops.binary_crossentropy(targets, y_pred, from_logits=True)
        return ops.sum(losses, axis=-1) if self.sum_classes else ops.mean(losses, axis=-1)

    def get_config(self):
        names = ("positive", "label_smoothing", "sum_classes")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def _is_top1_in_labels(y_true, y_pred):
    top1 = ops.argmax(y_pred, axis=-1)
    return ops.take_along_axis(y_true, top1[:, None], axis=-1)[:, 0] > 0


def make_accuracy(multi_label=False):
    """Creates the metric `accuracy` of a recipe.

    Args:
        multi_label: bool. For images with several labels or none: the fraction of images whose top-1 class is one of
            their labels, as in big_vision. Default False, one label per image.

    Returns:
        A `keras.metrics.Metric` of targets `(batch, classes)` and logits.
    """
    if multi_label:
        return keras.metrics.MeanMetricWrapper(_is_top1_in_labels, name="accuracy")
    return keras.metrics.CategoricalAccuracy(name="accuracy")


def make_loss(name, label_smoothing=0.0):
    """Creates the loss of a recipe.

    Args:
        name: `softmax` (cross-entropy), `sigmoid` (big_vision's for ImageNet-21k: sigmoid cross-entropy summed over the
            classes) or `binary` (DeiT-III's: averaged over the classes, with targets above 0 set to 1).
        label_smoothing: float in [0, 1). Default 0.

    Returns:
        A `keras.losses.Loss` of targets `(batch, classes)` and logits.
    """
    if name == "softmax":
        return keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=label_smoothing)
    return SigmoidCrossEntropy(name == "binary", label_smoothing, sum_classes=name == "sigmoid")
