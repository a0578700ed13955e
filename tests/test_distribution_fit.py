"""`fit`, `evaluate` and `predict` on logical devices and on real workers are those of one device."""

import keras
import numpy as np
import pytest

from tests import distributed_fits as fits
from tests.distributed_runs import run_cases

pytestmark = pytest.mark.long
KINDS = ("one", "cpu:2", "workers:2", "workers:3")
SEVERAL = KINDS[1:]
REPLICAS = {"one": 1, "cpu:2": 2, "workers:2": 2, "workers:3": 3}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """What every case gave on every kind of device: `{kind: [a worker's {case: {name: array}}]}`."""
    return run_cases("distributed_fits", tmp_path_factory.mktemp("runs"), KINDS)


def _pairs(runs, case):
    """What a case gave on one device, and every worker of the other kinds."""
    (one,) = (worker[case] for worker in runs["one"])
    return one, [(kind, worker[case]) for kind in SEVERAL for worker in runs[kind] if case in worker]


def _without_keys(name, array):
    """An array without the biases of keys: their true gradient is zero, and Adam divides rounding by itself."""
    return np.delete(array, np.s_[len(array) // 3 : len(array) // 3 * 2]) if name.endswith("qkv/bias") else array


@pytest.mark.parametrize("case", ["vit", "deit", "swin", "recipe", *fits.SMALL])
def test_weights_logs_and_logits_are_those_of_one_device(runs, case):
    """After twelve steps, every fourth of which is of a short batch, all numbers agree within 1e-4."""
    one, others = _pairs(runs, case)
    assert len(others) == (6 if case == "vit" else 3)
    for kind, arrays in others:
        assert arrays.keys() == one.keys()
        for name in set(arrays) - {"files", "logs of replica"}:
            expected, found = (_without_keys(name, x[name]) for x in (one, arrays))
            np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0, err_msg=f"{kind}: {name}")


@pytest.mark.parametrize("case", ["vit", "deit", "swin", "recipe", *fits.SMALL])
def test_the_cases_learn(runs, case):
    """Else they would agree about nothing."""
    one, _ = _pairs(runs, case)
    if case == "own_step":
        logits = one["logits"].astype("float64")
        losses = np.log(np.exp(logits).sum(1)) - (logits * fits.TARGETS).sum(1)
        assert losses.mean() < np.log(fits.CLASSES)
    else:
        logs = one["logs of loss"]
        assert len(logs) == fits.EPOCHS
        assert logs[-1] < logs[0]


def test_accuracy_and_loss_of_an_evaluation_count_every_example_once(runs):
    one, others = _pairs(runs, "vit")
    right = one["logits"].argmax(1) == fits.TARGETS.argmax(1)
    assert one["logits"].shape == (fits.EXAMPLES, fits.CLASSES)
    for _, arrays in [("one", one), *others]:
        assert arrays["logs of val_accuracy"][-1] == pytest.approx(right.mean(), abs=1e-6)


def test_a_recipe_ends_the_same_and_the_chief_alone_leaves_files(runs):
    one, others = _pairs(runs, "recipe")
    assert one["examples"] == 90
    for kind, arrays in others:
        assert arrays["examples"] == 90, kind
    chief, second = (arrays for kind, arrays in others if kind == "workers:2")
    assert set(one["files"]) == set(chief["files"]) >= {"checkpoint.npz", "model.keras", "record.json", "log.csv"}
    assert second["files"].size == 0


def test_the_loss_of_every_step_in_bfloat16(runs):
    one, others = _pairs(runs, "bfloat16")
    assert one["losses"].shape == (10,)
    assert one["losses"][8] < one["losses"][4] < one["losses"][0]  # of the same batch
    for kind, arrays in others:
        np.testing.assert_allclose(arrays["losses"], one["losses"], atol=1e-2, rtol=0, err_msg=kind)


def test_single_batches_go_to_every_replica(runs):
    one, others = _pairs(runs, "on_batch")
    assert len(others) == 3
    for kind, arrays in others:
        for name, expected in one.items():
            np.testing.assert_allclose(arrays[name], expected, atol=1e-6, err_msg=f"{kind}: {name}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sum", "a loss must be reduced by one of"),
        ("weighted", "a loss must be reduced by one of"),
        ("xla", "Received: jit_compile=True"),
        ("outside", "within the scope of its strategy"),
        ("foreign", "keras_vit.distribution.strategy('multi_worker')"),
    ],
)
def test_what_several_replicas_cannot_do_is_refused(runs, name, message):
    kinds = ("workers:2",) if name == "foreign" else ("cpu:2", "workers:2")
    for kind in kinds:
        for worker in runs[kind]:
            assert message in str(worker["refusals"][name])


