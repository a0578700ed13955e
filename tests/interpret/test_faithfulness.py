"""Deletion, insertion and the pointing game against the probabilities of images edited by hand."""

import keras
import numpy as np
import pytest
from tiny import IMAGES, tiny_vit

from keras_vit.interpret import deletion_curve, insertion_curve, pointing_game


def _probabilities(model, images):
    return np.array(keras.ops.softmax(model(images)))


def test_curves_are_the_probabilities_of_what_is_left():
    model, classes = tiny_vit(), [2, 0]
    maps = np.array([[[5, 1, 3], [0, 4, 2]], [[0, 1, 2], [3, 4, 5]]], "float32")
    deleted, inserted = (
        function(model, IMAGES, maps, classes, baseline=0.5, steps=3, batch_size=3)
        for function in (deletion_curve, insertion_curve)
    )
    # The two hottest patches of each image after the first of three steps.
    left, back = IMAGES.copy(), np.full_like(IMAGES, 0.5)
    for i, cells in enumerate([[(0, 0), (1, 1)], [(1, 2), (1, 1)]]):
        for row, column in cells:
            cell = (i, slice(8 * row, 8 * row + 8), slice(8 * column, 8 * column + 8))
            left[cell], back[cell] = 0.5, IMAGES[cell]
    chosen = ([0, 1], classes)
    np.testing.assert_allclose(deleted["fractions"], [0, 1 / 3, 2 / 3, 1])
    np.testing.assert_allclose(deleted["scores"][:, 0], _probabilities(model, IMAGES)[chosen], atol=1e-5)
    np.testing.assert_allclose(deleted["scores"][:, 1], _probabilities(model, left)[chosen], atol=1e-5)
    np.testing.assert_allclose(inserted["scores"][:, 1], _probabilities(model, back)[chosen], atol=1e-5)
    empty = _probabilities(model, np.full_like(IMAGES, 0.5))[chosen]
    np.testing.assert_allclose(deleted["scores"][:, -1], empty, atol=1e-5)
    np.testing.assert_allclose(inserted["scores"][:, -1], deleted["scores"][:, 0], atol=1e-5)
    expected = (deleted["scores"][:, 1:] + deleted["scores"][:, :-1]).mean(axis=1) / 2
    np.testing.assert_allclose(deleted["auc"], expected, rtol=1e-5)


def test_one_output_has_two_classes():
    model, maps = tiny_vit(num_classes=1), np.ones((2, 2, 3))
    second = deletion_curve(model, IMAGES, maps, 1, steps=2)["scores"]
    np.testing.assert_allclose(second, 1 - deletion_curve(model, IMAGES, maps, 0, steps=2)["scores"], atol=1e-6)
    np.testing.assert_allclose(second[:, 0], keras.ops.sigmoid(model(IMAGES))[:, 0], atol=1e-5)


def test_pointing_game():
    maps, masks = np.zeros((3, 2, 3)), np.zeros((3, 16, 24), bool)
    maps[:, 1, 2] = 1
    masks[0, 8:, 16:] = True
    masks[1, :8] = True
    masks[2, 12, 20] = True
    assert pointing_game(maps, masks).tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: deletion_curve(tiny_vit(), IMAGES, np.ones((1, 2, 3))), r"\(1, 2, 3\) for 2 images"),
        (lambda: insertion_curve(tiny_vit(), IMAGES, np.ones((2, 17, 3))), r"\(2, 17, 3\) for 2 images"),
        (lambda: insertion_curve(tiny_vit(), IMAGES, np.ones((2, 2, 3)), steps=0), "Received: steps=0"),
        (lambda: pointing_game(np.ones((2, 2, 3)), np.ones((1, 4, 4))), r"masks of the shape \(1, 4, 4\)"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
