"""Loss and metrics of segmentation, held to written-out formulas."""

import keras
import numpy as np
import pytest

from keras_vit.training.tasks.segmentation import PixelAccuracy, SegmentationLoss, SegmentationMeanIoU

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(size=(3, 4, 5, 3)).astype("float32")
MASKS = RANDOM.choice([0, 1, 2, 255], (3, 4, 5)).astype("int32")


def test_the_loss_is_the_mean_over_pixels_that_count():
    counted = MASKS != 255
    chances = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
    expected = -np.log(np.take_along_axis(chances[counted], MASKS[counted][:, None], -1)).mean()
    assert float(SegmentationLoss()(MASKS, LOGITS)) == pytest.approx(expected, rel=1e-5)
    assert float(SegmentationLoss()(np.full_like(MASKS, 255), LOGITS)) == 0
    other = np.where(counted[..., None], LOGITS, 50 * LOGITS)
    assert float(SegmentationLoss()(MASKS, other)) == pytest.approx(expected, rel=1e-5)


def expected_iou(masks, predicted, classes):
    counted = masks != 255
    found = []
    for label in range(classes):
        true, guess = (masks == label) & counted, (predicted == label) & counted
        if (true | guess).any():
            found.append((true & guess).sum() / (true | guess).sum())
    return np.mean(found)


def test_the_mean_iou_of_batches_is_that_of_all_pixels():
    metric, accuracy = SegmentationMeanIoU(3), PixelAccuracy(3)
    for masks, logits in zip(np.split(MASKS, 3), np.split(LOGITS, 3), strict=True):
        metric.update_state(masks, logits)
        accuracy.update_state(masks, logits)
    predicted, counted = LOGITS.argmax(-1), MASKS != 255
    assert float(metric.result()) == pytest.approx(expected_iou(MASKS, predicted, 3), rel=1e-6)
    assert float(accuracy.result()) == pytest.approx((predicted == MASKS)[counted].mean(), rel=1e-6)
    metric.reset_state()
    assert float(metric.result()) == 0


def test_classes_that_do_not_occur_do_not_count():
    metric = SegmentationMeanIoU(5)
    logits = np.zeros((1, 2, 2, 5), "float32")
    logits[..., 1] = 1
    metric.update_state(np.array([[[1, 1], [0, 255]]]), logits)
    assert float(metric.result()) == pytest.approx((2 / 3 + 0) / 2)


def test_single_pixels_are_not_lost_among_many():
    metric = SegmentationMeanIoU(1)
    metric._high.assign([[2.0**10]])  # 2**30 pixels
    for _ in range(3):
        metric.update_state(np.zeros((1, 1, 1), "int32"), np.zeros((1, 1, 1, 1), "float32"))
    assert keras.ops.convert_to_numpy(metric._low).item() == 3


def test_images_of_weight_zero_do_not_count():
    metric = SegmentationMeanIoU(3)
    metric.update_state(MASKS, LOGITS, np.array([1, 0, 1]))
    part = [0, 2]
    assert float(metric.result()) == pytest.approx(expected_iou(MASKS[part], LOGITS[part].argmax(-1), 3), rel=1e-6)
