"""The arithmetic, the tables and the missing packages of the benchmark programs. Nothing here is timed."""

import importlib
import json
import pathlib
import sys

import pytest

import keras_vit
from keras_vit.models import VARIANTS, ViTConfig
from keras_vit.weights import catalog_entry

BENCHMARKS = pathlib.Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def _programs(monkeypatch):
    """The programs import each other as scripts do, from their own folder."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    names = ("command", "contenders", "flops", "harness", "report", "train_step", "inference", "worker")
    names += ("loading", "loading_report")
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


def test_flops_of_vit_base_are_the_sum_of_its_matrix_products():
    from flops import step_flops, vit_flops

    config = VARIANTS["vit_base_patch16_224"]
    block = 4 * 197 * 768**2 + 2 * 197**2 * 768 + 2 * 197 * 768 * 3072
    multiply_adds = 196 * (16 * 16 * 3) * 768 + 12 * block + 768 * 1000
    assert multiply_adds == 17_563_828_224
    assert vit_flops(config) == 2 * multiply_adds == 35_127_656_448
    assert step_flops(config, 8, training=False) == 8 * vit_flops(config)
    assert step_flops(config, 8, training=True) == 24 * vit_flops(config)


@pytest.mark.parametrize(
    ("name", "image_size", "published"),
    [
        ("vit_base_patch16_224", 224, 17.564),
        ("vit_base_patch32_224", 224, 4.409),
        ("vit_large_patch16_224", 224, 61.555),
        ("vit_large_patch32_224", 224, 15.378),
        ("vit_huge_patch14_224", 518, 1016.717),
    ],
)
def test_flops_equal_those_published_by_torchvision(name, image_size, published):
    """Billions of multiply-adds, `_ops` of the weights in torchvision's `models/vision_transformer.py`."""
    from flops import vit_flops

    assert vit_flops(VARIANTS[name].replace(image_size=image_size)) / 2e9 == pytest.approx(published, abs=6e-4)


def test_flops_count_registers_and_the_gate():
    from flops import vit_flops

    shape = {"image_size": 8, "patch_size": 4, "hidden_dim": 8, "num_layers": 1, "num_heads": 2, "mlp_dim": 16}
    config = ViTConfig(**shape, num_classes=0, class_token=False, pooling="gap")
    assert vit_flops(config) == 2 * (4 * 48 * 8 + 4 * 4 * 64 + 2 * 16 * 8 + 2 * 4 * 8 * 16)
    assert vit_flops(config.replace(activation="swiglu")) - vit_flops(config) == 2 * 4 * 8 * 16
    assert vit_flops(config.replace(num_registers=2)) > vit_flops(config)


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

    for group in (contenders.TRAINING, contenders.INFERENCE):
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
