"""A calibration is in every signature's probabilities, and in no logits."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from hostile import encode, picture
from tiny import tiny_vit
from wrappers import PIXELS

import keras_vit
from keras_vit.calibration import Calibration
from keras_vit.cli.predictor import best_classes
from keras_vit.export import check, read_description, saved_model
from keras_vit.export.loaded_model import LoadedSavedModel
from keras_vit.export.runtimes import base as runtimes
from keras_vit.export.servable.options import ExportOptions
from keras_vit.export.servable.servable import make_servable
from keras_vit.metadata import metadata

PHOTOS = [encode(picture(seed)) for seed in range(3)]
BIAS = (0.5, -1.0, 0.25)
KINDS = {
    "softmax": (Calibration(2.5, "softmax", 3), {}),
    "sigmoid": (Calibration(2.5, "sigmoid", 3, BIAS), {}),
    "ends in softmax": (Calibration(2.5, "softmax", 3), {"classifier_activation": "softmax"}),
    "ends in sigmoid": (Calibration(2.5, "sigmoid", 3, BIAS), {"classifier_activation": "sigmoid"}),
    "single": (Calibration(2.5, "sigmoid", 1), {"num_classes": 1, "labels": ["no", "yes"]}),
}


def _models(kind):
    """A calibrated model, the same without, and its logits for PIXELS."""
    calibration, fields = KINDS[kind]
    model, plain = tiny_vit(**fields), tiny_vit(**fields)
    keras_vit.update_metadata(model, calibration=calibration)
    logits = tiny_vit(**{**fields, "classifier_activation": None})(metadata(model).input_spec.normalize(PIXELS))
    return model, plain, np.array(logits)


def _expected(calibration, logits):
    scaled = logits / calibration.temperature + (0 if calibration.bias is None else np.array(calibration.bias))
    if calibration.activation == "sigmoid":
        return 1 / (1 + np.exp(-scaled))
    return np.array(keras.ops.softmax(scaled))


def _call(function, **inputs):
    return {name: value.numpy() for name, value in function(**inputs).items()}


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_have_calibrated_probabilities_and_plain_logits(kind):
    model, plain, logits = _models(kind)
    servable, without = make_servable(model), make_servable(plain)
    images = tf.constant(PIXELS)
    found, before = (_call(s.signatures()["images"], images=images) for s in (servable, without))
    expected = _expected(servable.calibration, logits)
    np.testing.assert_allclose(found["probabilities"], expected, atol=1e-5)
    assert np.abs(found["probabilities"] - before["probabilities"]).max() > 0.01
    if "logits" in before:
        np.testing.assert_array_equal(found["logits"], before["logits"])


@pytest.mark.parametrize("kind", KINDS)
def test_encoded_images_have_calibrated_scores(kind):
    servable = make_servable(_models(kind)[0])
    functions = servable.signatures()
    answers = {name: _call(functions[name], image_bytes=tf.constant(PHOTOS)) for name in ("strict", "explain")}
    run = servable.runner(servable.model)
    pixels = np.stack([servable.input_spec.resize(picture(seed)) for seed in range(3)])
    scores = _expected(servable.calibration, _logits(run(servable.input_spec.normalize(pixels)).numpy(), kind))
    scores = np.hstack([1 - scores, scores]) if scores.shape[1] == 1 else scores
    np.testing.assert_allclose(answers["strict"]["scores"], -np.sort(-scores, axis=1), atol=2e-3)
    np.testing.assert_allclose(answers["explain"]["score"], scores.max(axis=1), atol=2e-3)


def _logits(outputs, kind):
    if not kind.startswith("ends"):
        return outputs
    return np.log(outputs) - (np.log1p(-outputs) if kind == "ends in sigmoid" else 0)


@pytest.mark.parametrize("kind", KINDS)
def test_predict_has_the_same_probabilities(kind):
    model, plain, logits = _models(kind)
    calibration = metadata(model).calibration
    images = metadata(model).input_spec.normalize(PIXELS)
    outputs = model.predict_on_batch(images)
    np.testing.assert_array_equal(outputs, plain.predict_on_batch(images))
    expected = _expected(calibration, logits)
    expected = np.hstack([1 - expected, expected]) if expected.shape[1] == 1 else expected
    found = [[score for _, score in row] for row in best_classes(model, outputs, 3)]
    np.testing.assert_allclose(found, -np.sort(-expected, axis=1), atol=1e-5)


def test_another_activation_is_refused():
    model, _, _ = _models("softmax")
    for activation in ("sigmoid", "linear"):
        with pytest.raises(ValueError, match=f"calibrated for probabilities by softmax.*'{activation}'"):
            make_servable(model, ExportOptions(activation=activation))


def test_a_description_has_no_key_without_a_calibration(tmp_path):
    model, plain, _ = _models("ends in softmax")
    paths = [saved_model(item, tmp_path / name, batch_sizes=()) for name, item in (("a", model), ("b", plain))]
    assert read_description(paths[0])["calibration"] == metadata(model).calibration.get_config()
    assert "calibration" not in read_description(paths[1])
    assert LoadedSavedModel(paths[0]).metadata.calibration == metadata(model).calibration
    assert LoadedSavedModel(paths[1]).metadata.calibration is None
    report = check(paths[0], model=model)
    assert report.failed == []


@pytest.mark.parametrize("kind", ["softmax", "ends in softmax", "ends in sigmoid"])
def test_other_runtimes_have_calibrated_probabilities_and_plain_logits(kind):
    model, _, logits = _models(kind)
    prepared = runtimes.source(model)
    images = metadata(model).input_spec.normalize(PIXELS)
    found = prepared.function()(tf.constant(images))
    if kind == "softmax":
        np.testing.assert_allclose(found["logits"], logits, atol=1e-5)
    else:
        np.testing.assert_allclose(found["probabilities"], _expected(metadata(model).calibration, logits), atol=1e-5)
    assert json.loads(json.dumps(prepared.description()))["calibration"]["temperature"] == 2.5


@pytest.mark.parametrize("name", ["onnx", "tflite", "xml"])
def test_a_calibrated_file_runs(name, tmp_path):
    writers = {"onnx": keras_vit.export.onnx_model, "tflite": keras_vit.export.litert_model}
    write = writers.get(name, keras_vit.export.openvino_model)
    model, _, _ = _models("ends in softmax")
    # It is tried in its runtime, beside the calibrated model.
    assert write(model, tmp_path / f"model.{name}").difference < 1e-5
