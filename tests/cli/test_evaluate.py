"""`keras_vit evaluate` and `calibrate`: data sets in their formats, reports, calibrated models."""

import csv
import json
import re

import keras
import numpy as np
import pytest
from PIL import Image
from tiny import tiny_vit

import keras_vit
import keras_vit_cli
from keras_vit.calibration import Calibration
from keras_vit.evaluation import evaluate
from keras_vit.evaluation.imagenet import find_subset, read_real, subset_classes, subset_ids
from keras_vit.weights.hub.catalog import imagenet_ids, read_labels

RNG = np.random.default_rng(4)


def _main(*arguments):
    return keras_vit_cli.main([str(a) for a in arguments])


def _image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (20, 30, 3), dtype="uint8")).save(path)


@pytest.fixture(scope="module")
def imagenet_model(tmp_path_factory):
    """A model with the classes of ImageNet, and its file."""
    path = tmp_path_factory.mktemp("model") / "model.keras"
    model = tiny_vit(num_classes=1000, labels=read_labels("imagenet1k"))
    model.save(path)
    return model, path


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    """A model of two classes in a run's folder, and photos `val/<class>/<n>.png`."""
    folder = tmp_path_factory.mktemp("pets")
    model, images = tiny_vit(num_classes=2, labels=["cat", "dog"]), [folder / f"{i}.png" for i in range(12)]
    for image in images:
        _image(image)
    logits = _logits(model, images)
    margins = logits[:, 1] - logits[:, 0]
    model.get_layer("head").bias.assign_add([np.median(margins), 0])
    # The model is right about all but two of each class.
    ranks = margins.argsort().argsort()
    for i, (image, rank) in enumerate(zip(images, ranks, strict=True)):
        label = "dog" if (rank >= 6) != (rank in (2, 4, 7, 9)) else "cat"
        (folder / "photos" / "val" / label).mkdir(parents=True, exist_ok=True)
        image.rename(folder / "photos" / "val" / label / f"{i}.png")
    (folder / "run").mkdir()
    model.save(folder / "run" / "model.keras")
    return folder


