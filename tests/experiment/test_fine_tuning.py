"""Fine-tuning on a folder, arrays and data sets: from the command line to the commands that it prints."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import keras_vit
from keras_vit.experiment.fine_tuning import _weights_in_order
from keras_vit.experiment.fine_tuning_data import load_fine_tuning_data
from keras_vit.models import ViTConfig, build_model
from keras_vit.preprocessing import InputSpec
from keras_vit.training.tasks.linear_head import fit_heads, head_inputs
from keras_vit_cli import main

CONFIG = ViTConfig(image_size=16, patch_size=4, hidden_dim=16, num_layers=2, num_heads=2, mlp_dim=16, num_classes=7)
SPEC = InputSpec(16, 0.9, "bilinear", (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
CLASSES = ("blue", "green", "red")
FAST = ("training.compiler=plain", "training.precision=float32")


def _images(count, seed, side=20):
    """Noise with more of one color: images and labels, class after class."""
    labels = np.repeat(np.arange(3), count)
    images = np.random.default_rng(seed).integers(0, 120, (len(labels), side, side, 3)).astype("uint8")
    for image, label in zip(images, labels, strict=True):
        image[..., 2 - label] += 120
    return images, labels


def _write(folder, count, seed):
    for number, (image, label) in enumerate(zip(*_images(count, seed), strict=True)):
        path = folder / CLASSES[label] / "deeper" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    keras.utils.set_random_seed(0)
    keras_vit.save_pretrained(build_model(CONFIG, SPEC, name="tiny"), folder, license_id="cc-by-nc-4.0")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = _write(tmp_path_factory.mktemp("data") / "colors", 10, seed=0)
    (folder / "blue" / "notes.txt").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def run(weights, folder, tmp_path_factory):
    """A finished run of the command, and what it printed."""
    directory = tmp_path_factory.mktemp("run") / "out"
    arguments = [part for field in FAST for part in ("--set", field)]
    command = [sys.executable, "-m", "keras_vit_cli", "finetune", str(weights), str(folder), "--out", str(directory)]
    result = subprocess.run([*command, "--epochs", "2", *arguments], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert (result.stdout + result.stderr).count("1 file that is no image") == 1
    return directory, result.stdout


def test_the_command_leaves_a_model_that_follows_its_weights(run, weights):
    directory, printed = run
    model = keras_vit.load_model(directory)
    content = keras_vit.metadata(model)
    assert content.config == CONFIG.replace(num_classes=3, drop_path_rate=0.1)
    assert (content.input_spec, content.labels) == (SPEC, CLASSES)
    assert (content.origin, content.license) == (weights.name, "cc-by-nc-4.0")
    assert "cc-by-nc-4.0" in printed
    assert "all: 30 images (blue 10, green 10, red 10)" in printed
    images, labels = _images(4, seed=1)
    predicted = model.predict(np.stack([SPEC.load(image) for image in images]), verbose=0).argmax(-1)
    assert np.mean(predicted == labels) > 0.9


def test_the_report_counts_what_the_model_answers(run):
    directory, _ = run
    report = json.loads((directory / "report.json").read_text())
    assert report["data"] == {"name": "colors", "classes": list(CLASSES), "training_images": 24}
    assert np.sum(report["validation"]["confusion_matrix"]) == report["validation"]["examples"] == 6
    assert len(report["epochs"]) == 2
    assert report["weights"]["license"] == "cc-by-nc-4.0"
    assert str(directory.parent) not in json.dumps(report)
    best = max(report["head"]["validation_accuracy"], *(epoch["val_accuracy"] for epoch in report["epochs"]))
    assert report["validation"]["accuracy"] == pytest.approx(best)
    assert "| blue | 2 |" in (directory / "report.md").read_text()
    for name in ("confusion.png", "curve.png"):
        with Image.open(directory / name) as image:
            assert len(set(image.convert("L").getdata())) > 10


def test_the_printed_commands_work(run, tmp_path, monkeypatch, capsys):
    directory, printed = run
    monkeypatch.chdir(tmp_path)
    commands = [shlex.split(line)[1:] for line in printed.splitlines() if line.startswith("  keras_vit ")]
    assert [command[0] for command in commands] == ["predict", "explain", "export"]
    for command in commands:
        assert main(command) == 0, capsys.readouterr().err
    assert list((directory / "explained").glob("*.png"))
    assert (tmp_path / "saved_models" / "out" / "1" / "saved_model.pb").exists()


@pytest.mark.long
def test_a_killed_run_goes_on_where_it_was(weights, folder, tmp_path):
    """Killed behind an epoch of all layers: neither the head nor that epoch is trained again."""
    arguments = [part for field in FAST for part in ("--set", field)]
    command = [sys.executable, "-m", "keras_vit_cli", "finetune", str(weights), str(folder), "--epochs", "30"]
    command += ["--set", "training.early_stopping=None", "--out", str(tmp_path), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 300
    while not (tmp_path / "log.csv").exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL, "the run ended before it could be killed"
    head = os.stat(tmp_path / "head" / "model.keras").st_mtime_ns
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert os.stat(tmp_path / "head" / "model.keras").st_mtime_ns == head
    record = json.loads((tmp_path / "record.json").read_text())
    assert (record["resumed_from"], record["resumed_step"]) > (0, 0)
    assert len(record["epochs"]) == 30
    # With other data the folder is refused.
    assert main([*command[3:5], str(_write(tmp_path / "other", 4, 2)), *command[6:]]) == 1


@pytest.mark.parametrize("kind", ["arrays", "dataset"])
def test_arrays_and_data_sets_are_taken(kind, weights, tmp_path):
    """With a test set of their own, and floats from 0 to 255 with one-hot labels, as Keras gives them."""
    images, labels = _images(6, seed=0)
    pairs, fields = (images, labels), {"class_names": CLASSES}
    if kind == "dataset":
        one_hot = np.eye(3)[labels]
        pairs = tf.data.Dataset.from_tensor_slices((images.astype("float32"), one_hot)).batch(5)
    model = keras_vit.load_model(weights)
    tuned = keras_vit.fine_tune(
        model, pairs, test=_images(2, seed=3), **fields, head_only=True, directory=tmp_path, log=lambda text: None
    )
    assert tuned.model.output_shape == (None, 3)
    assert keras_vit.metadata(tuned.model).labels == CLASSES
    assert keras_vit.metadata(tuned.model).license == "cc-by-nc-4.0"
    assert (tuned.report["kept"], tuned.report["test"]["examples"], tuned.history) == ("head", 6, [])
    assert tuned.report["test"]["accuracy"] > 0.9


def test_lora_leaves_adapters_and_a_merged_model(weights, tmp_path):
    """Of unbalanced classes, weighed alike."""
    images, labels = _images(9, seed=0)
    kept = np.r_[0:9, 9:14, 18:22]
    lines = []
    tuned = keras_vit.fine_tune(
        str(weights), (images[kept], labels[kept]), class_names=CLASSES, epochs=1, lora=2, class_weights="balanced",
        directory=tmp_path, log=lines.append, overrides=(*FAST, "optimizer.learning_rate=0.001"),
    )  # fmt: skip
    settings = tuned.report["settings"]["optimizer"]
    assert (settings["learning_rate"], settings["layer_decay"]) == (0.001, None)
    assert "class weights: " in " ".join(lines)
    assert tuned.report["settings"]["lora"]["rank"] == 2
    assert not [v for v in tuned.model.variables if "lora" in v.path]
    recipe = json.loads((tmp_path / "record.json").read_text())["config"]
    weight = {name: len(kept) / (3 * count) for name, count in zip(CLASSES, (9, 5, 4), strict=True)}
    assert recipe["lora"]["rank"] == 2
    assert recipe["data"]["class_weights"][0] < recipe["data"]["class_weights"][2] <= 1.5 * weight["red"]
    base = keras.models.load_model(tmp_path / "head" / "model.keras")
    adapted = keras_vit.merge_lora(keras_vit.load_lora(base, tmp_path / "lora.safetensors"))
    saved = keras.models.load_model(tmp_path / "model.keras")
    pixels = keras_vit.metadata(saved).input_spec.normalize(images[:, :16, :16])
    np.testing.assert_allclose(saved.predict(pixels, verbose=0), tuned.model.predict(pixels, verbose=0), atol=1e-5)
    if tuned.report["kept"] != "head":
        np.testing.assert_allclose(adapted.predict(pixels, verbose=0), saved.predict(pixels, verbose=0), atol=1e-4)


@pytest.mark.parametrize(
    "class_weights",
    [(1.0, 2.0, 0.5), np.array([1.0, 2.0, 0.5]), {"red": 0.5, "blue": 1.0, "green": 2.0}, {2: 0.5, 0: 1.0, 1: 2.0}],
)
def test_class_weights_are_in_the_order_of_the_classes(class_weights):
    assert _weights_in_order(class_weights, CLASSES) == [1.0, 2.0, 0.5]


@pytest.mark.parametrize("class_weights", [(1.0, 2.0), {"red": 1.0}, {0: 1.0, 1: 1.0, 3: 1.0}, 2.0])
def test_every_class_has_a_weight(class_weights):
    with pytest.raises(ValueError, match=r"class_weights=.*blue, green, red"):
        _weights_in_order(class_weights, CLASSES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"skip": ["nothing"]}, "^skip= .*'nothing'"),
        ({"new": ["nothing"]}, "^new= .*'nothing'"),
        ({"class_weights": "even"}, "class_weights='even'"),
        ({"lora": 0}, "lora=0"),
        ({"lora": 2, "head_only": True}, "lora=2, head_only=True"),
    ],
)
def test_errors_name_the_arguments_of_the_call(arguments, message, tmp_path):
    model = build_model(CONFIG.replace(num_classes=3), SPEC)
    keras_vit.save_weights(model, tmp_path / "weights.safetensors", "timm")
    with pytest.raises(ValueError, match=message):
        keras_vit.fine_tune(
            tmp_path / "weights.safetensors", _images(4, seed=0), directory=tmp_path / "run", log=lambda text: None,
            overrides=FAST, **arguments,
        )  # fmt: skip


def test_unreadable_images_are_named_and_not_counted(weights, tmp_path, capsys):
    folder = _write(tmp_path / "colors", 6, seed=0)
    broken = folder / "blue" / "deeper" / "!.png"  # the first one
    broken.write_bytes((folder / "blue" / "deeper" / "0.png").read_bytes()[:200])
    command = ["finetune", str(weights), str(folder), "--out", str(tmp_path / "run"), "--head-only"]
    assert main([*command, *(part for field in FAST for part in ("--set", field))]) == 0
    printed, error = capsys.readouterr()
    text = " ".join(printed.split())
    assert "all: 18 images (blue 6, green 6, red 6)" in text
    assert printed.count("1 unreadable image is left out") == 1
    assert "left out" not in error
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["data"]["training_images"] + report["validation"]["examples"] == 18
    assert f"features of {report['data']['training_images']} training" in text
    commands = [line for line in printed.splitlines() if line.startswith("  keras_vit ")]
    assert len(commands) == 3
    assert not any(broken.name in command for command in commands)


def test_a_folder_of_unreadable_images_is_refused(tmp_path):
    for name in CLASSES[:2]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"must be readable\. Received: 2 unreadable images"):
        load_fine_tuning_data(tmp_path)


def test_splits_of_a_folder_are_used(tmp_path):
    for split, count in (("train", 8), ("val", 3), ("test", 2)):
        _write(tmp_path / split, count, seed=count)
    found = load_fine_tuning_data(tmp_path)
    assert (found.config.train_split, found.config.validation_split) == ("train", "validation")
    assert (found.config.validation_fraction, found.test_split, found.side) == (0, "test", 20)
    assert (found.config.batch_size, found.source) == (4, None)
    assert "validation: 9 images" in found.description


def test_the_example_is_readable_and_outside_the_training_split(tmp_path):
    for split, count in (("train", 8), ("val", 3), ("test", 2)):
        _write(tmp_path / split, count, seed=count)
    first, second = sorted((tmp_path / "test" / min(CLASSES)).rglob("*.png"))[:2]
    assert load_fine_tuning_data(tmp_path).example == str(first)
    first.write_bytes(b"no image")
    assert load_fine_tuning_data(tmp_path).example == str(second)


@pytest.mark.parametrize(("count", "batch"), [(4, 1), (50, 8), (200, 32), (2000, 32)])
def test_a_batch_leaves_a_few_steps_in_an_epoch(count, batch):
    images, labels = np.zeros((count, 4, 4, 3), "uint8"), np.arange(count) % 2
    assert load_fine_tuning_data((images, labels)).config.batch_size == batch
    assert load_fine_tuning_data((images, labels), batch_size=3).config.batch_size == 3


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((np.full((4, 8, 8, 3), -1.0), np.arange(4) % 2), r"pixels from 0 to 255.*-1 to -1"),
        ((np.zeros((4, 8, 8, 3), "uint8"), np.zeros(4, int)), "at least 2 classes"),
        ((np.zeros((4, 8, 8, 3), "uint8"), np.arange(3)), "4 images, 3 labels"),
        ((np.zeros((4, 8, 8, 3), "uint8"), np.full(4, 0.5)), "dtype float64"),
        (7, "Received: int"),
    ],
)
def test_data_that_cannot_be_used_is_refused(data, message):
    with pytest.raises(ValueError, match=message):
        load_fine_tuning_data(data)


def test_small_images_are_enlarged_three_times_at_most(weights, folder, tmp_path):
    large = tmp_path / "large"
    keras_vit.save_pretrained(build_model(CONFIG.replace(image_size=96), SPEC.replace(size=96)), large)
    said = []
    tuned = keras_vit.fine_tune(large, folder, head_only=True, directory=tmp_path / "run", log=said.append)
    assert keras_vit.metadata(tuned.model).config.image_size == (60, 60)
    assert any("60 x 60" in line for line in said)
    tuned = keras_vit.fine_tune(
        large, folder, head_only=True, image_size=32, directory=tmp_path / "other", log=said.append
    )
    assert keras_vit.metadata(tuned.model).config.image_size == (32, 32)


def test_an_unknown_model_is_refused_before_anything_is_trained(folder, tmp_path):
    with pytest.raises(ValueError, match=r"Did you mean 'vit_tiny_patch16_224\.augreg_in21k'"):
        keras_vit.fine_tune("vit_tiny_patch16_224.augreg_in21", folder, directory=tmp_path / "run")


@pytest.mark.parametrize("token", [False, True])
def test_heads_learn_what_is_linear_in_their_features(token):
    model = build_model(CONFIG.replace(num_classes=3, distillation_token=token), SPEC)
    generator = np.random.default_rng(0)
    shapes = [output.shape[-1] for output in head_inputs(model).outputs]
    assert len(shapes) == 1 + token
    features = [100 + 5 * generator.normal(size=(200, width)).astype("float32") for width in shapes]
    labels = features[0][:, :3].argmax(-1)
    features = [features[0] for _ in shapes]
    fit_heads(model, features, labels)
    for name, inputs in zip(("head", "head_dist"), features, strict=False):
        answers = keras.ops.convert_to_numpy(model.get_layer(name)(inputs)).argmax(-1)
        assert np.mean(answers == labels) > 0.9
