"""What is small about training on several devices: optimizers and steps of Keras' own, rows, masks, refusals.

On logical devices and on workers that are processes of their own. Whole models: `test_distribution_fit.py`.
"""

import distributed_small as small
import keras
import numpy as np
import pytest
import tensorflow as tf
from distributed_case import CLASSES, EPOCHS, TARGETS, assert_same, pairs
from distributed_runs import run_cases

pytestmark = pytest.mark.slow
SEVERAL = ("cpu:2", "workers:2", "workers:3")
KINDS = ("one", "cpu:1", "mirrored", *SEVERAL)
REPLICAS = {"one": 1, "cpu:2": 2, "workers:2": 2, "workers:3": 3}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """What every case gave on every kind of device: `{kind: [a worker's {case: {name: array}}]}`."""
    return run_cases("distributed_small", tmp_path_factory.mktemp("runs"), KINDS)


@pytest.mark.parametrize("case", small.SMALL)
def test_weights_logs_and_logits_are_those_of_one_device(runs, case):
    """After twelve steps, every fourth of which is of a short batch, all numbers agree within 1e-4."""
    one, others = pairs(runs, case, SEVERAL)
    assert len(others) == 3
    for kind, arrays in others:
        assert_same(one, arrays, kind, but=["logs of replica"])


def test_a_masked_autoencoder_is_that_of_one_device(runs):
    one, ((kind, arrays),) = pairs(runs, "masked", SEVERAL)
    assert kind == "cpu:2"
    assert_same(one, arrays, kind)
    assert one["losses"][1] < one["losses"][0]
    assert np.isfinite(one["evaluated"])


@pytest.mark.parametrize("case", small.SMALL)
def test_the_cases_learn(runs, case):
    """Else they would agree about nothing."""
    one, _ = pairs(runs, case, SEVERAL)
    logits = one["logits"].astype("float64")
    losses = np.log(np.exp(logits).sum(1)) - (logits * TARGETS).sum(1)
    logs = one.get("logs of loss", [np.log(CLASSES), losses.mean()])
    assert logs[-1] < logs[0]


def test_a_strategy_of_one_device_keeps_xla(runs):
    one, ((kind, arrays),) = pairs(runs, "xla", ["cpu:1"])
    assert_same(one, arrays, kind)
    assert one["logs of val_loss"][-1] < one["logs of val_loss"][0]


def test_it_does_compile_the_steps_of_fit_evaluate_and_predict(runs):
    (worker,) = runs["cpu:1"]
    assert set(worker["uncompiled"]) == {"fit", "evaluate", "predict"}
    for call, error in worker["uncompiled"].items():
        assert "XLA" in str(error), call


def test_mirrored_takes_all_gpus_or_two_logical_cpus(runs):
    (worker,) = runs["mirrored"]
    gpus = len(tf.config.list_physical_devices("GPU"))
    kind = "GPU" if gpus else "CPU"
    names = [str(name).rpartition("device:")[2] for name in worker["devices"]["devices"]]
    assert names == [f"{kind}:{i}" for i in range(gpus or 2)]
    one, ((kind, arrays),) = pairs(runs, "clipnorm", ["mirrored"])
    assert_same(one, arrays, kind, adam=True)


def test_single_batches_go_to_every_replica(runs):
    one, others = pairs(runs, "on_batch", SEVERAL)
    assert len(others) == 3
    for kind, arrays in others:
        for name, expected in one.items():
            np.testing.assert_allclose(arrays[name], expected, atol=1e-6, err_msg=f"{kind}: {name}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sum", "Received: reduction='sum'"),
        ("weighted", "Received: reduction='mean_with_sample_weight'"),
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
        assert values == ((REPLICAS[kind] - 1) / 2,) * EPOCHS


