"""Loss and metrics of segmentation, which leave ignored pixels out."""

import keras
from keras import ops

from keras_vit.validation import check_positive

_CARRY = 2.0**20


@keras.saving.register_keras_serializable(package="keras_vit")
class SegmentationLoss(keras.losses.Loss):
    """Cross-entropy of logits, the mean over all pixels of a batch that are not ignored; 0 without any.

    Args:
        ignore_label: int. The label of ignored pixels. Default 255.
        name, dtype: as for `keras.losses.Loss`.

    Call arguments:
        y_true: int `(batch, height, width)`.
        y_pred: logits `(batch, height, width, classes)`.

    Returns:
        A scalar.
    """

    def __init__(self, ignore_label=255, name="segmentation_loss", dtype=None, reduction="sum_over_batch_size"):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.ignore_label = ignore_label

    def call(self, y_true, y_pred):
        y_true = ops.cast(y_true, "int32")
        counted = ops.not_equal(y_true, self.ignore_label)
        losses = ops.sparse_categorical_crossentropy(ops.where(counted, y_true, 0), y_pred, from_logits=True)
        counted = ops.cast(counted, losses.dtype)
        # Shares of the images in the sum over all pixels, whose mean over the batch is the mean over these pixels.
        shares = ops.sum(losses * counted, axis=(1, 2)) / ops.maximum(ops.sum(counted), 1.0)
        return shares * ops.cast(ops.shape(y_true)[0], losses.dtype)

    def get_config(self):
        return {**super().get_config(), "ignore_label": self.ignore_label}


class _Confusion(keras.metrics.Metric):
    """A confusion matrix of pixels.

    Counts are exact up to 2**44: float32 alone would lose single pixels beyond 2**24, so every count is two numbers.
    They are sums, so those of replicas add up.
    """

    def __init__(self, num_classes, ignore_label=255, name=None, dtype=None):
        super().__init__(name=name, dtype="float32")
        self.num_classes, self.ignore_label = check_positive(num_classes, "num_classes"), ignore_label
        shape = (num_classes, num_classes)
        self._low = self.add_variable(shape, keras.initializers.Zeros(), name="low")
        self._high = self.add_variable(shape, keras.initializers.Zeros(), name="high")

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Adds the pixels of a batch.

        Args:
            y_true: int `(batch, height, width)`.
            y_pred: scores `(batch, height, width, classes)`.
            sample_weight: `(batch,)`, 0 for images that do not count, or `None`.
        """
        size = self.num_classes
        y_true = ops.cast(y_true, "int32")
        counted = ops.not_equal(y_true, self.ignore_label)
        if sample_weight is not None:
            counted = ops.logical_and(counted, ops.reshape(sample_weight, (-1, 1, 1)) > 0)
        cells = ops.where(counted, y_true, 0) * size + ops.cast(ops.argmax(y_pred, axis=-1), "int32")
        # Ignored pixels go to a cell of their own.
        cells = ops.reshape(ops.where(counted, cells, size * size), (-1,))
        counts = ops.segment_sum(ops.ones_like(cells, dtype="float32"), cells, size * size + 1)[:-1]
        low = self._low + ops.reshape(counts, (size, size))
        carry = ops.floor(low / _CARRY)
        self._low.assign(low - carry * _CARRY)
        self._high.assign(self._high + carry)

    def matrix(self):
        """Returns the counts, float32 `(classes, classes)`: rows are true classes, columns predicted ones."""
        return self._high * _CARRY + self._low

    def get_config(self):
        return {"name": self.name, "num_classes": self.num_classes, "ignore_label": self.ignore_label}


@keras.saving.register_keras_serializable(package="keras_vit")
class SegmentationMeanIoU(_Confusion):
    """Mean over the classes of the intersection over union of true and predicted pixels.

    Classes that are neither in the masks nor predicted do not count.

    Args:
        num_classes: int.
        ignore_label: int. The label of ignored pixels. Default 255.
        name, dtype: as for `keras.metrics.Metric`.
    """

    def __init__(self, num_classes, ignore_label=255, name="mean_iou", dtype=None):
        super().__init__(num_classes, ignore_label, name, dtype)

    def result(self):
        matrix = self.matrix()
        hits = ops.diagonal(matrix)
        unions = ops.sum(matrix, axis=0) + ops.sum(matrix, axis=1) - hits
        present = ops.cast(unions > 0, "float32")
        return ops.sum(hits / ops.maximum(unions, 1.0)) / ops.maximum(ops.sum(present), 1.0)


@keras.saving.register_keras_serializable(package="keras_vit")
class PixelAccuracy(_Confusion):
    """Fraction of the pixels that are predicted right. Arguments: as for `SegmentationMeanIoU`."""

    def __init__(self, num_classes, ignore_label=255, name="accuracy", dtype=None):
        super().__init__(num_classes, ignore_label, name, dtype)

    def result(self):
        matrix = self.matrix()
        return ops.sum(ops.diagonal(matrix)) / ops.maximum(ops.sum(matrix), 1.0)


def segmentation_objective(num_classes, segmentation):
    """Returns the `loss` and `metrics` that a segmentation model is compiled with.

    Args:
        num_classes: int.
        segmentation: `SegmentationConfig`.
    """
    ignore = segmentation.ignore_label
    metrics = [SegmentationMeanIoU(num_classes, ignore), PixelAccuracy(num_classes, ignore)]
    return {"loss": SegmentationLoss(ignore), "metrics": metrics}
