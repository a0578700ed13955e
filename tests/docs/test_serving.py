"""docs/serving.md does what it says: its commands parse, its programs run, its tables are those of the code."""

import importlib
import json
import pathlib
import re
import shlex
import subprocess

import pytest
from google.protobuf import text_format
from rest_json import read_request
from served_model import picture, write_model
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig
from tf_serving import ServedModel, grpc_server, rest_server

import keras_vit_cli
from keras_vit.export.servable.signature_defs import signature_defs
from keras_vit.export.server.files import FILES, server_flags

ROOT = pathlib.Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "serving.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture
def page(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    return importlib.import_module("tables")


def test_the_page_says_what_the_record_says(page):
    path, marker = page.PAGES["serving"]
    assert path.read_text() == TEXT
    assert f"<!-- {marker} -->" in TEXT
    assert page.main(["--check"]) == 0, "run: python docs/tables.py"


def test_its_words_about_the_tables_are_the_record_s():
    record = json.loads((ROOT / "benchmarks" / "results" / "serving.json").read_text())
    text = re.sub(r"\s+", " ", TEXT.partition("How to read the tables below")[2].partition("<!-- latency -->")[0])
    assert record["commit"].startswith(re.search("commit ([0-9a-f]+)", text)[1])
    rows = {(r["model"], r["kind"], r["contender"]): r for r in record["rows"] if r.get("batch") == 8}
    names = dict.fromkeys(model for model, _, _ in rows)
    ours = {(name, kind): rows[name, kind, "keras_vit SavedModel"] for name in names for kind in ("bytes", "floats")}
    found = []
    for contender in ("keras_vit called", "keras_vit predict_on_batch"):
        others = [rows[name, "floats", contender] for name in names]
        ratios = [
            ours[name, "floats"]["images_per_second"] / row["images_per_second"]
            for name, row in zip(names, others, strict=True)
        ]
        found += [f"{least:.2f}" for least in (min(ratios), max(ratios))]
    assert re.findall(r"(\d\.\d\d) \(", text) == found
    stage = next(row for row in record["stages"] if row["name"] == "vit_small_patch16_224")
    share = f"{stage['preparing']:.1f} ms beside the {stage['model']:.1f} ms of ViT-S at batch 8"
    assert f"{share}, {100 * stage['preparing'] / stage['model']:.1f} %" in text
    assert f"bare decoding is {stage['decoding']:.1f} ms" in text
    assert f"the same bytes in {stage['total']:.1f} ms" in text
    bytes_, floats = (ours["vit_small_patch16_224", kind] for kind in ("bytes", "floats"))
    assert f"{bytes_['p50']:.1f} - {floats['p50']:.1f} ms" in text
    assert f"medians of {bytes_['calls']} and {floats['calls']} calls" in text
    apart = {name: f"{ours[name, 'bytes']['p50'] - ours[name, 'floats']['p50']:.0f}" for name in names}
    small = apart.pop("vit_small_patch16_224")
    assert f"which is {small} ms, but {', '.join([*apart.values()][:2])} and {[*apart.values()][2]} ms" in text
    stages = [row["preparing"] for row in record["stages"]]
    assert f"takes {min(stages):.0f} to {max(stages):.0f} ms for each" in text


def test_a_record_would_be_read(page, tmp_path):
    assert "Not measured yet" in page.record_tables(tmp_path / "missing.json")
    record = tmp_path / "record.json"
    record.write_text(json.dumps({"benchmark": "no benchmark"}))
    with pytest.raises(KeyError, match="no benchmark"):
        page.record_tables(record)


def test_its_commands_are_commands():
    lines = [line for _, block in BLOCKS for line in block.splitlines() if line.startswith("keras_vit ")]
    commands = [keras_vit_cli._parser().parse_args(shlex.split(line)[1:]).command for line in lines]
    assert commands == ["export", "predict", "export", "export", "check", "publish", "rollback"]


def test_it_shows_every_option_of_an_export():
    shown = {name for row in TEXT.splitlines() if row.startswith("| `--") for name in re.findall(r"`(--[\w-]+)", row)}
    options = keras_vit_cli._parser()._subparsers._group_actions[0].choices["export"]._actions
    flags = {flag for action in options for flag in action.option_strings if flag.startswith("--")}
    # The last two are for LiteRT: docs/runtimes.md.
    assert flags - shown == {"--help", "--to", "--format", "--quantize", "--images"}


def test_its_program_runs(tmp_path, monkeypatch, capsys):
    (program,) = [block for language, block in BLOCKS if language == "python"]
    write_model(tmp_path / "models" / "1")
    model = ServedModel(tmp_path / "models", "flowers")
    model.labels = {"stable": 1}
    (tmp_path / "rose.jpg").write_bytes(picture("red", "JPEG"))
    (tmp_path / "tulip.png").write_bytes(b"no image")
    monkeypatch.chdir(tmp_path)
    with rest_server(model) as rest, grpc_server(model) as rpc:
        exec(program.replace("localhost:8501", rest).replace("localhost:8500", rpc), {})
    first, second, third = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"\('red', 0\.9\d+\)", first)
    assert second == "no image"
    assert third.startswith("['red' ")


def test_its_curl_sends_a_request(tmp_path, monkeypatch):
    (shell,) = [block for _, block in BLOCKS if "base64" in block]
    data = picture("red", "JPEG", (60, 40))
    (tmp_path / "rose.jpg").write_bytes(data)
    made = subprocess.run(["bash", "-c", shell.split("|")[0]], cwd=tmp_path, capture_output=True, text=True, check=True)
    name, inputs, _ = read_request(made.stdout, signature_defs(write_model(tmp_path / "1")))
    assert name == "serving_default"
    assert inputs["image_bytes"].tolist() == [data]


def test_it_names_the_files_and_flags_that_there_are():
    flags = {flag.split("=")[0] for flag in server_flags("/models/m", (1, 8), 2)}
    rows = [line for line in TEXT.partition("## Server flags")[2].splitlines() if line.startswith("| `--")]
    assert {name for row in rows for name in re.findall(r"`(--\w+)`", row.split("|")[1])} == flags
    assert all(f"`{file}`" in TEXT for file in FILES)


def test_its_canary_is_a_config():
    (text,) = [block for _, block in BLOCKS if block.startswith("model_version_policy")]
    config = text_format.Parse(text, ModelConfig())
    assert list(config.model_version_policy.specific.versions) == [4, 5]
    assert dict(config.version_labels) == {"stable": 4, "canary": 5}