def _json(capsys, *arguments):
    assert _main(*arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def _logits(model, paths):
    spec = keras_vit.metadata(model).input_spec
    return model.predict(np.stack([spec.load(path) for path in paths]), verbose=0)


def test_a_report_is_printed_and_written(pets, tmp_path, capsys):
    arguments = ["evaluate", pets / "run", "--folder", pets / "photos", "--split", "val"]
    assert _main(*arguments, "--to", tmp_path / "report", "--predictions", tmp_path / "own.csv") == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r".*photos, val: 12 images, accuracy 0\.\d{4}, loss \d+\.\d{4}", lines[-1])
    assert re.fullmatch(
        r"accuracy 0\.\d+ to [01]\.\d+ with 95 % confidence.*, ECE 0\.\d{4}, [\d,.]+ images/s", lines[-2]
    )
    names = {path.name for path in (tmp_path / "report").iterdir()}
    assert names == {"report.json", "predictions.csv", "confusion.png", "reliability.png", "mistakes.png"}
    assert (tmp_path / "own.csv").read_text() == (tmp_path / "report" / "predictions.csv").read_text()
    with open(tmp_path / "own.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [str(p) for p in sorted((pets / "photos" / "val").glob("*/*.png"))]
    assert all(row["label"] in row["image"] for row in rows)
    content = json.loads((tmp_path / "report" / "report.json").read_text())
    assert np.mean([row["correct"] == "True" for row in rows]) == content["accuracy"]


def test_json_is_all_of_the_output(pets, capsys):
    found = _json(capsys, "evaluate", pets / "run", "--folder", pets / "photos", "--split", "val")
    model = keras_vit.load_model(pets / "run")
    paths = sorted((pets / "photos" / "val").glob("*/*.png"))
    logits = _logits(model, paths)
    labels = np.repeat([0, 1], 6)
    assert found["accuracy"] == np.mean(logits.argmax(1) == labels)
    assert np.array(found["confusion_matrix"]).sum() == 12
    assert (found["split"], found["kind"], found["calibration"]) == ("val", "single-label", None)


@pytest.mark.parametrize("name", ["imagenet_a", "imagenet_r"])
def test_a_folder_of_the_200_classes_is_evaluated_over_them(name, imagenet_model, tmp_path, capsys):
    model, file = imagenet_model
    ids, classes = subset_ids(name), subset_classes(name)
    assert (len(ids), find_subset(ids)) == (200, name)
    assert [imagenet_ids()[i] for i in classes] == list(ids)
    paths = [tmp_path / name / wordnet_id / "0.png" for wordnet_id in ids]
    for path in paths:
        _image(path)
    (tmp_path / name / "README.txt").write_text("as the archive has it")
    found = _json(capsys, "evaluate", file, "--folder", tmp_path / name)
    logits = _logits(model, paths)[:, classes]
    assert found["choice"] == f"the 200 classes of {name}"
    assert found["accuracy"] == np.mean(logits.argmax(1) == np.arange(200))
    assert len(found["classes"]) == 200
    all_of_them = _json(capsys, "evaluate", file, "--folder", tmp_path / name, "--choose-from", "all")
    assert (len(all_of_them["classes"]), all_of_them["choice"]) == (1000, None)
    assert all_of_them["loss"] > found["loss"]


def test_classes_that_are_present_may_be_the_choice(imagenet_model, tmp_path, capsys):
    model, file = imagenet_model
    chosen = [3, 20, 999]
    paths = [tmp_path / imagenet_ids()[i] / "0.png" for i in chosen]
    for path in paths:
        _image(path)
    found = _json(capsys, "evaluate", file, "--folder", tmp_path, "--choose-from", "present")
    logits = _logits(model, paths)[:, chosen]
    assert found["accuracy"] == np.mean(logits.argmax(1) == np.arange(3))


def test_folders_of_imagenet_v2_are_numbers_of_classes(imagenet_model, tmp_path, capsys):
    model, file = imagenet_model
    # In the order of names 10 comes before 2.
    classes = [10, 2, 100, 999]
    paths = [tmp_path / "imagenetv2-matched-frequency-format-val" / str(i) / "a.jpeg" for i in classes]
    for path in paths:
        _image(path)
    found = _json(capsys, "evaluate", file, "--folder", tmp_path / "imagenetv2-matched-frequency-format-val")
    logits = _logits(model, paths)
    expected = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(np.array(classes), logits)
    # JPEG files are decoded by another library.
    assert found["loss"] == pytest.approx(float(expected), abs=0.05)
    assert {row["name"] for row in found["classes"] if row["examples"]} == {
        read_labels("imagenet1k")[i] for i in classes
    }


def test_corrupted_images_are_split_by_severity(imagenet_model, tmp_path, capsys):
    _, file = imagenet_model
    for severity in range(1, 6):
        _image(tmp_path / "gaussian_noise" / str(severity) / imagenet_ids()[severity] / "0.png")
    found = _json(capsys, "evaluate", file, "--folder", tmp_path / "gaussian_noise", "--split", "3")
    assert found["images"] == 1
    assert next(row["name"] for row in found["classes"] if row["examples"]) == read_labels("imagenet1k")[3]


def _real_file(path, sets):
    path.write_text(json.dumps([*sets, *[[]] * (50_000 - len(sets))]))
    return path


@pytest.mark.parametrize("layout", ["flat", "classes"])
def test_labels_of_real_go_by_the_names_of_files(layout, imagenet_model, tmp_path, capsys):
    model, file = imagenet_model
    paths = [tmp_path / "val" / f"ILSVRC2012_val_{i:08d}.png" for i in range(1, 7)]
    if layout == "classes":
        paths = [path.parent / imagenet_ids()[-i] / path.name for i, path in enumerate(paths, 1)]
    for path in paths:
        _image(path)
    predicted = _logits(model, paths).argmax(1).tolist()
    wrong = [(i + 1) % 1000 for i in predicted]
    sets = [[predicted[0]], [wrong[1]], [wrong[2], predicted[2]], [], [wrong[4]], []]
    real = _real_file(tmp_path / "real.json", sets)
    found = _json(capsys, "evaluate", file, "--folder", tmp_path, "--split", "val", "--real", real)
    assert (found["images"], found["left_out"], found["accuracy"]) == (4, 2, 0.5)
    assert [mistake["image"] for mistake in found["mistakes"]] in (
        [str(paths[1]), str(paths[4])],
        [str(paths[4]), str(paths[1])],
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[[1]]", "a list of 1"),
        ('{"a": 1}', "a dict"),
        ("no json", "readable"),
        (json.dumps([[1000]] + [[]] * 49_999), "0..999"),
    ],
)
def test_a_file_of_real_is_checked(content, message, tmp_path):
    (tmp_path / "real.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_real(tmp_path / "real.json", ["ILSVRC2012_val_00000001.JPEG"])


@pytest.mark.parametrize("name", ["photo.jpg", "ILSVRC2012_val_00050001.JPEG", "ILSVRC2012_val_00000000.JPEG"])
def test_images_of_real_have_their_names(name, tmp_path):
    with pytest.raises(ValueError, match=re.escape(name)):
        read_real(_real_file(tmp_path / "real.json", []), [name])


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("imagenet_a", 200),
        ("imagenet_r", 200),
        ("imagenet_v2/matched-frequency", 1000),
        ("imagenet_sketch", 1000),
        ("imagenet2012_corrupted/gaussian_noise_1", 1000),
        ("imagenet2012_real", None),
    ],
)
def test_test_sets_of_tfds_are_evaluated_as_they_want(name, classes, imagenet_model, tmp_path, capsys):
    import tensorflow as tf
    import tensorflow_datasets as tfds

    ids, real = subset_classes("imagenet_r" if "_r" in name else "imagenet_a"), [[5, 7], [], [999], [1]]
    images = [tf.io.encode_jpeg(RNG.integers(0, 256, (224, 224, 3), dtype="uint8")).numpy() for _ in range(4)]

    def examples(self, *args, **kwargs):
        features = self.info.features
        label = {"real_label": real} if "real_label" in features else {"label": [ids[i] for i in range(4)]}
        rows = [{"image": images[i], **{key: value[i] for key, value in label.items()}} for i in range(4)]

        def generate():
            yield from rows

        types = {"image": tf.string} | dict.fromkeys(label, tf.int64)
        shapes = {"image": (), **{key: (None,) if key == "real_label" else () for key in label}}
        signature = {key: tf.TensorSpec(shapes[key], types[key]) for key in types}
        dataset = tf.data.Dataset.from_generator(generate, output_signature=signature)
        return dataset.apply(tf.data.experimental.assert_cardinality(4))

    with tfds.testing.mock_data(as_dataset_fn=examples, num_examples=4):
        options = ["--data", name, "--data-dir", tmp_path, "--batch-size", "3"]
        options += [] if name.startswith("imagenet2012") else ["--split", "test"]
        found = _json(capsys, "evaluate", imagenet_model[1], *options)
    if classes is None:
        assert (found["images"], found["left_out"], found["choice"]) == (3, 1, "labels of ReaL")
    else:
        assert (found["images"], len(found["classes"])) == (4, classes)


