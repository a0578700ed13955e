"""A segmentation from a folder to a SavedModel, on a tiny model."""

import json

import keras
import numpy as np
import pytest
from PIL import Image

from keras_vit.config import AugmentConfig, DataConfig, OptimizerConfig, Recipe, SegmentationConfig, TrainingConfig
from keras_vit.evaluation import Segmenter
from keras_vit.experiment import run
from keras_vit.export import read_description, segment_files, segmentation_model
from keras_vit.models import ViTConfig


def write(root, count, seed):
    """Bright squares on dark noise."""
    random = np.random.default_rng(seed)
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for number in range(count):
        mask = np.zeros((24, 40), "uint8")
        top, left = random.integers(0, 12), random.integers(0, 28)
        mask[top : top + 12, left : left + 12] = 1
        pixels = random.integers(0, 60, (24, 40, 3)) + 180 * mask[..., None]
        mask[0] = 255
        Image.fromarray(pixels.astype("uint8")).save(root / "images" / f"{number}.png")
        Image.fromarray(mask).save(root / "masks" / f"{number}.png")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("squares")
    for seed, (split, count) in enumerate({"train": 32, "val": 4, "test": 6}.items()):
        write(folder / split, count, seed)
    (folder / "classes.txt").write_text("ground\nsquare\n")
    model = ViTConfig(image_size=24, patch_size=4, hidden_dim=16, num_layers=1, num_heads=2, mlp_dim=32, num_classes=9)
    return Recipe(
        name="squares",
        model=model,
        data=DataConfig(folder=str(folder), batch_size=8),
        augment=AugmentConfig(flip=True),
        segmentation=SegmentationConfig(scale_range=(0.8, 1.2)),
        optimizer=OptimizerConfig(learning_rate=1e-2),
        training=TrainingConfig(epochs=10, compiler="plain", precision="float32"),
    )


def test_a_folder_becomes_a_model_that_segments(recipe, tmp_path):
    finished = run(recipe, tmp_path / "run", log=lambda text: None)
    evaluation = finished.evaluation
    assert evaluation["examples"] == 6
    assert evaluation["pixels"] == 6 * 23 * 40  # Without the ignored row.
    assert evaluation["mean_iou"] > 0.55
    assert finished.record["test_mean_iou"] == evaluation["mean_iou"]
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert [row["name"] for row in report["classes"]] == ["ground", "square"]
    assert report["mean_iou"] > report["baseline"]["mean_iou"]
    with Image.open(tmp_path / "run" / "masks.png") as picture:
        assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 50
    assert {"mean_iou", "accuracy", "loss"} <= set(finished.record["epochs"][0])

    model = keras.models.load_model(tmp_path / "run" / "model.keras")
    path = segmentation_model(model, tmp_path / "exported")
    description = read_description(path)
    assert (description["task"], description["labels"]) == ("segmentation", ["ground", "square"])
    files = [tmp_path / name for name in ("wide.png", "tall.png")]
    for file, size in zip(files, ((30, 70, 3), (60, 33, 3)), strict=True):
        Image.fromarray(np.random.default_rng(0).integers(256, size=size).astype("uint8")).save(file)
    segmenter = Segmenter(model)
    for mask, file in zip(segment_files(path, files), files, strict=True):
        assert mask.shape == segmenter(file).shape
        assert (mask == segmenter(file)).mean() > 0.97
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"bad\.png"):
        segment_files(path, [bad])


def test_an_interrupted_run_resumes_to_the_same_weights(recipe, tmp_path):
    short = recipe.replace(training=TrainingConfig(epochs=2, compiler="plain", precision="float32"))
    stopped = short.replace(training=TrainingConfig(epochs=1, compiler="plain", precision="float32"))
    constant = OptimizerConfig(learning_rate=1e-2, schedule="constant")
    whole = run(short.replace(optimizer=constant), tmp_path / "constant", log=lambda text: None)
    run(stopped.replace(optimizer=constant), tmp_path / "parts", log=lambda text: None)
    resumed = run(short.replace(optimizer=constant), tmp_path / "parts", log=lambda text: None)
    for one, other in zip(whole.model.weights, resumed.model.weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_validation_split_selects_the_best_epoch(recipe, tmp_path):
    data = DataConfig(folder=recipe.data.folder, batch_size=8, validation_split="validation")
    training = TrainingConfig(epochs=2, early_stopping=1, compiler="plain", precision="float32")
    finished = run(recipe.replace(data=data, training=training), tmp_path, log=lambda text: None)
    scores = [epoch["val_mean_iou"] for epoch in finished.record["epochs"]]
    assert finished.record["best_epoch"] == scores.index(max(scores)) + 1
    assert finished.evaluation["examples"] == 4


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"augment": AugmentConfig(mixup=0.2)}, "augment.mixup"),
        ({"augment": AugmentConfig(crop_scale=(0.5, 1.0))}, "augment.crop_scale"),
        ({"training": TrainingConfig(label_smoothing=0.1)}, "training.label_smoothing"),
        ({"data": DataConfig(arrays="x.npz")}, "data.arrays"),
    ],
)
def test_settings_of_whole_images_are_refused(recipe, changes, field):
    with pytest.raises(ValueError, match=f"Received: .*{field}"):
        recipe.replace(**changes)
