"""Strategies by name, and a recipe on two logical CPUs (which a process must ask for at its start)."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from keras_vit import distribution

_MIRRORED = """
import json, sys
import numpy as np, keras
from keras_vit import experiment
from keras_vit.training import DistributionConfig, OptimizerConfig
from test_resume import RECIPE
# Without clipping and masks: Keras clips before the gradients are summed, and every replica has its own masks.
recipe = RECIPE.replace(
    model=RECIPE.model.replace(dropout_rate=0.0, drop_path_rate=0.0),
    optimizer=OptimizerConfig(weight_decay=0.5, ema_momentum=0.9),
    distribution=DistributionConfig(name=sys.argv[1]),
)
run = experiment.run(recipe, sys.argv[2], log=lambda text: None)
logits = run.model.predict(np.linspace(-1, 1, 4 * 64).reshape(4, 8, 8, 1), verbose=0)
epochs = [{name: epoch[name] for name in ("loss", "accuracy")} for epoch in run.record["epochs"]]
print(json.dumps({"epochs": epochs, "test": run.evaluation, "logits": logits.tolist()}))
"""


def test_one_is_the_default_strategy():
    assert distribution.strategy("one") is tf.distribute.get_strategy()


@pytest.mark.parametrize("name", ["mirrord", "cpu:0", "cpu:two", ""])
def test_an_unknown_strategy_is_named(name):
    with pytest.raises(ValueError, match="unknown strategy"):
        distribution.strategy(name)


def test_logical_devices_must_be_asked_for_in_time():
    tf.constant(0)  # TensorFlow now uses its devices.
    if len(tf.config.list_logical_devices("CPU")) > 6:
        pytest.fail("this process has more logical devices than it asked for")
    with pytest.raises(ValueError, match="before TensorFlow uses its devices"):
        distribution.strategy("cpu:7")


def test_the_device_kind_is_what_tensorflow_sees():
    assert distribution.device_kind() == ("gpu" if tf.config.list_physical_devices("GPU") else "cpu")


def _run(name, directory, tests):
    answer = subprocess.run(
        [sys.executable, "-c", _MIRRORED, name, str(directory)], capture_output=True, text=True, cwd=tests
    )
    assert answer.returncode == 0, answer.stderr[-3000:]
    return json.loads(answer.stdout.splitlines()[-1])


@pytest.mark.slow
def test_two_replicas_end_as_one_device(tmp_path, request):
    """Same data, same weights, weight decay with its exclusions and an average: the same model."""
    tests = request.path.parent
    one, two = (_run(name, tmp_path / name, tests) for name in ("one", "mirrored"))
    assert two["test"]["examples"] == one["test"]["examples"] == 899
    assert two["test"]["accuracy"] == pytest.approx(one["test"]["accuracy"], abs=0.003)
    for a, b in zip(one["epochs"], two["epochs"], strict=True):
        assert b == pytest.approx(a, abs=1e-3)
    np.testing.assert_allclose(two["logits"], one["logits"], atol=1e-3)
