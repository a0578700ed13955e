"""`fit`, `evaluate` and `predict` on logical devices and on real workers are those of one device."""

import keras
import numpy as np
import pytest
from distributed_case import CLASSES, EPOCHS, EXAMPLES, assert_same, batches, pairs
from distributed_fits import mixed
from distributed_runs import run_cases

pytestmark = pytest.mark.long
KINDS = ("one", "cpu:2", "workers:2", "workers:3")
SEVERAL = KINDS[1:]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The results of each case on each kind of device: `{kind: [{case: {name: array}} of each worker]}`."""
    return run_cases("distributed_fits", tmp_path_factory.mktemp("runs"), KINDS)


@pytest.mark.parametrize("case", ["vit", "deit", "swin", "recipe"])
def test_weights_logs_and_logits_are_those_of_one_device(runs, case):
    """After twelve steps, every fourth of which is of a short batch, all numbers agree within 1e-4."""
    one, others = pairs(runs, case, SEVERAL)
    assert len(others) == (3 if case == "recipe" else 6)
    for kind, arrays in others:
        assert_same(one, arrays, kind, but=["files"], adam=case in ("vit", "deit"))


@pytest.mark.parametrize("case", ["vit", "deit", "swin"])
def test_the_cases_are_clipped(runs, case):
    """Otherwise they would not show whether gradients are clipped before they are summed."""
    (worker,) = runs["one"]
    clipped, unclipped = worker[case], worker[f"unclipped_{case}"]
    assert max(np.abs(clipped[name] - unclipped[name]).max() for name in clipped if "kernel" in name) > 1e-3


@pytest.mark.parametrize("case", ["vit", "deit", "swin", "recipe"])
def test_the_cases_learn(runs, case):
    """Otherwise their agreement would prove nothing."""
    one, _ = pairs(runs, case, SEVERAL)
    logs = one["logs of loss"]
    assert len(logs) == EPOCHS
    assert logs[-1] < logs[0]


@pytest.mark.parametrize(("case", "heads"), [("vit", 1), ("deit", 2), ("swin", 1)])
def test_accuracy_and_loss_of_an_evaluation_count_every_example_once(runs, case, heads):
    one, others = pairs(runs, case, SEVERAL)
    assert one["logits"].shape == (EXAMPLES, heads * CLASSES)
    logits = one["logits"].reshape(EXAMPLES, heads, CLASSES).mean(1)
    data = batches() if case == "vit" else mixed(batches())
    targets = np.concatenate([targets for _, targets in data.as_numpy_iterator()])
    right = logits.argmax(1) == targets.argmax(1)
    for _, arrays in [("one", one), *others]:
        assert arrays["logs of val_accuracy"][-1] == pytest.approx(right.mean(), abs=1e-6)


def test_a_recipe_ends_the_same_and_the_chief_alone_leaves_files(runs):
    one, others = pairs(runs, "recipe", SEVERAL)
    assert one["examples"] == 90
    for kind, arrays in others:
        assert arrays["examples"] == 90, kind
    chief, second = (arrays for kind, arrays in others if kind == "workers:2")
    assert set(one["files"]) == set(chief["files"]) >= {"checkpoint.npz", "model.keras", "record.json", "log.csv"}
    assert second["files"].size == 0


@pytest.mark.parametrize("case", ["vit", "deit", "swin"])
def test_the_loss_of_every_step_in_bfloat16(runs, case):
    one, others = pairs(runs, f"bfloat16_{case}", SEVERAL)
    assert one["losses"].shape == (10,)
    assert one["losses"][8] < one["losses"][4] < one["losses"][0]  # of the same batch
    assert len(others) == 3
    for kind, arrays in others:
        np.testing.assert_allclose(arrays["losses"], one["losses"], atol=1e-2, rtol=0, err_msg=kind)


@pytest.mark.parametrize(
    ("case", "message"),
    [("keras_builds", "Attempt to convert a value (PerReplica"), ("keras_reduces", "Invalid reduction dimension")],
)
def test_keras_3_15_fails_on_several_workers(runs, case, message):
    assert len(runs["workers:2"]) == 2
    for worker in runs["workers:2"]:
        error = str(worker[case]["error"])
        assert error, f"Keras {keras.__version__} does without {case}: remove it from distribution/trainer.py"
        assert message in error
