"""docs/evaluation.md does what it says, on a tiny model."""

import json
import pathlib
import re
import shlex

import numpy as np
import pytest
from PIL import Image
from tiny import tiny_vit

import keras_vit
import keras_vit_cli

ROOT = pathlib.Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "evaluation.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = [line for kind, text in BLOCKS if kind == "console" for line in text.splitlines()]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with what the page takes for granted: models, photos and arrays."""
    rng = np.random.default_rng(0)
    model = tiny_vit(labels=["ant", "bee", "cat"])
    spec, images = keras_vit.metadata(model).input_spec, rng.integers(0, 256, (40, 16, 24, 3), dtype="uint8")
    logits = model.predict(spec.normalize(images), verbose=0)
    model.get_layer("head").bias.assign_sub(logits.mean(axis=0))
    labels = (logits - logits.mean(axis=0)).argmax(axis=1)
    labels[:8] = (labels[:8] + 1) % 3
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = tmp_path / "photos" / ("val", "test")[i % 2] / ["ant", "bee", "cat"][label] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    model.save(tmp_path / "model.keras")
    tags = tiny_vit(classifier_activation="sigmoid", labels=["ant", "bee", "cat"])
    scores = tags.predict(spec.normalize(images), verbose=0)
    rows = (scores > np.median(scores, axis=0)) ^ (rng.random((40, 3)) < 0.2)
    tags.save(tmp_path / "tags.keras")
    splits = {"test": slice(0, 20), "val": slice(20, 40)}
    np.savez(
        tmp_path / "tags.npz",
        **{f"x_{name}": images[part] for name, part in splits.items()},
        **{f"y_{name}": rows[part].astype("int64") for name, part in splits.items()},
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_commands_run(folder, capsys):
    assert len(COMMANDS) > 8
    for command in COMMANDS:
        name, *arguments = shlex.split(command)
        assert name == "keras_vit"
        assert keras_vit_cli.main(arguments) == 0, (command, capsys.readouterr().err)
    names = set(re.findall(r"^\| `([\w.]+)` \|", TEXT, re.MULTILINE))
    assert {path.name for path in (folder / "report").iterdir()} == names
    assert json.loads((folder / "report" / "report.json").read_text())["images"] == 20
    assert keras_vit.metadata(keras_vit.load_model("model.keras")).calibration is not None
    assert len(keras_vit.metadata(keras_vit.load_model("tags.keras")).calibration.bias) == 3


@pytest.mark.slow
def test_the_program_runs(folder, capsys):
    (program,) = [text for kind, text in BLOCKS if kind == "python"]
    exec(compile(program, "evaluation.md", "exec"), {})
    assert (folder / "reliability.png").exists()
    calibration = keras_vit.metadata(keras_vit.load_model("calibrated.keras")).calibration
    assert str(calibration.temperature) in capsys.readouterr().out


def test_the_other_commands_parse():
    rows = re.findall(r"^\| (?:Image|ReaL)[^|]*\|([^|]*)\|([^|]*)\|", TEXT, re.MULTILINE)
    options = [option for row in rows for option in re.findall(r"`(--[^`]+)`", "|".join(row))]
    assert len(options) > 6
    for option in options:
        assert keras_vit_cli._parse(["evaluate", "model.keras", *shlex.split(option)]).model == "model.keras"
