"""An interrupted run goes on and ends as an uninterrupted one."""

import pathlib
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

from keras_vit import experiment
from keras_vit.models import ViTConfig
from keras_vit.training import AugmentConfig, DataConfig, OptimizerConfig, Recipe, TrainingConfig, checkpoint

RECIPE = Recipe(
    name="resume",
    model=ViTConfig(
        image_size=8,
        patch_size=4,
        num_channels=1,
        hidden_dim=16,
        num_layers=1,
        num_heads=2,
        mlp_dim=32,
        num_classes=10,
        dropout_rate=0.1,
        drop_path_rate=0.1,
    ),
    data=DataConfig(name="digits", batch_size=100),
    augment=AugmentConfig(shift=1.0, mixup=0.2),
    optimizer=OptimizerConfig(learning_rate=1e-3, warmup_epochs=1, weight_decay=0.1, clip_norm=1.0, ema_momentum=0.9),
    training=TrainingConfig(epochs=4, compiler="plain", precision="float32"),
)


def _run(directory, **arguments):
    return experiment.run(RECIPE, directory, log=lambda text: None, **arguments)


def _weights(model):
    return [keras.ops.convert_to_numpy(v) for v in model.weights]


def _assert_same(first, second):
    for a, b in zip(first, second, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return _run(tmp_path_factory.mktemp("whole"))


class _Interrupt(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if self.model.optimizer.iterations == 8 + 8 + 3:
            raise KeyboardInterrupt


def test_an_interrupt_in_the_third_epoch_changes_nothing(uninterrupted, tmp_path, monkeypatch):
    original = keras.Model.fit
    monkeypatch.setattr(
        keras.Model,
        "fit",
        lambda self, *a, **k: original(self, *a, **{**k, "callbacks": [*k["callbacks"], _Interrupt()]}),
    )
    with pytest.raises(KeyboardInterrupt):
        _run(tmp_path)
    monkeypatch.undo()
    assert checkpoint.load_state(tmp_path / "checkpoint.npz")["epoch"] == 2
    finished = _run(tmp_path)
    assert finished.record["resumed_from"] == 2
    _assert_same(_weights(finished.model), _weights(uninterrupted.model))
    assert len(finished.record["epochs"]) == 4
    for ours, whole in zip(finished.record["epochs"], uninterrupted.record["epochs"], strict=True):
        assert 0 < ours.pop("wall_seconds") <= finished.record["wall_seconds"]
        assert ours == pytest.approx({name: whole[name] for name in ours}, abs=1e-5)


def test_a_finished_run_is_not_trained_again(uninterrupted):
    again = _run(uninterrupted.directory)
    assert again.record["resumed_from"] == 4
    _assert_same(_weights(again.model), _weights(uninterrupted.model))
    assert again.evaluation["accuracy"] == uninterrupted.evaluation["accuracy"]


def test_another_recipe_is_refused_with_the_difference(uninterrupted):
    other = RECIPE.replace(optimizer=OptimizerConfig(learning_rate=5e-4))
    with pytest.raises(ValueError, match=r"optimizer.learning_rate: was 0.001, is 0.0005"):
        experiment.run(other, uninterrupted.directory, log=lambda text: None)


def test_a_corrupt_checkpoint_is_named(tmp_path):
    (tmp_path / "checkpoint.npz").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(ValueError, match=r"a checkpoint must be a file of this library.*checkpoint.npz"):
        _run(tmp_path)


def test_fresh_begins_again(tmp_path):
    (tmp_path / "checkpoint.npz").write_bytes(b"rubbish")
    assert _run(tmp_path, fresh=True).record["resumed_from"] == 0


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_state(tmp_path):
    bad = RECIPE.replace(optimizer=OptimizerConfig(learning_rate=1e30))
    with pytest.raises(RuntimeError, match="the loss is not a number"):
        experiment.run(bad, tmp_path, log=lambda text: None)
    state = checkpoint.load_state(tmp_path / "checkpoint.npz")
    assert state is None or all(np.isfinite(list(epoch.values())).all() for epoch in state["history"])


_SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from test_resume import RECIPE
from keras_vit import experiment
experiment.run(RECIPE, {directory!r}, log=print)
"""


@pytest.mark.slow
def test_kill_9_loses_at_most_one_epoch(uninterrupted, tmp_path):
    tests = str(pathlib.Path(__file__).parent)
    script = _SCRIPT.format(tests=tests, directory=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (tmp_path / "checkpoint.npz").exists():
        assert process.poll() is None, "the run ended before it was killed"
        assert time.monotonic() < deadline, "no checkpoint in two minutes"
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    reached = checkpoint.load_state(tmp_path / "checkpoint.npz")["epoch"]
    finished = _run(tmp_path)
    assert finished.record["resumed_from"] == reached >= 1
    _assert_same(_weights(finished.model), _weights(uninterrupted.model))
