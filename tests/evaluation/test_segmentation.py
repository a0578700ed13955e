"""Segmentation at full resolution: windows, measures and the figure."""

import keras
import numpy as np
import pytest
from PIL import Image

from keras_vit.evaluation import Segmenter, evaluate_segmentation, mask_figure, segment
from keras_vit.evaluation.segmentation import class_colors, scores
from keras_vit.models import ViTConfig, build_segmenter

CONFIG = ViTConfig(image_size=16, patch_size=4, hidden_dim=16, num_layers=1, num_heads=2, mlp_dim=24)


def brightness_model():
    """A model whose two classes are dark and bright places, whatever the context."""
    model = build_segmenter(CONFIG, 2, batch_norm=False, labels=("dark", "bright"))
    images = keras.Input((16, 16, 3))
    gray = keras.ops.mean(images, -1, keepdims=True)
    logits = keras.layers.Activation("linear", name="segmentation_logits")(keras.ops.concatenate([-gray, gray], -1))
    plain = keras.Model(images, logits)
    segmenter = Segmenter(model)
    segmenter._model = plain
    return segmenter


@pytest.mark.parametrize("size", [(16, 16), (32, 64), (40, 24)])
def test_windows_cover_the_whole_image(size):
    dark = np.kron(np.random.default_rng(1).random((size[0] // 8, size[1] // 8)) < 0.5, np.ones((8, 8), bool))
    image = np.repeat(np.where(dark, 10, 240)[..., None], 3, -1).astype("uint8")
    found = brightness_model()(image)
    assert found.shape == size
    assert (found == ~dark).mean() > 0.85
    scored = evaluate_segmentation(brightness_model(), [(image, (~dark).astype("int32"))])
    assert scored["accuracy"] == pytest.approx((found == ~dark).mean())
    assert scored["examples"] == 1


def test_a_model_segments_files_and_arrays_alike(tmp_path):
    model = build_segmenter(CONFIG, 3)
    pixels = np.random.default_rng(0).integers(256, size=(20, 30, 3)).astype("uint8")
    Image.fromarray(pixels).save(tmp_path / "image.png")
    expected = segment(model, pixels)
    assert expected.shape == (20, 30)
    assert (segment(model, tmp_path / "image.png") == expected).all()
    assert segment(model, pixels[..., 0]).shape == (20, 30)
    with pytest.raises(ValueError, match="float64"):
        segment(model, pixels / 255)


def test_the_measures_of_a_confusion_matrix():
    matrix = np.array([[8, 2, 0], [1, 9, 0], [0, 0, 0]])
    found = scores(matrix, "abc")
    assert found["mean_iou"] == pytest.approx((8 / 11 + 9 / 12) / 2)
    assert found["accuracy"] == pytest.approx(17 / 20)
    assert found["mean_accuracy"] == pytest.approx((0.8 + 0.9) / 2)
    assert found["classes"][2] == {"name": "c", "pixels": 0, "iou": None, "accuracy": None}


def test_masks_that_do_not_fit_are_refused():
    segmenter, image = Segmenter(build_segmenter(CONFIG, 2)), np.zeros((20, 20, 3), "uint8")
    for mask in (np.zeros((5, 5), int), np.full((20, 20), 3)):
        with pytest.raises(ValueError, match="example 0"):
            evaluate_segmentation(segmenter, [(image, mask)])
    with pytest.raises(ValueError, match="none"):
        evaluate_segmentation(segmenter, [])
    assert evaluate_segmentation(segmenter, [(image, np.full((20, 20), 255))])["pixels"] == 0


def test_the_figure_has_a_row_an_image():
    pytest.importorskip("matplotlib")
    rows = [(np.zeros((20, 30, 3), "uint8"), np.full((20, 30), 255), np.ones((20, 30), int))] * 2
    figure = mask_figure(rows, ("a", "b"))
    assert len(figure.axes) == 6
    assert len(np.unique(class_colors(256), axis=0)) == 256
