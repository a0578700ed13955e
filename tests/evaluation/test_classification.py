"""Reports of a model on a data set."""

import csv
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn import metrics as sklearn_metrics
from tiny import tiny_vit

import keras_vit
from keras_vit.evaluation import evaluate

RNG = np.random.default_rng(11)
IMAGES = RNG.uniform(-1, 1, size=(23, 16, 24, 3)).astype("float32")
LABELS = RNG.integers(0, 3, 23)


@pytest.fixture(scope="module")
def model():
    return tiny_vit(labels=["ant", "bee", "cat"])


def _dataset(labels=LABELS, size=4):
    return tf.data.Dataset.from_tensor_slices((IMAGES, labels)).batch(size)


def test_a_report_is_that_of_scikit_learn_on_the_outputs(model):
    report = evaluate(model, _dataset())
    logits = model.predict(IMAGES, verbose=0)
    predicted = logits.argmax(1)
    assert report.images == 23
    assert report.accuracy == sklearn_metrics.accuracy_score(LABELS, predicted)
    assert report.top5 is None
    expected = float(keras.losses.SparseCategoricalCrossentropy(from_logits=True)(LABELS, logits))
    assert report.loss == pytest.approx(expected, rel=1e-5)
    np.testing.assert_array_equal(report.confusion_matrix, sklearn_metrics.confusion_matrix(LABELS, predicted))
    recalls = [row["recall"] for row in report.classes]
    np.testing.assert_allclose(recalls, sklearn_metrics.recall_score(LABELS, predicted, average=None))
    assert report.interval[0] <= report.accuracy <= report.interval[1]
    assert report.calibration is None


@pytest.mark.parametrize("kind", ["arrays", "one-hot", "column", "list", "padded", "generator"])
def test_data_of_every_kind_gives_the_same_report(model, kind):
    rows = np.eye(3, dtype="float32")[LABELS]
    padding = np.zeros((1, *IMAGES.shape[1:]), "float32")
    padded = tf.data.Dataset.from_tensor_slices(
        (np.concatenate([IMAGES, padding]), np.append(LABELS, 0), np.append(np.ones(23), 0))
    )
    data = {
        "arrays": (IMAGES, LABELS),
        "one-hot": _dataset(rows),
        "column": _dataset(LABELS[:, None]),
        "list": [(IMAGES[:20], LABELS[:20]), (IMAGES[20:], LABELS[20:])],
        "padded": padded.batch(8),
        "generator": ((IMAGES[i : i + 1], LABELS[i : i + 1]) for i in range(23)),
    }[kind]
    report, expected = evaluate(model, data), evaluate(model, _dataset())
    assert (report.images, report.accuracy) == (expected.images, expected.accuracy)
    assert report.loss == pytest.approx(expected.loss, rel=1e-5)
    assert report.left_out == (1 if kind == "padded" else 0)


def test_pixels_are_normalized(model):
    pixels = RNG.integers(0, 256, (5, 16, 24, 3), dtype="uint8")
    spec = keras_vit.metadata(model).input_spec
    report = evaluate(model, (pixels, LABELS[:5]))
    expected = evaluate(model, (spec.normalize(pixels), LABELS[:5]))
    assert report.loss == pytest.approx(expected.loss, rel=1e-6)


def test_the_most_confident_mistakes_come_first_with_their_pixels(model):
    report = evaluate(model, _dataset(), mistakes=3, names=[f"{i}.jpg" for i in range(23)])
    table = report.predictions
    wrong = [i for i in np.argsort(-table["confidence"]) if not table["correct"][i]]
    assert [mistake.image for mistake in report.mistakes] == [f"{i}.jpg" for i in wrong[:3]]
    first = report.mistakes[0]
    assert (first.label, first.predicted) == (table["label"][wrong[0]], table["predicted"][wrong[0]])
    expected = np.round((IMAGES[wrong[0]] * 0.5 + 0.5) * 255)
    np.testing.assert_allclose(first.pixels, expected, atol=1)


