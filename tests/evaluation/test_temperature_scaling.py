"""Calibration: the minimum that scipy finds, stored in the model, without effect on what it returns."""

import keras
import numpy as np
import pytest
from scipy import optimize, special
from tiny import tiny_vit

import keras_vit
from keras_vit.calibration import Calibration
from keras_vit.evaluation import calibrate, evaluate, expected_calibration_error
from keras_vit.evaluation.temperature_scaling import _fit_sigmoid, _fit_softmax

RNG = np.random.default_rng(2)
IMAGES = RNG.uniform(-1, 1, size=(80, 16, 24, 3)).astype("float32")


def _drawn(logits, temperature):
    """Labels whose probabilities are those of the logits at a temperature."""
    return np.array([RNG.choice(len(p), p=p) for p in special.softmax(logits / temperature, axis=1)])


def test_the_temperature_is_the_minimum_that_scipy_finds():
    logits = RNG.normal(size=(5000, 7)).astype("float32") * 5
    labels = _drawn(logits.astype("float64"), 2.5)

    def loss(temperature):
        return -special.log_softmax(logits.astype("float64") / temperature, axis=1)[range(5000), labels].mean()

    found = 1 / _fit_softmax(logits, labels)
    expected = optimize.minimize_scalar(loss, bounds=(0.1, 20), method="bounded", options={"xatol": 1e-9})
    assert found == pytest.approx(expected.x, rel=1e-5)
    assert found == pytest.approx(2.5, rel=0.1)


@pytest.mark.parametrize("bias", [False, True])
def test_temperature_and_biases_are_the_minimum_that_scipy_finds(bias):
    logits = (RNG.normal(size=(3000, 4)) * 4).astype("float32")
    shifts = np.array([-1, 0.5, 0, 2])
    labels = RNG.random((3000, 4)) < special.expit(logits / 3 + shifts)

    def loss(values):
        scaled = values[0] * logits.astype("float64") + (values[1:] if bias else 0)
        return (np.logaddexp(0, scaled) - scaled * labels).mean()

    start = np.concatenate([[1.0], np.zeros(4 if bias else 0)])
    expected = optimize.minimize(loss, start, method="L-BFGS-B", options={"ftol": 1e-15, "gtol": 1e-9}).x
    inverse, biases = _fit_sigmoid(logits, labels, bias, [*"abcd"])
    assert inverse == pytest.approx(expected[0], rel=1e-4)
    if bias:
        np.testing.assert_allclose(biases, expected[1:], atol=1e-4)
        np.testing.assert_allclose(biases, shifts, atol=0.3)


@pytest.fixture
def overconfident():
    """A model whose logits are three times too large, and labels."""
    model = tiny_vit()
    kernel = model.get_layer("head").kernel
    logits = model.predict(IMAGES, verbose=0)
    labels = _drawn(logits.astype("float64"), 1)
    kernel.assign(kernel * 3)
    model.get_layer("head").bias.assign(model.get_layer("head").bias * 3)
    return model, labels


def test_a_calibration_changes_probabilities_alone(overconfident, tmp_path):
    model, labels = overconfident
    outputs, before = model.predict(IMAGES, verbose=0), evaluate(model, (IMAGES, labels))
    report = calibrate(model, (IMAGES, labels))
    calibration = keras_vit.metadata(model).calibration
    assert calibration == report.calibration
    assert calibration.temperature > 1
    after = evaluate(model, (IMAGES, labels))
    np.testing.assert_array_equal(model.predict(IMAGES, verbose=0), outputs)
    assert after.accuracy == before.accuracy
    assert (report.before["ece"], report.before["nll"]) == pytest.approx((before.ece, before.loss), rel=1e-4)
    assert (report.after["ece"], report.after["nll"]) == pytest.approx((after.ece, after.loss), rel=1e-4)
    assert after.loss < before.loss
    assert after.calibration["temperature"] == calibration.temperature
    probabilities = special.softmax(outputs / calibration.temperature, axis=1)
    expected = expected_calibration_error(probabilities.max(1), probabilities.argmax(1) == labels)
    assert after.ece == pytest.approx(expected, abs=1e-6)
    assert set(report.figures()) == {"before", "after"}
    assert '"temperature"' in report.to_json()
    model.save(tmp_path / "model.keras")
    assert keras_vit.metadata(keras.models.load_model(tmp_path / "model.keras")).calibration == calibration


