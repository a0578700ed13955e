"""Files of version 0.1.0 still load, predict the same and go on training."""

import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_vit
import keras_vit.training
from keras_vit import metadata

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