def test_what_a_step_tells_of_its_own_is_averaged_over_the_replicas(runs):
    for kind in ("one", "cpu:2", "workers:2"):
        (values,) = {tuple(worker["own_step"]["logs of replica"]) for worker in runs[kind]}
        assert values == ((REPLICAS[kind] - 1) / 2,) * fits.EPOCHS


@pytest.mark.parametrize("kind", SEVERAL)
def test_replicas_and_steps_draw_different_masks_at_the_right_rate(runs, kind):
    """The number of a replica is its number among those of all workers."""
    for worker in runs[kind]:
        masks, replicas = worker["masks"]["masks"], worker["masks"]["replicas"]
        assert masks.shape == (fits.DRAWS, REPLICAS[kind], fits.SAMPLES)
        np.testing.assert_array_equal(replicas, [range(REPLICAS[kind])] * fits.DRAWS)
        np.testing.assert_array_equal(masks, runs[kind][0]["masks"]["masks"])
        assert set(np.unique(masks)) == {0.0, np.float32(1 / (1 - fits.RATE))}
        drawn = (masks > 0).reshape(-1, fits.SAMPLES)
        assert len({row.tobytes() for row in drawn}) == len(drawn)
        spread = np.sqrt(fits.RATE * (1 - fits.RATE))
        assert abs(drawn.mean() - (1 - fits.RATE)) < 4 * spread / np.sqrt(drawn.size)
        together = np.corrcoef(drawn) - np.eye(len(drawn))
        assert np.abs(together).max() < 5 / np.sqrt(fits.SAMPLES)


def test_workers_get_disjoint_rows_of_the_same_shuffled_batches(runs):
    """Also where nobody has given the shuffle a seed."""
    for kind in SEVERAL:
        workers = [worker["rows"] for worker in runs[kind]]
        batches = [np.concatenate([rows[f"batch {i}"] for rows in workers]) for i in range(4)]
        assert [len(batch) for batch in batches] == [7, 7, 7, 2]
        assert sorted(np.concatenate(batches)) == list(range(23))
        assert np.concatenate(batches).tolist() != list(range(23))


def _weights_differ(runs, case):
    one, others = _pairs(runs, case)
    return max(np.abs(arrays["kernel"] - one["kernel"]).max() for _, arrays in others)


def _mended(what):
    """The message of a test that fails where Keras has learned something."""
    return f"Keras {keras.__version__} {what}: take that out of keras_vit/distributed_fit.py and ask for this version"


def test_keras_3_15_clips_before_it_sums(runs):
    assert _weights_differ(runs, "keras_clips") > 1e-3, _mended("clips the sum of the gradients")


def test_keras_3_15_weighs_replicas_alike_that_have_different_numbers_of_rows(runs):
    assert _weights_differ(runs, "keras_weighs") > 1e-3, _mended("weighs examples alike")


@pytest.mark.parametrize(
    ("kind", "case", "message"),
    [
        ("cpu:2", "keras_accumulates", "merge_call"),
        ("workers:2", "keras_builds", ""),
        ("workers:2", "keras_reduces", "Invalid reduction dimension"),
    ],
)
def test_keras_3_15_fails(runs, kind, case, message):
    for worker in runs[kind]:
        error = str(worker[case]["error"])
        assert error, _mended(f"does without {case}")
        assert message in error
