"""An interrupted run resumes at the step where it was saved and ends like an uninterrupted one."""

import concurrent.futures
import dataclasses
import errno
import os
import signal
import time

import keras
import numpy as np
import pytest
from tiny_recipe import RECIPE

from keras_vit.config import DistillationConfig, LoraConfig, OptimizerConfig
from keras_vit.experiment import runner as experiment
from keras_vit.training.loop.checkpoint import Checkpoint, load_checkpoint, previous_path
from keras_vit.training.loop.checkpoint_callback import CheckpointCallback
from keras_vit.training.loop.preemption import Preempted, StopRequest
from keras_vit.training.loop.run_lock import locked

STEPS = 8  # in an epoch
# Everything that has a state: averages, accumulated gradients, a teacher, a selection of the best epoch.
EVERYTHING = RECIPE.replace(
    name="everything",
    model=RECIPE.model.replace(distillation_token=True),
    data=dataclasses.replace(RECIPE.data, validation_fraction=0.1),
    optimizer=dataclasses.replace(RECIPE.optimizer, gradient_accumulation_steps=2),
    training=dataclasses.replace(RECIPE.training, early_stopping=4),
    distillation=DistillationConfig(teacher=None),
)


def _run(directory, recipe=RECIPE, **arguments):
    return experiment.run(recipe, directory, log=lambda text: None, **arguments)


def _weights(model):
    return [keras.ops.convert_to_numpy(v) for v in model.weights]


def _assert_same(finished, whole):
    """The same weights, and the same numbers of every epoch."""
    for a, b in zip(_weights(finished.model), _weights(whole.model), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)  # Equal, where products are summed in one order.
    assert len(finished.record["epochs"]) == len(whole.record["epochs"])
    for ours, theirs in zip(finished.record["epochs"], whole.record["epochs"], strict=True):
        assert 0 < ours["wall_seconds"] <= finished.record["wall_seconds"]
        expected = {name: value for name, value in theirs.items() if name != "wall_seconds"}
        assert {name: ours[name] for name in expected} == pytest.approx(expected, abs=1e-5)


class _At(keras.callbacks.Callback):
    """Calls an action once, after a step or before a batch of a validation."""

    def __init__(self, action, step=None, validation=None):
        super().__init__()
        self.action, self.step, self.validation = action, step, validation
        self.validations = 0

    def on_train_batch_end(self, batch, logs=None):
        if self.model.optimizer._iterations.numpy() == self.step:
            self.action()

    def on_test_batch_begin(self, batch, logs=None):
        self.validations += 1
        if self.validations == self.validation:
            self.action()


