"""docs/fine_tuning.md does what it says, on a tiny model."""

import pathlib
import re
import shlex

import numpy as np
import pytest
from PIL import Image
from tiny import tiny_vit

import keras_vit_cli

TEXT = (pathlib.Path(__file__).parents[2] / "docs" / "fine_tuning.md").read_text()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for i in range(30):
        path = tmp_path / "photos" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 100, (20, 30, 3)) + 120 * (i % 2)
        Image.fromarray(pixels.astype("uint8")).save(path)
    tiny_vit().save(tmp_path / "model.keras")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_commands_run(folder, capsys):
    commands = re.findall(r"^keras_vit (.*)$", TEXT, re.MULTILINE)
    assert len(commands) == 1
    for options in ("", "--probe --class-weights balanced --overwrite"):
        assert keras_vit_cli.main([*shlex.split(commands[0]), *options.split()]) == 0, capsys.readouterr().err
    assert (folder / "runs" / "photos" / "model.keras").exists()


def test_the_python_runs(folder):
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) == 3
    exec(compile("\n".join(blocks), "fine_tuning.md", "exec"), {})
    assert {"merged.keras", "tuned.keras", "adapters.safetensors"} <= {path.name for path in folder.iterdir()}
