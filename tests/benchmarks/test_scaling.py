"""The teams of the benchmark programs, and the arithmetic of scaling. Nothing here is timed."""

import importlib
import json
import pathlib
import sys

import keras
import pytest

from keras_vit.models import VARIANTS

BENCHMARKS = pathlib.Path(__file__).parents[2] / "benchmarks"
CONFIG = VARIANTS["vit_tiny_patch16_224"]


@pytest.fixture(autouse=True)
def _programs(monkeypatch):
    """The programs import each other as scripts do, from their own folder."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    names = ("command", "contenders", "flops", "harness", "report", "scaling", "scaling_report")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield
    for name in names:
        sys.modules.pop(name, None)


def _result(rates):
    return {"rates": rates, "first_step": 1.25}


def _task(contenders):
    return contenders.Task("vit_tiny/4, 32 px, batch 2", CONFIG.get_config(), 2, "float32", training=True)


def test_the_processes_of_a_team_know_each_other_and_are_as_slow_as_the_slowest(monkeypatch, tmp_path):
    import contenders
    import harness

    (tmp_path / "probe.py").write_text(
        "import json, os, time\n"
        "def make(task):\n"
        "    config = json.loads(os.environ['TF_CONFIG'])\n"
        "    index, workers = config['task']['index'], config['cluster']['worker']\n"
        "    assert len(set(workers)) == 2 and os.environ['TF_GRPC_REUSE_PORT'] == '1'\n"
        "    return (lambda: time.sleep(0.02 * index)), index\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    team = contenders.Contender("team", (), "probe:make", processes=2)
    task = _task(contenders)
    (result,) = harness.take_turns([team], task, 2, 0.1, None, lambda line: None).values()
    assert result["parameters"] == 1
    assert result["best_step"] >= 0.02
    assert len(result["rates"]) == 2
    assert max(result["rates"]) <= task.batch / 0.02


def test_the_bytes_of_a_step_are_those_of_what_is_trained():
    import scaling_report

    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(5, name="head")(keras.layers.Dense(4)(inputs)))
    assert scaling_report.volume(model) == {"parameters": 3 * 4 + 4 + 4 * 5 + 5, "bytes": 4 * 41}
    model.layers[1].trainable = False
    assert scaling_report.volume(model)["bytes"] == 4 * 25


def test_a_projection_follows_from_its_assumptions():
    import scaling_report
    from flops import step_flops

    # Two devices send both halves to each other, one after the other.
    assert scaling_report.ring_seconds(100, 2, bandwidth=10.0, latency=1.0) == 2 * (5 + 1)
    assert scaling_report.ring_seconds(100, 1, 10.0, 1.0) == 0
    flops = step_flops(CONFIG, 8, training=True)
    assumed = {"batch": 8, "flops": flops, "latency": 0.0, "networks": {"slow": 100.0}, "devices": [1, 2]}
    one, two = scaling_report.projections({"m": {"bytes": 100}}, {"m": CONFIG}, assumed)
    assert (one["compute_seconds"], one["step_seconds"], one["efficiency"]) == (1.0, 1.0, 1.0)
    assert (two["step_seconds"], two["efficiency"]) == (2.0, 0.5)


def test_scaling_is_told_against_a_step_without_a_strategy():
    import contenders
    import report
    import scaling
    import scaling_report

    task = _task(contenders)
    names = [name for name, *_ in scaling.KINDS]
    results = {names[0]: _result([10.0, 20.0]), names[2]: _result([8.0, 16.0]), names[3]: {"note": "a | b"}}
    plain, two, failed = scaling_report.measured_rows(task, results, scaling.DEVICES, scaling.BASELINE)
    assert (plain["images_per_second"], plain["efficiency"]) == (15.0, 1.0)
    assert (two["devices"], two["images_per_second"], two["step_ratio"]) == (2, 24.0, 1.25)
    assert two["efficiency"] == pytest.approx(0.8)
    assert "efficiency" not in failed

    arguments = scaling.options().parse_args(["--volumes", "vit_tiny_patch16_224", "--latency", "5e-6"])
    record = report.make_record("scaling", {"rounds": 2, "threads": 1}, scaling.BASELINE)
    volumes, configs = scaling.volumes(["vit_tiny_patch16_224"])
    record |= {"rows": [plain, two, failed], "volumes": volumes, "assumptions": scaling.assumptions(arguments)}
    record["projections"] = scaling_report.projections(volumes, configs, record["assumptions"])
    table = scaling_report.markdown(json.loads(report.to_json(record)))
    assert "| 2 devices, mirrored | 24.0 | 16.0 |" in table
    assert "a \\| b" in table
    assert "| vit_tiny_patch16_224 | 5,717,416 | 23 |" in table
    assert "a message takes 5 us more" in table
    assert table.count("Gbit/s |") == 3


def test_the_page_says_what_the_record_says(monkeypatch, tmp_path):
    import report
    import scaling
    import scaling_report

    monkeypatch.syspath_prepend(str(BENCHMARKS.parent / "docs"))
    page = importlib.import_module("tables")
    path, marker = page.PAGES["scaling"]
    assert f"<!-- {marker} -->" in path.read_text()
    assert page.main(["--check"]) == 0, "run: python docs/tables.py"
    assert "Not measured yet" in page.record_tables(tmp_path / "none.json")
    record = report.make_record("scaling", {"rounds": 2, "threads": 1}, scaling.BASELINE)
    record |= {"rows": [], "volumes": {"m": {"parameters": 1000, "bytes": 4_000_000}}, "projections": []}
    record["assumptions"] = scaling.assumptions(scaling.options().parse_args([]))
    (tmp_path / "scaling.json").write_text(report.to_json(record))
    text = page.record_tables(tmp_path / "scaling.json")
    assert "`scaling`, medians of 2 interleaved rounds" in text
    assert scaling_report.tables(record) in text
    assert "| m | 1,000 | 4 |" in text