@pytest.mark.parametrize("kind", SEVERAL)
def test_replicas_and_steps_draw_different_masks_at_the_right_rate(runs, kind):
    """The number of a replica is its number among those of all workers."""
    for worker in runs[kind]:
        masks, replicas = worker["masks"]["masks"], worker["masks"]["replicas"]
        assert masks.shape == (small.DRAWS, REPLICAS[kind], small.SAMPLES)
        np.testing.assert_array_equal(replicas, [range(REPLICAS[kind])] * small.DRAWS)
        np.testing.assert_array_equal(masks, runs[kind][0]["masks"]["masks"])
        assert set(np.unique(masks)) == {0.0, np.float32(1 / (1 - small.RATE))}
        drawn = (masks > 0).reshape(-1, small.SAMPLES)
        assert len({row.tobytes() for row in drawn}) == len(drawn)
        spread = np.sqrt(small.RATE * (1 - small.RATE))
        assert abs(drawn.mean() - (1 - small.RATE)) < 4 * spread / np.sqrt(drawn.size)
        together = np.corrcoef(drawn) - np.eye(len(drawn))
        assert np.abs(together).max() < 5 / np.sqrt(small.SAMPLES)


def test_workers_get_disjoint_rows_of_the_same_shuffled_batches(runs):
    """Also where nobody has given the shuffle a seed."""
    for kind in SEVERAL:
        workers = [worker["rows"] for worker in runs[kind]]
        batches = [np.concatenate([rows[f"batch {i}"] for rows in workers]) for i in range(4)]
        assert [len(batch) for batch in batches] == [7, 7, 7, 2]
        assert sorted(np.concatenate(batches)) == list(range(23))
        assert np.concatenate(batches).tolist() != list(range(23))


def test_by_files_every_row_of_a_data_set_goes_to_one_worker_with_its_file(runs):
    """TensorFlow's own way, of a data set whose files have different numbers of rows."""
    workers = [worker["by_file"] for worker in runs["workers:2"]]
    numbers = [np.concatenate(list(batches.values())).tolist() for batches in workers]
    assert sorted(numbers[0] + numbers[1]) == [10 * i + j for i in range(small.FILES) for j in range(i + 1)]
    first, second = ({number // 10 for number in own} for own in numbers)
    assert first | second == set(range(small.FILES))
    assert not first & second
    assert len(first) in (2, 3)
    assert {len(rows) for batches in workers for rows in batches.values()} <= {0, 1, 2}


def test_off_gives_every_worker_all_rows_of_its_data_set(runs):
    for worker in runs["workers:2"]:
        batches = list(worker["by_off"].values())
        assert np.concatenate(batches).tolist() == [10 * i + j for i in range(small.FILES) for j in range(i + 1)]
        assert len(batches[0]) == 2  # of a batch of 4, half


def _weights_differ(runs, case):
    one, others = pairs(runs, case, SEVERAL)
    return max(np.abs(arrays["kernel"] - one["kernel"]).max() for _, arrays in others)


def _mended(what):
    """The message of a test that fails where Keras has learned something."""
    return f"Keras {keras.__version__} {what}: remove it from distribution/trainer.py and ask for this version"


def test_keras_3_15_clips_before_it_sums(runs):
    assert _weights_differ(runs, "keras_clips") > 1e-3, _mended("clips the sum of the gradients")


def test_keras_3_15_weighs_replicas_alike_that_have_different_numbers_of_rows(runs):
    assert _weights_differ(runs, "keras_weighs") > 1e-3, _mended("weighs examples alike")


def test_keras_3_15_predicts_the_rows_of_a_single_batch_as_often_as_there_are_replicas(runs):
    (worker,) = runs["cpu:2"]
    assert worker["keras_repeats"]["times"] == 2, _mended("predicts every row once")


def test_keras_3_15_leaves_the_loss_of_no_rows_unreduced():
    loss = keras.losses.CategoricalCrossentropy()(tf.zeros((0, 3)), tf.zeros((0, 3)))
    assert loss.shape == (0,), _mended("reduces the loss of no rows")


def test_keras_3_15_fails_where_gradients_are_accumulated(runs):
    (worker,) = runs["cpu:2"]
    error = str(worker["keras_accumulates"]["error"])
    assert error, _mended("accumulates gradients")
    assert "merge_call" in error


def test_keras_3_15_fails_where_xla_is_to_compile_the_step_of_several_replicas(runs):
    (worker,) = runs["cpu:2"]
    error = str(worker["keras_compiles"]["error"])
    assert error, _mended("compiles steps of several replicas by XLA")
    assert "variable_on_a_different_device" in error  # A program of XLA has one.
