"""`keras_vit info`, `doctor` and `list --json`: what is known, in words and as JSON."""

import json

import keras
import pytest
from tiny import tiny_vit

import keras_vit
import keras_vit_cli
from keras_vit.calibration import Calibration
from keras_vit.export import saved_model
from keras_vit.models.flops import forward_flops
from keras_vit.weights import catalog_entry


def _json(capsys, *arguments):
    assert keras_vit_cli.main([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_published_name_is_described_without_downloading(capsys):
    name = "deit_tiny_patch16_224.fb_in1k"
    found, entry = _json(capsys, "info", name), catalog_entry(name)
    assert found["parameters"] == entry.parameters
    assert found["flops"] == forward_flops(entry.config())
    assert (found["license"], found["paper"], found["source"]) == (entry.license, entry.paper, entry.source)
    assert found["bytes"]["float32"] == entry.size
    assert len(found["labels"]) == 1000
    assert keras_vit_cli.main(["info", name]) == 0
    assert f"parameters: {entry.parameters:,}" in capsys.readouterr().out.splitlines()


def test_an_architecture_is_described(capsys):
    found = _json(capsys, "info", "swin_tiny_patch4_window7_224")
    assert found["parameters"] == keras_vit.create_model("swin_tiny_patch4_window7_224").count_params()
    assert (found["origin"], found["license"], found["labels"]) == (None, None, None)


@pytest.mark.parametrize("kind", ["file", "run", "checkpoint", "saved_model"])
def test_files_are_described(kind, tmp_path, capsys):
    model = tiny_vit(labels=["ant", "bee", "cat"])
    keras_vit.update_metadata(model, calibration=Calibration(1.5, "softmax", 3))
    model.save(tmp_path / "model.keras")
    keras_vit.save_weights(model, tmp_path / "model.safetensors")
    path = {"file": "model.keras", "run": "", "checkpoint": "model.safetensors", "saved_model": "served"}[kind]
    if kind == "saved_model":
        saved_model(model, tmp_path / "served", batch_sizes=())
    found = _json(capsys, "info", tmp_path / path)
    assert found["parameters"] == model.count_params()
    assert found["labels"] == ["ant", "bee", "cat"]
    assert found["config"] == json.loads(json.dumps(keras_vit.metadata(model).config.get_config()))
    if kind != "checkpoint":
        assert found["calibration"]["temperature"] == 1.5
    assert keras_vit_cli.main(["info", str(tmp_path / path)]) == 0
    assert "classes: 3, ant, bee, cat" in capsys.readouterr().out


def test_an_unknown_name_is_one_line(capsys):
    assert keras_vit_cli.main(["info", "deit_tini_patch16_224.fb_in1k"]) == 1
    error = capsys.readouterr().err
    assert "Did you mean 'deit_tiny_patch16_224.fb_in1k'" in error
    assert len(error.splitlines()) == 1


def test_doctor_says_what_a_report_needs(capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_TOKEN", "a secret")
    monkeypatch.setenv("TF_SOMETHING", "a value")
    found = _json(capsys, "doctor")
    assert found["packages"]["keras"] == keras.__version__
    assert found["training"]["precision"] in ("float32", "mixed_bfloat16")
    assert set(found["probe"]) == {"float32", "bfloat16", "float32 with XLA"}
    assert all(speed.endswith("GFLOP/s") for speed in found["probe"].values())
    assert found["environment"]["TF_SOMETHING"] == "a value"
    assert "a secret" not in json.dumps(found)
    assert keras_vit_cli.main(["doctor"]) == 0
    assert f"  keras: {keras.__version__}" in capsys.readouterr().out.splitlines()


def test_names_are_listed_as_json(capsys):
    rows = _json(capsys, "list", "vit_tiny*")
    assert [row["name"] for row in rows] == keras_vit.list_models("vit_tiny*")
    assert rows[0]["family"] == "ViTConfig"
    published = _json(capsys, "list", "deit_tiny*", "--pretrained")
    assert [row["name"] for row in published] == keras_vit.list_models("deit_tiny*", pretrained=True)
    assert published[0]["license"] == catalog_entry(published[0]["name"]).license
    assert all(row["summary"] for row in _json(capsys, "list", "--recipes"))
