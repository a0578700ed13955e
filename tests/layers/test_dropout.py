"""Dropout and stochastic depth, on one replica and on several."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from keras_vit.layers import MLP, Dropout
from keras_vit.layers.core.dropout import make_drop_path

RATE = 0.25


def test_identity_without_training():
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
    np.testing.assert_array_equal(Dropout(0.9)(x), x)
    np.testing.assert_array_equal(Dropout(0.9)(x, training=False), x)
    np.testing.assert_array_equal(Dropout(0.0)(x, training=True), x)


def test_drops_the_rate_and_scales_the_rest():
    outputs = np.array(Dropout(RATE)(np.ones((100, 100), "float32"), training=True))
    assert set(np.unique(outputs)) == {np.float32(0), np.float32(1 / (1 - RATE))}
    assert abs(np.mean(outputs == 0) - RATE) < 0.02


def test_drop_path_drops_whole_samples_and_scales_the_rest():
    layer = make_drop_path(MLP(8), "drop_path", RATE)
    outputs = np.array(layer(np.ones((2000, 3, 4), "float32"), training=True))
    per_sample = outputs.reshape(2000, -1)
    assert (per_sample == per_sample[:, :1]).all()
    np.testing.assert_allclose(np.unique(per_sample), [0, 1 / (1 - RATE)], rtol=1e-6)
    assert abs(np.mean(per_sample[:, 0] == 0) - RATE) < 0.04


def test_masks_differ_between_steps_and_repeat_with_a_seed():
    x = np.ones((4, 64), "float32")
    first, second = Dropout(0.5, seed=3), Dropout(0.5, seed=3)
    outputs = [np.array(first(x, training=True)) for _ in range(3)]
    assert not np.array_equal(outputs[0], outputs[1])
    assert not np.array_equal(outputs[1], outputs[2])
    for expected in outputs:
        np.testing.assert_array_equal(second(x, training=True), expected)


@pytest.mark.parametrize("rate", [1.0, -0.1, True, "0.5", None])
def test_rate_is_checked(rate):
    with pytest.raises(ValueError, match="Received: rate="):
        Dropout(rate)


@pytest.fixture(scope="module")
def replica_masks():
    """`{"keras_vit", "keras"}`: the outputs for ones, (step, replica, sample), in a process with four replicas."""
    script = pathlib.Path(__file__).parents[1] / "helpers" / "replica_masks.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {name: np.array(masks) for name, masks in json.loads(done.stdout.splitlines()[-1]).items()}


def test_replicas_and_steps_draw_different_masks(replica_masks):
    masks = replica_masks["keras_vit"].reshape(-1, replica_masks["keras_vit"].shape[-1])
    assert len(masks) == 24
    assert len(np.unique(masks, axis=0)) == len(masks)


def test_replicas_are_not_correlated(replica_masks):
    masks = replica_masks["keras_vit"].transpose(1, 0, 2).reshape(4, -1)
    correlations = np.corrcoef(masks)[np.triu_indices(4, 1)]
    assert np.abs(correlations).max() < 0.12


def test_every_replica_keeps_the_rate_and_the_scale(replica_masks):
    masks = replica_masks["keras_vit"]
    np.testing.assert_allclose(np.unique(masks), [0, 1 / (1 - RATE)], rtol=1e-6)
    np.testing.assert_allclose((masks == 0).mean(axis=(0, 2)), RATE, atol=0.06)


def test_keras_own_dropout_repeats_its_mask_on_every_replica(replica_masks):
    """The reason for `ReplicaSeedGenerator`: when this fails, Keras has fixed it and the class can be deleted."""
    masks = replica_masks["keras"]
    assert len(np.unique(masks[0], axis=0)) == 1


def test_a_sublayer_of_rate_0_is_the_identity():
    assert make_drop_path(MLP(8), "drop_path", 0.0)("anything", training=True) == "anything"