def test_a_model_that_ends_in_probabilities_is_calibrated_alike(overconfident):
    model, labels = overconfident
    ending = tiny_vit(classifier_activation="softmax")
    ending.set_weights(model.get_weights())
    found = calibrate(ending, (IMAGES, labels)).calibration
    assert found.temperature == pytest.approx(calibrate(model, (IMAGES, labels)).calibration.temperature, rel=1e-3)


def test_calibrating_again_starts_from_the_outputs(overconfident):
    model, labels = overconfident
    first = calibrate(model, (IMAGES, labels))
    assert calibrate(model, (IMAGES, labels)).to_dict() == first.to_dict()


def test_several_labels_get_a_bias_each():
    model = tiny_vit(classifier_activation="sigmoid")
    rows = (RNG.random((80, 3)) < [0.2, 0.5, 0.8]).astype("float32")
    # The model knows a part of the labels.
    scores = model.predict(IMAGES, verbose=0)
    rows = np.where(RNG.random((80, 3)) < 0.5, scores > np.median(scores, axis=0), rows).astype("float32")
    report = calibrate(model, (IMAGES, rows))
    assert len(report.calibration.bias) == 3
    assert report.after["nll"] < report.before["nll"]
    assert calibrate(model, (IMAGES, rows), bias=False).calibration.bias is None


def test_a_single_logit_has_a_temperature():
    model = tiny_vit(num_classes=1, labels=["no", "yes"])
    logits = model.predict(IMAGES, verbose=0)[:, 0]
    labels = (RNG.random(80) < special.expit(logits / 2)).astype("int64")
    calibration = calibrate(model, (IMAGES, labels)).calibration
    assert (calibration.activation, calibration.outputs, calibration.bias) == ("sigmoid", 1, None)


def test_a_head_of_another_size_has_no_calibration():
    model = tiny_vit()
    keras_vit.update_metadata(model, calibration=Calibration(2.0, "softmax", 3))
    images = keras.Input((16, 24, 3))
    other = keras.Model(images, keras.layers.Dense(5)(model(images)))
    assert keras_vit.metadata(model).calibration.temperature == 2
    assert keras_vit.metadata(other).calibration is None


@pytest.fixture(scope="module")
def even():
    """A model that takes images for each class."""
    model = tiny_vit()
    model.get_layer("head").bias.assign(model.get_layer("head").bias - model.predict(IMAGES, verbose=0).mean(0))
    return model


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ("one", {}, "two classes or more.*80 images of one class"),
        ("right", {}, "80 images, all right"),
        ("empty", {}, "at least one image"),
        ("rows", {"multi_label": True}, r"--no-bias.*1 classes.*: 2$"),
        ("other", {}, r"in 0\.\.2.*7"),
    ],
)
def test_labels_that_tell_nothing_are_an_error(even, labels, options, message):
    rows = np.zeros((80, 3))
    rows[:40, 0], rows[20:, 1] = 1, 1
    right = even.predict(IMAGES, verbose=0).argmax(1)
    assert len(np.unique(right)) > 1
    given = {"one": np.zeros(80, int), "right": right, "rows": rows, "other": np.full(80, 7)}
    with pytest.raises(ValueError, match=message):
        calibrate(even, [] if labels == "empty" else (IMAGES, given[labels]), **options)
    assert keras_vit.metadata(even).calibration is None


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0},
        {"temperature": float("nan")},
        {"activation": "linear"},
        {"outputs": 0},
        {"bias": (1.0, 2.0, 3.0)},
        {"activation": "sigmoid", "bias": (1.0,)},
    ],
)
def test_a_calibration_is_checked(fields):
    with pytest.raises(ValueError, match="Received"):
        Calibration(**{"temperature": 1.0, "activation": "softmax", "outputs": 3, **fields})