def test_classes_may_be_a_part_of_those_of_the_model(model):
    labels = np.where(LABELS == 1, 2, LABELS)
    report = evaluate(model, _dataset(labels), classes=[0, 2])
    logits = model.predict(IMAGES, verbose=0)[:, [0, 2]]
    assert report.accuracy == np.mean(logits.argmax(1) == labels // 2)
    assert report.class_names == ("ant", "cat")
    expected = sklearn_metrics.log_loss(labels // 2, keras.ops.convert_to_numpy(keras.ops.softmax(logits)))
    assert report.loss == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match=r"must be among classes.*\[1\]"):
        evaluate(model, _dataset(), classes=[0, 2])


def test_every_label_of_a_set_is_right_and_images_without_one_are_left_out(model):
    rows = np.eye(3, dtype="float32")[LABELS]
    rows[:5] = 0
    rows[5:10] = 1
    report = evaluate(model, _dataset(rows), label_sets=True)
    predicted = model.predict(IMAGES, verbose=0).argmax(1)
    assert (report.images, report.left_out) == (18, 5)
    assert report.accuracy == np.mean([rows[i, predicted[i]] for i in range(5, 23)])
    assert report.confusion_matrix is None
    assert report.predictions["label"][0] == "ant, bee, cat"
    assert report.predictions["image"][0] == 5


def test_several_labels_an_image_are_scored_by_class():
    model = tiny_vit(classifier_activation="sigmoid", labels=["ant", "bee", "cat"])
    rows = (RNG.random((23, 3)) < 0.4).astype("float32")
    report = evaluate(model, _dataset(rows))
    scores = model.predict(IMAGES, verbose=0)
    expected = sklearn_metrics.average_precision_score(rows, scores, average="macro")
    assert report.mean_average_precision == pytest.approx(expected, abs=1e-6)
    assert report.f1_micro == pytest.approx(sklearn_metrics.f1_score(rows, scores >= 0.5, average="micro"))
    assert report.exact == sklearn_metrics.accuracy_score(rows, scores >= 0.5)
    assert [row["examples"] for row in report.classes] == rows.sum(axis=0).tolist()
    logits = evaluate(tiny_vit(), _dataset(rows), multi_label=True)
    assert logits.mean_average_precision == pytest.approx(report.mean_average_precision, abs=1e-6)


def test_a_single_logit_has_two_classes():
    model = tiny_vit(num_classes=1, labels=["no", "yes"])
    labels = LABELS % 2
    report = evaluate(model, _dataset(labels))
    logits = model.predict(IMAGES, verbose=0)[:, 0]
    assert report.accuracy == np.mean((logits > 0) == labels)
    assert report.class_names == ("no", "yes")
    expected = sklearn_metrics.log_loss(labels, 1 / (1 + np.exp(-logits.astype("float64"))))
    assert report.loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("is_multi", [False, True])
def test_a_report_is_written_with_its_figures(model, tmp_path, is_multi):
    labels = (RNG.random((23, 3)) < 0.4).astype("float32") if is_multi else LABELS
    report = evaluate(model, _dataset(labels), multi_label=is_multi)
    assert set(report.figures()) == {"reliability", "mistakes", "average_precision" if is_multi else "confusion"}
    written = {path.name for path in report.save(tmp_path / "report")}
    assert {"report.json", "predictions.csv", "reliability.png", "mistakes.png"} < written
    content = json.loads((tmp_path / "report" / "report.json").read_text())
    assert content == json.loads(report.to_json())
    assert content["images"] == 23
    with open(tmp_path / "report" / "predictions.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header[0] == "image"
    assert len(rows) == 23


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (LABELS + 1, {}, r"in 0\.\.2\. Received: .*3"),
        (LABELS - 1, {}, r"in 0\.\.2\. Received: -1"),
        (LABELS + 0.5, {}, r"in 0\.\.2\. Received: 0.5"),
        (np.ones((23, 3)), {}, "multi_label=True.*Received: sums 3"),
        (np.ones((23, 4)), {}, r"3 classes of the model\. Received: labels \(4, 4\)"),
        (np.full((23, 3), 0.5), {"multi_label": True}, "0 and 1"),
        (np.zeros((23, 3)), {"label_sets": True}, "at least one image with a label"),
        (np.zeros((23, 3)), {"multi_label": True}, "at least one image must have a class"),
        (LABELS, {"classes": [0]}, "two or more"),
        (LABELS, {"classes": [0, 3]}, r"in 0\.\.2"),
        (LABELS, {"class_names": ["a"]}, "1 names for 3 classes"),
        (LABELS, {"names": ["a"]}, "1 names for 23 images"),
        (LABELS, {"threshold": 1}, "threshold=1"),
    ],
)
def test_what_does_not_fit_is_one_error(model, labels, options, message):
    with pytest.raises(ValueError, match=message):
        evaluate(model, _dataset(labels), **options)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "at least one image"),
        ((IMAGES[:0], LABELS[:0]), "at least one image"),
        ((IMAGES, LABELS[:3]), "a label for each image"),
        ([IMAGES], "batches .images, labels"),
        ([(IMAGES, LABELS[:3])], "a label for each image"),
    ],
)
def test_data_without_images_or_labels_is_an_error(model, data, message):
    with pytest.raises(ValueError, match=message):
        evaluate(model, data)


def test_outputs_that_are_no_numbers_are_an_error():
    model = tiny_vit()
    model.get_layer("head").bias.assign([float("nan"), 0, 0])
    with pytest.raises(ValueError, match="finite"):
        evaluate(model, _dataset())


def test_a_model_needs_classes():
    with pytest.raises(ValueError, match="num_classes=0"):
        evaluate(tiny_vit(num_classes=0), _dataset())
