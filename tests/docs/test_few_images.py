"""docs/few_images.md and docs/features.md do what they say, on a tiny model."""

import json
import pathlib
import re
import shlex

import numpy as np
import pytest
from PIL import Image
from tiny import tiny_vit

import keras_vit_cli

DOCS = pathlib.Path(__file__).parents[2] / "docs"


def _blocks(name, kind):
    return re.findall(rf"```{kind}\n(.*?)```", (DOCS / name).read_text(), re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with photos and a model."""
    for i in range(36):
        path = tmp_path / "photos" / ("train" if i % 3 else "test") / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 100, (20, 30, 3)) + 120 * (i % 2)
        Image.fromarray(pixels.astype("uint8")).save(path)
    tiny_vit(labels=["ant", "bee", "cat"]).save(tmp_path / "model.keras")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_commands_run(folder, capsys):
    commands = [line for block in _blocks("few_images.md", "console") for line in block.splitlines()]
    assert len(commands) == 8
    outputs = {}
    for command in commands:
        name, *arguments = shlex.split(command)
        assert name == "keras_vit"
        assert keras_vit_cli.main(arguments) == 0, (command, capsys.readouterr().err)
        outputs[arguments[0]] = capsys.readouterr().out
    # Two classes that differ in brightness.
    assert "top-1 1.0000" in outputs["knn"]
    assert '"accuracy": 1.0' in outputs["probe"]
    assert outputs["predict"].count("a ") + outputs["predict"].count("b ") >= 12
    assert (folder / "similar.png").stat().st_size > 1000
    assert outputs["similar"].count("photos/train/") == 24


def test_json_is_all_of_the_output(folder, capsys):
    model = ["--model", "model.keras"]
    assert keras_vit_cli.main(["embed", "photos/train", *model, "--to", "train.npz"]) == 0
    for command in (
        ["knn", "--train", "train.npz", "--k", "1"],
        ["knn", "--data", "photos", *model, "--k", "1"],
        ["similar", "photos/test", "--in", "train.npz", *model, "--to", "similar.png"],
    ):
        capsys.readouterr()
        assert keras_vit_cli.main([*command, "--json"]) == 0
        json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(("page", "count"), [("few_images.md", 1), ("features.md", 2)])
def test_the_python_runs(page, count, folder, capsys):
    blocks = _blocks(page, "python")
    assert len(blocks) == count
    exec(compile("\n".join(blocks), page, "exec"), {})
    assert capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["knn"], "--data FOLDER --model MODEL, or --train FILE"),
        (["knn", "--data", "photos"], "--data needs --model"),
        (["knn", "--train", "missing.npz"], "missing.npz"),
        (["probe", "--train", "missing.npz", "--save", "x.keras"], "--save needs --model"),
        (["embed", "photos", "--model", "model.keras", "--to", "x.txt"], "x.txt"),
        (["embed", "nothing", "--model", "model.keras", "--to", "x.npz"], "nothing"),
        (["similar", "photos/test", "--in", "missing.npz"], "missing.npz"),
    ],
)
def test_bad_input_is_one_clear_error(arguments, message, folder, capsys):
    assert keras_vit_cli.main(arguments) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert message in lines[-1]
    assert len([line for line in lines if line.startswith("keras_vit ")]) <= 2