def test_arrays_may_have_several_labels_an_image(tmp_path, capsys):
    model = tiny_vit(classifier_activation="sigmoid", labels=["ant", "bee", "cat"])
    model.save(tmp_path / "model.keras")
    images = RNG.integers(0, 256, (20, 16, 24, 3), dtype="uint8")
    rows = (RNG.random((20, 3)) < 0.4).astype("int64")
    np.savez(tmp_path / "data.npz", x_test=images, y_test=rows)
    found = _json(capsys, "evaluate", tmp_path / "model.keras", "--arrays", tmp_path / "data.npz")
    assert found["kind"] == "multi-label"
    assert found["mean_average_precision"] == pytest.approx(evaluate(model, (images, rows)).mean_average_precision)
    assert [row["name"] for row in found["classes"]] == ["ant", "bee", "cat"]


def test_a_calibration_is_stored_in_a_run_and_used(pets, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    model = keras_vit.load_model(pets / "run")
    model.save(tmp_path / "run" / "model.keras")
    data = ["--folder", pets / "photos", "--split", "val"]
    before = _json(capsys, "evaluate", tmp_path / "run", *data)
    found = _json(capsys, "calibrate", tmp_path / "run", *data)
    stored = keras_vit.metadata(keras_vit.load_model(tmp_path / "run")).calibration
    assert stored == Calibration(**found["calibration"])
    assert found["after"]["nll"] < found["before"]["nll"] == pytest.approx(before["loss"], rel=1e-5)
    assert _main("evaluate", tmp_path / "run", *data) == 0
    out = capsys.readouterr().out
    assert f"loss {found['after']['nll']:.4f}" in out
    assert f"probabilities are calibrated: temperature {stored.temperature:.4g}" in out
    photo = next((pets / "photos" / "val" / "cat").glob("*.png"))
    assert _main("predict", photo, "--model", tmp_path / "run") == 0
    assert capsys.readouterr().out.startswith("probabilities are calibrated: temperature")
    answer = _json(capsys, "predict", photo, "--model", tmp_path / "run")
    logits = _logits(model, [photo])[0] / stored.temperature
    assert answer[0]["classes"][0]["score"] == pytest.approx(float(np.max(keras.ops.softmax(logits))), abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "{run}", "--folder", "{photos}", "--real", "x.json", "--split", "val"], "classes of ImageNet-1k"),
        (["evaluate", "{run}", "--data", "digits", "--real", "x.json"], "--real needs --folder"),
        (["evaluate", "{run}", "--folder", "{photos}", "--split", "val", "--threshold", "2"], "threshold=2"),
        (["evaluate", "{run}", "--data", "digits"], "must have the classes of the model"),
        (["calibrate", "vit_tiny_patch16_224", "--folder", "{photos}"], "--to FILE.keras"),
        (["calibrate", "{run}", "--folder", "{photos}", "--to", "x.h5"], "--to x.h5"),
        (["calibrate", "{run}", "--folder", "{empty}"], "does not exist"),
    ],
)
def test_what_does_not_fit_is_one_line(arguments, message, pets, capsys):
    places = {"run": pets / "run", "photos": pets / "photos", "empty": pets / "nothing"}
    assert _main(*[argument.format(**places) for argument in arguments]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
