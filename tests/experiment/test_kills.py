"""Runs that are killed at random moments and resumed end like uninterrupted ones."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest

from keras_vit.training.loop.checkpoint import load_checkpoint

RUNS = {
    "one": "one/1/-",
    "one_in_parts": "one_in_parts/1/0:KILL,0:TERM,0:INT,-",
    "two": "two/2/-",
    "two_in_parts": "two_in_parts/2/1:KILL,0:KILL,01:KILL,1:TERM,-",
}
SAVE_STEPS = 2
# With a validation part that chooses the best epoch, and averages that are kept beside.
RECIPE = f'''"""The recipe of the test."""

import dataclasses

from tiny_recipe import RECIPE

recipe = RECIPE.replace(
    data=dataclasses.replace(RECIPE.data, validation_fraction=0.1),
    optimizer=dataclasses.replace(RECIPE.optimizer, ema_evaluate=False),
    training=dataclasses.replace(RECIPE.training, early_stopping=4, save_steps={SAVE_STEPS}),
)
'''
LIMIT = 600  # seconds, for busy machines
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder of the runs; the parts of each run, dicts as `kill_runs` prints them; the output."""
    folder = tmp_path_factory.mktemp("kills")
    (folder / "recipe.py").write_text(RECIPE)
    root = pathlib.Path(__file__).parents[2]
    script = root / "tests" / "helpers" / "kill_runs.py"
    command = [
        sys.executable,
        str(script),
        str(folder / "recipe.py"),
        str(folder),
        *RUNS.values(),
    ]
    (folder / "temporary").mkdir()  # A killed process leaves files there.
    environment = {**os.environ, "TMPDIR": str(folder / "temporary")}
    process = subprocess.Popen(
        command,
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # so that its children can be killed too
    )
    try:
        output, _ = process.communicate(timeout=LIMIT)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    parts = [json.loads(line) for line in output.splitlines() if line.startswith('{"run"')]
    return folder, {name: [part for part in parts if part["run"] == name] for name in RUNS}, output


def _codes(runs, name):
    return [part["codes"] for part in runs[1][name]]


def _assert_same(runs, parts, whole):
    """The final state and the numbers of every epoch are equal; no part goes back or loses too much."""
    folder, results, output = runs
    positions = [tuple(part["position"]) for part in results[parts]]
    assert positions == sorted(positions), output
    assert (0, 0) < positions[-2] < positions[-1] == (4, 0), output
    _assert_resumes_at_checkpoint(results[parts], output)
    first, second = (load_checkpoint(folder / name / "0" / "checkpoint.npz") for name in (parts, whole))
    for a, b in zip(first.values, second.values, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    names = ("loss", "accuracy", "val_loss", "val_accuracy")
    for ours, theirs in zip(first.state["history"], second.state["history"], strict=True):
        assert [ours[name] for name in names] == pytest.approx([theirs[name] for name in names], abs=1e-5)
    first, second = (json.loads((folder / name / "0" / "record.json").read_text()) for name in (parts, whole))
    for name in ("best_epoch", "validation_accuracy", "validation_examples"):
        assert first[name] == second[name]
    assert (folder / parts / "0" / "average.weights.h5").exists()


def _assert_resumes_at_checkpoint(parts, output):
    """Each part resumes at the last checkpoint of the one before, which a kill may leave some steps behind."""
    saved = 0
    for part in parts:
        assert part["first"] == saved, output
        saved = part["saved"]
        if -9 in part["codes"]:
            done = part["started"] - 1
            assert done - SAVE_STEPS <= saved <= part["started"], output
            assert saved > part["first"], output
        else:
            assert saved == part["started"], output


def test_a_run_of_one_worker(runs):
    assert _codes(runs, "one") == [[0]], runs[2]
    assert _codes(runs, "one_in_parts") == [[-9], [75], [130], [0]], runs[2]
    _assert_same(runs, "one_in_parts", "one")


def test_a_run_of_two_workers(runs):
    """A surviving worker stops by itself; a preempted one stops the other too; only the chief has a folder."""
    assert _codes(runs, "two") == [[0, 0]], runs[2]
    assert _codes(runs, "two_in_parts") == [[75, -9], [-9, 75], [-9, -9], [75, 75], [0, 0]], runs[2]
    assert "lost a worker" in runs[2]
    _assert_same(runs, "two_in_parts", "two")
    assert [path.name for path in (runs[0] / "two_in_parts").iterdir()] == ["0"]