@pytest.fixture
def at(monkeypatch):
    """Makes every `fit` of the test call an action at a step, before the callbacks of the library, like a signal."""
    original = keras.Model.fit

    def install(action, **where):
        callback = _At(action, **where)

        def fit(self, *arguments, **options):
            return original(self, *arguments, **{**options, "callbacks": [callback, *options["callbacks"]]})

        monkeypatch.setattr(keras.Model, "fit", fit)

    yield install
    monkeypatch.undo()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return _run(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    return _run(tmp_path_factory.mktemp("everything"), EVERYTHING)


def _signal(number):
    return lambda: os.kill(os.getpid(), number)


def _raise():
    raise KeyboardInterrupt


def _full(descriptor):
    raise OSError(errno.ENOSPC, "No space left on device")


def _position(directory):
    state = load_checkpoint(directory / "checkpoint.npz").state
    return state["epoch"], state["step"]


@pytest.mark.long
def test_signals_wait_for_the_end_of_the_step_and_errors_cost_the_steps_since_the_last_save(
    uninterrupted, tmp_path, at, monkeypatch
):
    """One run in seven parts. The frequency of saves may change from one to the next."""
    rarely, often = (dataclasses.replace(RECIPE.training, save_steps=n, save_minutes=None) for n in (None, 3))
    fsync = os.fsync
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    for action, step, error, training, saved in (
        (_signal(signal.SIGTERM), 3, Preempted, rarely, (0, 3)),
        (_raise, 6, KeyboardInterrupt, rarely, (0, 3)),
        (_raise, 2 * STEPS + 5, KeyboardInterrupt, often, (2, 3)),
        (_signal(signal.SIGINT), 3 * STEPS - 1, KeyboardInterrupt, rarely, (2, STEPS - 1)),
        (lambda: monkeypatch.setattr(os, "fsync", _full), 3 * STEPS + 1, OSError, rarely, (3, 0)),
        (_signal(signal.SIGTERM), 4 * STEPS, Preempted, rarely, (4, 0)),
    ):
        monkeypatch.setattr(os, "fsync", fsync)
        at(action, step=step)
        with pytest.raises(error):
            _run(tmp_path, RECIPE.replace(training=training))
        assert _position(tmp_path) == saved
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    at(_raise, step=None)
    finished = _run(tmp_path)
    assert (finished.record["resumed_from"], finished.record["resumed_step"]) == (4, 0)
    assert finished.record["process_seconds"] is None
    _assert_same(finished, uninterrupted)


class _Disk:
    """Replaces a `CheckpointWriter`; records the positions."""

    def __init__(self):
        self.positions = []

    def write(self, values, state, metrics=()):
        self.positions.append((state["epoch"], state["step"]))


@pytest.mark.parametrize(
    ("every", "busy_until", "saved"),
    [
        ((None, None), 0, []),
        ((4, None), 0, [4, 8]),
        ((None, 1.5), 0, [3, 6, 9]),
        ((2, 1.5), 0, [2, 4, 6, 8]),
        ((2, 1.5), 5, [5, 7, 9]),
    ],
)
def test_steps_and_minutes_count_from_the_last_save_and_no_step_waits_for_the_disk(
    monkeypatch, every, busy_until, saved
):
    """Ten steps of half a minute each, then the end of the epoch."""
    seconds, disk = [0.0], _Disk()
    monkeypatch.setattr(time, "perf_counter", lambda: seconds[0])
    new = Checkpoint({"epoch": 0, "step": 0, "history": [], "seconds": 0.0, "code": []})
    saver = CheckpointCallback(disk, new, 10, StopRequest(), save_every=every)
    disk.is_busy = lambda: saver.position[1] < busy_until
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.stop_training = False
    saver.set_model(model)
    saver.on_epoch_begin(0)
    for batch in range(10):
        seconds[0] += 30
        saver.on_train_batch_end(batch)
    saver.on_epoch_end(0, {"loss": 1.0})
    assert disk.positions == [*((0, step) for step in saved), (1, 0)]
    assert saver.history == [{"loss": 1.0, "wall_seconds": 300.0}]


def test_everything_with_a_state_resumes(everything, tmp_path, at):
    """Within an epoch, between two updates, and within a validation."""
    for where, saved in (({"step": STEPS + 5}, (1, 5)), ({"validation": 2}, (2, STEPS))):
        at(_signal(signal.SIGTERM), **where)
        with pytest.raises(Preempted):
            _run(tmp_path, EVERYTHING)
        assert _position(tmp_path) == saved
    at(_raise, step=None)
    _assert_same(_run(tmp_path, EVERYTHING), everything)


def test_adapters_resume(tmp_path, at):
    recipe = EVERYTHING.replace(
        name="lora", model=RECIPE.model, distillation=None, lora=LoraConfig(rank=2, alpha=4),
        training=dataclasses.replace(EVERYTHING.training, epochs=2),
    )  # fmt: skip
    whole = _run(tmp_path / "whole", recipe)
    at(_signal(signal.SIGTERM), step=STEPS + 3)
    with pytest.raises(Preempted):
        _run(tmp_path / "resumed", recipe)
    at(_raise, step=None)
    finished = _run(tmp_path / "resumed", recipe)
    assert (finished.record["resumed_from"], finished.record["resumed_step"]) == (1, 3)
    _assert_same(finished, whole)


def test_a_finished_run_is_not_trained_again(uninterrupted):
    again = _run(uninterrupted.directory)
    assert again.record["resumed_from"] == 4
    _assert_same(again, uninterrupted)
    assert again.evaluation["accuracy"] == uninterrupted.evaluation["accuracy"]


def test_another_recipe_is_refused_with_the_difference(uninterrupted):
    other = RECIPE.replace(optimizer=OptimizerConfig(learning_rate=5e-4))
    with pytest.raises(ValueError, match=r"optimizer.learning_rate: was 0.001, is 0.0005"):
        _run(uninterrupted.directory, other)


def test_a_damaged_checkpoint_is_replaced_by_the_previous_one(tmp_path, at):
    at(_signal(signal.SIGTERM), step=STEPS + 1)
    with pytest.raises(Preempted):
        _run(tmp_path)
    path = tmp_path / "checkpoint.npz"
    path.write_bytes(path.read_bytes()[:-1])
    at(_raise, step=STEPS + 1)
    message = r"checkpoint.npz', whose checksum.* epoch 1: '.*checkpoint.previous.npz'"
    with pytest.warns(UserWarning, match=message), pytest.raises(KeyboardInterrupt):
        _run(tmp_path)
    assert _position(tmp_path) == (1, 0)
    assert not previous_path(path).exists()


def test_a_run_with_damaged_checkpoints_does_not_start_over(tmp_path):
    for name, message in (
        (
            "checkpoint.npz",
            r"Received: .*checkpoint.npz.*--overwrite",
        ),
        ("checkpoint.previous.npz", r"checkpoint.npz'.*checkpoint.previous.npz'.*--overwrite"),
    ):
        (tmp_path / name).write_bytes(b"PK\x03\x04 cut short")
        with pytest.raises(ValueError, match=message):
            _run(tmp_path)


def test_a_run_in_a_directory_that_is_in_use_is_refused_and_removes_nothing(tmp_path):
    (tmp_path / "checkpoint.npz").write_bytes(b"rubbish")
    with concurrent.futures.ThreadPoolExecutor(1) as pool, locked(tmp_path):
        for overwrite in (False, True):
            with pytest.raises(ValueError, match=f"Received: .*process {os.getpid()} on"):
                pool.submit(_run, tmp_path, overwrite=overwrite).result()
    assert (tmp_path / "checkpoint.npz").read_bytes() == b"rubbish"


@pytest.mark.long
def test_overwrite_starts_again(tmp_path):
    """In a thread, which gets no signals, as in some notebooks."""
    (tmp_path / "checkpoint.npz").write_bytes(b"rubbish")
    (tmp_path / "tensorboard").mkdir()
    short = RECIPE.replace(training=dataclasses.replace(RECIPE.training, epochs=1, steps_per_epoch=1))
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert pool.submit(_run, tmp_path, short, overwrite=True).result().record["resumed_from"] == 0
    names = {".lock", ".owner.json", "checkpoint.npz", "curve.png", "log.csv", "model.keras", "record.json"}
    assert {path.name for path in tmp_path.iterdir()} == names


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_state(tmp_path):
    bad = RECIPE.replace(optimizer=OptimizerConfig(learning_rate=1e30))
    with pytest.raises(RuntimeError, match="the loss is not a number"):
        _run(tmp_path, bad)
    saved = load_checkpoint(tmp_path / "checkpoint.npz")
    assert saved is None or all(np.isfinite(value).all() for value in saved.values)


def test_a_finished_run_gets_more_epochs(tmp_path):
    """With a constant learning rate it equals a run of that length from the start."""
    optimizer = dataclasses.replace(RECIPE.optimizer, schedule="constant", warmup_epochs=0.0)
    short, long = (
        RECIPE.replace(optimizer=optimizer, training=dataclasses.replace(RECIPE.training, epochs=epochs))
        for epochs in (1, 2)
    )
    first = _run(tmp_path / "grown", short)
    assert "earlier_epochs" not in first.record
    lines = []
    grown = experiment.run(long, tmp_path / "grown", log=lines.append)
    assert (grown.record["resumed_from"], grown.record["earlier_epochs"]) == (1, [1])
    assert any("from 1 to 2 epochs: after epoch 1" in line for line in lines)
    _assert_same(grown, _run(tmp_path / "whole", long))
    with pytest.raises(ValueError, match=r"--epochs 2.*Received: epochs=1, .* with 2 epochs"):
        _run(tmp_path / "grown", short)
    assert len(_run(tmp_path / "grown", long).record["epochs"]) == 2


def test_more_epochs_take_the_learning_rate_of_the_new_length(tmp_path):
    short, long = (RECIPE.replace(training=dataclasses.replace(RECIPE.training, epochs=epochs)) for epochs in (2, 4))
    _run(tmp_path, short)
    lines = []
    experiment.run(long, tmp_path, log=lines.append)
    # One epoch of warm-up, then a third of the cosine of three epochs: 0.75 of the peak, where it had ended at 0.
    assert any("from 2 to 4 epochs" in line and "from 0 to 0.00075" in line for line in lines), lines


def test_a_run_that_has_stopped_early_continues_with_another_patience(tmp_path):
    data = dataclasses.replace(RECIPE.data, validation_fraction=0.1)
    optimizer = dataclasses.replace(RECIPE.optimizer, learning_rate=1e-12)
    training = dataclasses.replace(RECIPE.training, epochs=3, early_stopping=1)
    recipe = RECIPE.replace(data=data, optimizer=optimizer, training=training)
    assert len(_run(tmp_path, recipe).record["epochs"]) == 2
    longer, lines = recipe.replace(training=dataclasses.replace(training, epochs=4)), []
    assert len(experiment.run(longer, tmp_path, log=lines.append).record["epochs"]) == 2
    assert any("stopped early, after epoch 2" in line and "training.early_stopping" in line for line in lines)
    freed = recipe.replace(training=dataclasses.replace(training, epochs=3, early_stopping=None))
    assert len(_run(tmp_path, freed).record["epochs"]) == 3
