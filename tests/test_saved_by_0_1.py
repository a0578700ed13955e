"""Files of version 0.1.0 still load, predict the same and go on training."""

import pathlib
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_vit
import keras_vit.training
from keras_vit import experiment, metadata
from keras_vit.config import AugmentConfig, DataConfig, OptimizerConfig, Recipe, TrainingConfig
from keras_vit.config.recipe import RENAMED_FIELDS
from keras_vit.models import ViTConfig
from keras_vit.preprocessing import InputSpec

FOLDER = pathlib.Path(__file__).parent / "goldens" / "saved_by_0_1"
MODELS = ("vit", "deit", "swin", "hybrid", "convnet", "masked")
OPTIMIZERS = ("adamw", "adam", "sgd", "lamb", "lion", "muon")
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


def batch(model):
    """The images and one-hot labels that the files were written with."""
    images = np.random.default_rng(7).uniform(-1, 1, (4, *model.input_shape[1:])).astype("float32")
    return images, np.eye(3, dtype="float32")[np.arange(4) % 3]


@pytest.mark.parametrize("name", MODELS)
def test_models_predict_the_same(name):
    model = keras.models.load_model(FOLDER / f"{name}.keras", compile=False)
    expected = np.load(FOLDER / f"{name}.npz")["outputs"]
    np.testing.assert_allclose(model.predict(batch(model)[0], verbose=0), expected, **TOLERANCE)
    if name != "masked":
        content = metadata(model)
        assert tuple(content.labels) == ("ant", "bee", "cat")
        assert content.input_spec.mean == (0.4, 0.5, 0.6)
        assert content.origin == f"random {name}"


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_continues(name):
    model = keras.models.load_model(FOLDER / f"trained_{name}.keras")
    expected = np.load(FOLDER / f"trained_{name}.npz")
    images, labels = batch(model)
    np.testing.assert_allclose(model.predict(images, verbose=0), expected["outputs"], **TOLERANCE)
    model.fit(images, labels, epochs=2, batch_size=4, shuffle=False, verbose=0)
    assert np.abs(expected["continued"] - expected["outputs"]).max() > 1e-3
    # A rounding error of a gradient near zero is a whole step of an optimizer that divides by its size.
    np.testing.assert_allclose(model.predict(images, verbose=0), expected["continued"], rtol=1e-3, atol=1e-3)


def test_saved_models_answer_the_same():
    expected = np.load(FOLDER / "saved_model.npz")
    served = tf.saved_model.load(FOLDER / "saved_model" / "1")
    answer = served.signatures["images_uint8"](images=tf.constant(expected["pixels"]))
    np.testing.assert_allclose(answer["logits"], expected["logits"], **TOLERANCE)
    model = keras.models.load_model(FOLDER / "vit.keras", compile=False)
    images = metadata(model).input_spec.normalize(expected["pixels"])
    np.testing.assert_allclose(model.predict(images, verbose=0), expected["logits"], **TOLERANCE)
    assert keras_vit.export.read_description(FOLDER / "saved_model" / "1")["labels"] == ["ant", "bee", "cat"]


RUN = Recipe(
    name="run",
    model=ViTConfig(
        image_size=(16, 24), patch_size=8, hidden_dim=8, num_layers=1, num_heads=2, mlp_dim=12, num_classes=3
    ),
    input_spec=InputSpec((16, 24)),
    data=DataConfig(name="digits", batch_size=8, aug_repeats=2),
    augment=AugmentConfig(
        random_erasing_prob=0.5,
        mixup=0.2,
        cutmix=1.0,
        mixup_mode="sample",
        mixup_prob=0.75,
        mixup_switch_prob=0.25,
    ),
    optimizer=OptimizerConfig(
        name="muon",
        learning_rate=1e-3,
        lr_base_size=16,
        schedule="epoch_cosine",
        lag_one_epoch=True,
        warmup_epochs=1,
        weight_decay=0.05,
        independent_weight_decay=True,
        momentum=0.95,
        adam_lr_ratio=0.5,
        global_clipnorm=1.0,
        gradient_accumulation_steps=2,
    ),
    training=TrainingConfig(
        epochs=3,
        steps_per_epoch=2,
        evaluation_steps=1,
        init_head_bias=-1.0,
        head_zeroinit=True,
        precision="float32",
        compiler="plain",
    ),
)


def test_a_run_resumes_under_the_new_field_names(tmp_path):
    """Its checkpoint holds a recipe in which every field that was renamed since has a value of its own."""
    shutil.copytree(FOLDER / "run", tmp_path / "run")
    content, defaults = RUN.to_dict(), Recipe(name="run", model=RUN.model, data=DataConfig(name="digits")).to_dict()
    for section, names in RENAMED_FIELDS.items():
        for name in names.values():
            assert content[section][name] != defaults[section][name], name
    run = experiment.run(RUN, tmp_path / "run", log=lambda text: None)
    assert (run.record["resumed_from"], run.record["resumed_step"]) == (2, 0)
    assert len(run.record["epochs"]) == 3


def test_a_run_of_another_recipe_is_refused(tmp_path):
    shutil.copytree(FOLDER / "run", tmp_path / "run")
    changed = RUN.replace(optimizer=OptimizerConfig(name="muon", global_clipnorm=2.0))
    with pytest.raises(ValueError, match=r"optimizer.global_clipnorm: was 1.0, is 2.0"):
        experiment.run(changed, tmp_path / "run", log=lambda text: None)
