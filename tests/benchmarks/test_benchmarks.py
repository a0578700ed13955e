"""The arithmetic, the tables and the missing packages of the benchmark programs. Nothing here is timed."""

import importlib
import json
import os
import pathlib
import sys

import pytest

import keras_vit
from keras_vit.models import VARIANTS
from keras_vit.weights import catalog_entry

BENCHMARKS = pathlib.Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _programs(monkeypatch):
    """The programs import each other as scripts do, from their own folder."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    names = ("command", "contenders", "flops", "harness", "report", "train_step", "train_loop", "inference", "worker")
    names += ("loading", "loading_report", "input_pipeline", "pipeline_contenders")
    names += ("serving", "serving_report", "serving_contenders", "keras_contenders")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield
    for name in names:
        sys.modules.pop(name, None)


def result(rates, **fields):
    return {"rates": rates, "first_step": 1.25, "memory": 512.0, "parameters": 7, **fields}


def a_task(contenders, config, precision="float32"):
    return contenders.Task("vit_tiny/4, 32 px, batch 2", config.get_config(), 2, precision, training=True)


def a_record(report, rows):
    record = report.make_record("train_step", {"rounds": 2, "threads": None}, "kerashub fit")
    peaks = [{"model": "m", "precision": "float32", "flops_per_second": {"tensorflow": 2e11, "torch": None}}]
    return {**record, "rows": rows, "peaks": peaks}


def test_summary_and_ratio():
    import report

    assert report.summary([4.0, 1.0, 2.0, 3.0, 5.0]) == {
        "images_per_second": 3.0,
        "minimum": 1.0,
        "interquartile_range": 2.0,
    }
    assert report.summary([4.0])["interquartile_range"] == 0
    assert report.paired_ratio([2.0, 30.0, 4.0], [1.0, 10.0, 4.0]) == 2.0
    assert report.paired_ratio([2.0], []) is None


def test_rows_and_table():
    import contenders
    import report
    from flops import step_flops

    config = VARIANTS["vit_tiny_patch16_224"].replace(image_size=32, patch_size=4, num_classes=10)
    results = {
        "keras_vit fit": result([120.0, 100.0]),
        "kerashub fit": result([100.0, 100.0]),
        "timm": {"note": "not installed: timm | torch"},
    }
    peaks = {"tensorflow": 2e11, "torch": 1e11}
    rows = report.rows_of(a_task(contenders, config), config, results, peaks, "kerashub fit")
    assert rows[0]["images_per_second"] == 110.0
    assert rows[0]["gflops"] == pytest.approx(110 * step_flops(config, 1, training=True) / 1e9)
    assert rows[0]["fraction_of_peak"] == pytest.approx(rows[0]["gflops"] / 200)
    assert rows[0]["ratio"] == pytest.approx(1.1)

    table = report.markdown(a_record(report, rows))
    lines = [line for line in table.splitlines() if line.startswith("|")]
    assert "against kerashub fit" in lines[0]
    assert "| keras_vit fit | 110.0 | 100.0 |" in lines[2]
    assert "| 1.10 |" in lines[2]
    assert "not installed: timm \\| torch | - |" in lines[4]
    columns = {line.replace("\\|", "").count("|") for line in lines}
    assert len(columns) == 1
    assert "200 GFLOP/s (tensorflow)" in table


def test_record_is_json_with_what_makes_it_repeatable():
    import report

    record = json.loads(report.to_json(a_record(report, [])))
    assert {"commit", "dirty", "date", "versions", "hardware", "setting", "rows", "peaks"} <= set(record)
    assert record["hardware"]["cores"] >= 1
    assert record["versions"]["keras"]


def test_different_weights_are_told():
    import report

    rows = [
        {"model": "m", "contender": "a", "parameters": 1},
        {"model": "m", "contender": "b", "parameters": 2},
        {"model": "m", "contender": "c", "note": "not installed: c"},
    ]
    assert "differ" in report.unequal_parameters(rows)[0]
    assert report.unequal_parameters(rows[:1]) == []


def test_missing_package_is_a_row(monkeypatch):
    import contenders
    import harness
    import report

    config = VARIANTS["vit_tiny_patch16_224"].replace(image_size=32)
    monkeypatch.setattr(harness, "PEAKS", ())
    absent = contenders.Contender("absent", ("no_such_package_at_all",), "keras_contenders:fit")
    results, peaks = harness.measure([absent], a_task(contenders, config), rounds=2, log=lambda line: None)
    rows = report.rows_of(a_task(contenders, config), config, results, peaks, "kerashub fit")
    assert rows[0]["note"] == "not installed: no_such_package_at_all"
    assert "not installed: no_such_package_at_all" in report.markdown(a_record(report, rows))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise ValueError('cannot\\nbuild')", "ValueError: cannot build"),
        ("import os; os._exit(3)", "ended with code 3"),
        ("return (lambda: calls.append(0) or 1 / (len(calls) < 4)), 0", "ZeroDivisionError: division by zero"),
    ],
    ids=["raises", "dies", "fails_later"],
)
def test_failing_contender_is_a_row(monkeypatch, tmp_path, body, reason):
    import contenders
    import harness

    (tmp_path / "broken.py").write_text(f"calls = []\n\n\ndef fit(task):\n    {body}\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(harness, "PEAKS", ())
    config = VARIANTS["vit_tiny_patch16_224"].replace(image_size=32)
    broken = contenders.Contender("broken", ("json",), "broken:fit")
    task = a_task(contenders, config)
    results, _ = harness.measure([broken], task, rounds=2, seconds=0.001, log=lambda line: None)
    assert results["broken"]["note"].startswith(reason)


def test_command_line_refuses_unknown_names(capsys):
    import command
    from contenders import TRAINING

    defaults = {"model": "vit_tiny", "image_size": 32, "patch_size": 4, "batch": 2}
    for argv, message in (
        (["--contenders", "nobody"], "'nobody'"),
        (["--model", "vit_titan"], "'vit_titan'"),
        (["--precision", "int3"], "'int3'"),
        (["--patch-size", "5"], "multiple of patch_size"),
    ):
        with pytest.raises(SystemExit):
            command.main("train_step", "", TRAINING, "kerashub fit", defaults, argv)
        assert message in capsys.readouterr().err


def test_contenders_import_no_framework():
    """The list of contenders is plain data: names are unique and every factory exists in its file."""
    import contenders

    for group in (contenders.TRAINING, contenders.LOOPS, contenders.INFERENCE):
        assert len({contender.name for contender in group}) == len(group)
        for contender in group:
            module, function = contender.factory.split(":")
            assert f"def {function}(task" in (BENCHMARKS / f"{module}.py").read_text()


def a_loading_record(report, loading_report):
    results = {
        "ours": {"parameters": 7, "memory": 120.0, "seconds": [1.0, 2.0, 3.0]},
        "theirs": {"parameters": 7, "memory": 95.0, "seconds": [3.0, 2.0, 6.0]},
        "absent": {"note": "not installed: a | b", "seconds": []},
    }
    filling = {"bytes": 100 * 2**20, "memory": 125.0, "fill": [0.2, 0.3], "read": [0.1, 0.2], "read_into": [0.05, 0.05]}
    record = report.make_record("loading", {"rounds": 3, "threads": None}, "ours")
    record["rows"] = loading_report.load_rows("vit", 100 * 2**20, results, "ours")
    record["filling"] = [loading_report.fill_row("vit", filling), loading_report.fill_row("big", {"note": "no room"})]
    return json.loads(report.to_json(record))


def test_rows_and_tables_of_loading():
    import loading_report
    import report

    record = a_loading_record(report, loading_report)
    assert [row.get("ratio") for row in record["rows"]] == [1.0, 2.0, None]
    table = loading_report.markdown(record)
    assert "| vit | ours | 2.00 | 1.00 | 1.00 | 1.20 |" in table
    assert "| vit | theirs | 3.00 | 2.00 | 2.00 | 0.95 |" in table
    assert "| vit | absent | not installed: a \\| b |" in table
    assert "| vit | 100 | 0.25 | 1.75 | 5.00 | 1.25 |" in table
    assert "| big | no room |" in table


def test_a_record_of_loading_gets_into_the_readme(monkeypatch, tmp_path):
    import loading_report
    import report

    monkeypatch.syspath_prepend(str(BENCHMARKS.parent / "docs"))
    record = a_loading_record(report, loading_report)
    report.write(report.to_json(record), tmp_path / "loading-x.json")
    text = importlib.import_module("tables").benchmark_table(tmp_path)
    assert "`loading-x.json`" in text
    assert loading_report.tables(record) in text


def test_a_fresh_process_creates_and_loads(tmp_path):
    """The whole way of one contender, with a model of one block."""
    import loading

    name = "vit_tiny_patch16_224"
    files = {"safetensors": str(tmp_path / "tiny.safetensors")}
    keras_vit.save_weights(keras_vit.create_model(name, num_layers=1), files["safetensors"])
    answer = loading.once(loading.LOADING[0], name=name, files=files, watch=False)
    assert answer["seconds"] > 0
    assert answer["parameters"] == catalog_entry("vit_tiny_patch16_224.augreg_in21k_ft_in1k").parameters - 11 * 444_864


def test_contenders_of_loading_exist():
    import loading

    text = (BENCHMARKS / "load_contenders.py").read_text()
    for contender in loading.LOADING:
        assert f"def {contender.options['how']}(name, files)" in text
    for contender in (*loading.LOADING, loading.FILLING, *loading.WRITERS.values()):
        assert f"def {contender.factory.split(':')[1]}(" in text


def test_contenders_of_pipelines_exist():
    import input_pipeline

    text = (BENCHMARKS / "pipeline_contenders.py").read_text()
    for contender in input_pipeline.CONTENDERS:
        assert f"def {contender.factory.split(':')[1]}(task" in text
    for policy in input_pipeline.POLICIES:
        chosen = [c.name for c in input_pipeline.CONTENDERS if input_pipeline.takes_part(c, policy)]
        assert "keras_vit" in chosen
        assert (input_pipeline.BASELINE in chosen) == (not policy.startswith("32 px"))


def test_rows_and_table_of_pipelines():
    import input_pipeline
    import report

    results = {
        input_pipeline.BASELINE: {"rates": [100.0, 200.0, 400.0]},
        "ours": {"rates": [50.0, 150.0, 100.0], "memory": 10.0},
        "absent": {"note": "not installed: a | b"},
    }
    rows = input_pipeline.rows_of("none", results)
    assert [row.get("ratio") for row in rows] == [1.0, 0.5, None]
    record = report.make_record("input_pipeline", {"rounds": 3, "threads": 1}, input_pipeline.BASELINE)
    lines = input_pipeline.markdown({**record, "rows": rows}).splitlines()
    assert "| none | ours | 100 | 50 | 50 | 0.50 |" in lines
    assert r"| none | absent | not installed: a \| b | - | - | - |" in lines


def test_a_pipeline_makes_its_passes(tmp_path):
    import contenders
    import numpy as np
    import pipeline_contenders
    from PIL import Image

    Image.fromarray(np.zeros((40, 50, 3), "uint8")).save(tmp_path / "a.jpg")
    config = {"folder": str(tmp_path), "policy": None, "image_size": 8, "batch": 2}
    task = contenders.Task("none", config, 4, "float32", training=True)
    cores = os.sched_getaffinity(0)
    try:
        step, _ = pipeline_contenders.keras_vit(task)
        step()
        assert len(os.sched_getaffinity(0)) == 1
    finally:
        for thread in os.listdir("/proc/self/task"):
            os.sched_setaffinity(int(thread), cores)
    assert len(pipeline_contenders.photographs(task)) == 4


def test_contenders_of_serving_exist():
    import serving

    text = (BENCHMARKS / "serving_contenders.py").read_text()
    assert set(serving.BASELINES) == {"bytes", "floats"}
    assert set(serving.BASELINES.values()) | set(serving._NEEDS) <= {c.name for c in serving.CONTENDERS}
    for contender in serving.CONTENDERS:
        assert f"def {contender.factory.split(':')[1]}(task" in text
    for contender in (serving.WRITER, serving.HUB_WRITER, serving.SIZES, serving.STAGES, serving.COLD_START):
        assert f"def {contender.factory.split(':')[1]}(" in text


def test_percentiles_are_measured_values():
    import serving_report

    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert [serving_report.percentile(values, share) for share in (0.0, 0.2, 0.5, 0.99)] == [1.0, 1.0, 3.0, 5.0]
    assert serving_report.percentile([float(i) for i in range(1, 1001)], 0.99) == 990.0


def test_rows_and_tables_of_serving():
    import report
    import serving
    import serving_report

    results = {
        serving.BASELINES["bytes"]: {"times": {1: [0.01, 0.03, 0.02], 8: [0.08]}, "memory": 10.0},
        "ours": {"times": {1: [0.005, 0.01, 0.015], 8: [0.16]}, "memory": None},
        "absent": {"note": "not installed: a | b"},
    }
    rows = serving_report.rows_of("vit", "bytes", results, serving.BASELINES["bytes"])
    assert [(row["batch"], round(row["p50"], 9), row["calls"], row["ratio"]) for row in rows[2:4]] == [
        (1, 10.0, 3, pytest.approx(2.0)),
        (8, 160.0, 1, pytest.approx(0.5)),
    ]
    record = report.make_record("serving", {"rounds": 1, "threads": 1}, "x") | {
        "rows": rows,
        "baselines": serving.BASELINES,
        "stages": [
            {"name": "vit", "batch": 8, "total": 10.0, "preparing": 0.9, "decoding": 0.5, "model": 9.0},
            {"name": "swin", "batch": 8, "note": "a | b"},
        ],
        "cold_starts": [
            {"model": "vit", "batch": 1, "warm": False, "load": 5.0, "first": 80.0, "second": 9.0},
            {"model": "vit", "batch": 1, "warm": False, "load": 7.0, "first": 60.0, "second": 7.0},
            {"model": "vit", "batch": 1, "warm": True, "note": "not installed: tensorflow_serving"},
        ],
        "sizes": [{"model": "vit", "parameters": 2**20, "saved_model": 2**23}],
    }
    lines = serving_report.markdown(json.loads(report.to_json(record))).splitlines()
    assert "| vit | ours | 10.0 / 15.0 | 160.0 / 160.0 | 50.0 | 2.00 and 0.50 | - |" in lines
    assert r"| vit | absent | not installed: a \| b |  |  |  |  |" in lines
    assert "| vit | 8 | 10.0 | 0.9 | 0.5 | 9.0 | 10.0% |" in lines
    assert r"| swin | a \| b |  |  |  |  |  |" in lines
    assert "| vit | 1 | no | 6 | - | 70 | 8 |" in lines
    assert "| vit | 1 | yes | not installed: tensorflow_serving | | | |" in lines
    assert "| vit | 4.0 | 8.0 | - | - | - | - |" in lines


def test_a_failing_server_is_a_row(monkeypatch, tmp_path):
    import contenders
    import serving

    (tmp_path / "flaky.py").write_text(
        "def fit(task):\n"
        "    def step(batch=1):\n"
        "        if batch > 1:\n"
        "            raise ValueError('out of room')\n"
        "    return step, 0\n"
        "def works(task):\n"
        "    return lambda batch=1: None, 0\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    task = contenders.Task("m", {}, 2, "float32", training=False)
    chosen = [contenders.Contender(name, ("json",), f"flaky:{how}") for name, how in (("a", "fit"), ("b", "works"))]
    results = serving.measure(chosen, task, [1, 2], {}, rounds=2, seconds=0.001, threads=None)
    assert results["a"] == {"note": "ValueError: out of room"}
    assert {batch: len(times) > 1 for batch, times in results["b"]["times"].items()} == {1: True, 2: True}
