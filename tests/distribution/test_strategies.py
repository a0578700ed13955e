"""Strategies by name and by `TF_CONFIG`, and which rows of a batch a replica gets. How they train: `..._fit.py`."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_vit.config import DistributionConfig
from keras_vit.data import WorkerShard
from keras_vit.distribution import strategies as distribution
from keras_vit.distribution.datasets import SHARDINGS, replica_batches, with_sharding
from keras_vit.distribution.tf_config import Cluster, read_tf_config

TWO = {"worker": ["a:1", "b:2"]}


def _config(machines, kind="worker", index=0):
    return json.dumps({"cluster": machines, "task": {"type": kind, "index": index}})


def test_one_is_the_default_strategy():
    assert distribution.strategy("one") is tf.distribute.get_strategy()


@pytest.mark.parametrize("name", ["mirrord", "cpu", "CPU:2", "cpu:0", "cpu:02", "cpu:two", "", None])
def test_an_unknown_strategy_is_named(name):
    for function in (distribution.strategy, lambda name: DistributionConfig(name=name)):
        with pytest.raises(ValueError, match="unknown strategy") as raised:
            function(name)
        assert ("Did you mean 'mirrored'" in str(raised.value)) == (name == "mirrord")
        assert "Did you mean 'tpu'" not in str(raised.value)


def test_logical_devices_must_be_asked_for_in_time():
    tf.constant(0)  # TensorFlow now uses its devices.
    if len(tf.config.list_logical_devices("CPU")) > 6:
        pytest.fail("this process has more logical devices than it asked for")
    with pytest.raises(ValueError, match="Received: cpu:"):
        distribution.strategy("cpu:7")


def test_a_name_is_one_strategy_in_a_process():
    """TensorFlow would number the sums of a second one as those of the first."""
    assert distribution.strategy("cpu:1") is distribution.strategy("cpu:1")


def test_a_missing_tpu_is_reported(monkeypatch):
    monkeypatch.setenv("TPU_NAME", "nowhere")
    monkeypatch.setattr(tf.distribute.cluster_resolver, "TPUClusterResolver", lambda name: _fail(name))
    with pytest.raises(ValueError, match=r"Received: TPU_NAME='nowhere' \(no such nowhere\)"):
        distribution.strategy("tpu")


def _fail(name):
    raise ValueError(f"no such {name}\nand a long story")


def test_the_device_kind_is_what_tensorflow_sees():
    assert distribution.device_kind() == ("gpu" if tf.config.list_physical_devices("GPU") else "cpu")


@pytest.mark.parametrize(
    ("config", "tpu", "gpus", "name"),
    [
        ("", None, 0, "one"),
        ("", None, 1, "one"),
        ("", None, 4, "mirrored"),
        ("", "local", 4, "tpu"),
        (_config({"worker": ["a:1"]}), None, 2, "mirrored"),
        (_config(TWO), "local", 4, "multi_worker"),
    ],
)
def test_auto_is_the_largest_that_is_there(monkeypatch, config, tpu, gpus, name):
    monkeypatch.setenv("TF_CONFIG", config)
    monkeypatch.delenv("TPU_NAME", raising=False)
    if tpu:
        monkeypatch.setenv("TPU_NAME", tpu)
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["a device"] * (gpus if kind == "GPU" else 0))
    assert distribution.resolve_name("auto") == name
    assert distribution.resolve_name("cpu:3") == "cpu:3"


@pytest.mark.parametrize(
    ("text", "cluster"),
    [
        ("", Cluster()),
        ("{}", Cluster()),
        (json.dumps({"cluster": {"worker": ["a:1"]}}), Cluster(("a:1",), 0)),
        (_config(TWO, index=1), Cluster(("a:1", "b:2"), 1)),
        (_config({"chief": ["c:3"], **TWO}, index=1), Cluster(("c:3", "a:1", "b:2"), 2)),
        (_config({"chief": ["c:3"], **TWO}, "chief"), Cluster(("c:3", "a:1", "b:2"), 0)),
    ],
)
def test_tf_config_names_the_workers_and_which_one_this_is(monkeypatch, text, cluster):
    assert read_tf_config(text) == cluster
    monkeypatch.setenv("TF_CONFIG", text)
    assert read_tf_config() == cluster
    assert cluster.is_chief == (cluster.index == 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "TF_CONFIG must be JSON"),
        ("[1]", "TF_CONFIG must be JSON"),
        ('{"cluster": 3}', "TF_CONFIG must be JSON"),
        (_config({"ps": ["a:1"], **TWO}), "Received: {'ps': "),
        (_config({"chief": ["c:3", "d:4"], **TWO}), r"Received: {'chief': \['c:3', 'd:4'\]"),
        (_config(TWO, index=2), "Received: type="),
        (_config(TWO, "evaluator"), "Received: type="),
        (_config({"worker": ["a:1", "a:1"]}), r"Received: \['a:1', 'a:1'\]"),
        (json.dumps({"cluster": TWO}), "Received: type=None"),
        (_config(TWO, index=1.7), "index=1.7"),
        (_config({"worker": "a:1"}), "must be a list"),
        (json.dumps({"cluster": TWO, "task": [0]}), "the task an object"),
        (_config({"worker": ["a", "b:2"]}), "Received: 'a'"),
        (_config({"worker": ["a:1", "b:99999"]}), "Received: 'b:99999'"),
        (_config({"worker": ["http://a:1", "b:2"]}), "Received: 'http://a:1'"),
        (_config({"worker": [1, "b:2"]}), "Received: 1"),
    ],
)
def test_a_tf_config_that_is_none_is_explained(text, message):
    with pytest.raises(ValueError, match=message):
        read_tf_config(text)


@pytest.mark.parametrize("text", ["", _config({"worker": ["a:1"]})])
def test_several_workers_need_a_tf_config(monkeypatch, text):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match="Received: TF_CONFIG="):
        distribution.strategy("multi_worker")


@pytest.mark.parametrize("batch", [1, 2, 5, 6])
@pytest.mark.parametrize(("workers", "local"), [(1, 2), (2, 1), (2, 3), (3, 1)])
def test_every_row_goes_to_one_replica_in_order(batch, workers, local):
    replicas = workers * local
    batches = tf.data.Dataset.range(17).batch(batch)
    parts = [list(replica_batches(batches, replicas, w * local, local).as_numpy_iterator()) for w in range(workers)]
    whole = list(batches.as_numpy_iterator())
    assert {len(part) for part in parts} == {len(whole) * local}
    for step, rows in enumerate(whole):
        elements = [part[step * local + i] for part in parts for i in range(local)]
        np.testing.assert_array_equal(np.concatenate(elements), rows)
        sizes = [len(rows) for rows in elements]
        assert max(sizes) - min(sizes) <= 1


def test_rows_keep_their_nest_and_what_is_known_of_their_shapes():
    batches = tf.data.Dataset.from_tensors(({"a": tf.zeros([6, 2]), "b": tf.zeros([6])}, tf.zeros([6, 3])))
    spec = replica_batches(batches, 3, 1, 1, rows=2).element_spec
    assert (spec[0]["a"].shape, spec[0]["b"].shape, spec[1].shape) == ((2, 2), (2,), (2, 3))
    assert replica_batches(batches, 3, 1, 2).element_spec[1].shape.as_list() == [None, 3]


@pytest.mark.parametrize("sharding", SHARDINGS)
def test_a_data_set_says_how_it_is_divided(sharding):
    options = with_sharding(tf.data.Dataset.range(3), sharding).options()
    assert options.experimental_distribute.auto_shard_policy.name.lower() == sharding


def test_an_unknown_sharding_is_named():
    with pytest.raises(ValueError, match="Did you mean 'file'"):
        with_sharding(tf.data.Dataset.range(3), "files")
    with pytest.raises(ValueError, match="Did you mean 'data'"):
        DistributionConfig(sharding="dat")


def test_without_several_workers_there_is_one_part():
    strategy, seen = tf.distribute.get_strategy(), []
    batches = tf.data.Dataset.range(3)
    assert distribution.distribute_shards(strategy, lambda part: seen.append(part) or batches, 3) is batches
    assert seen == [None]
    assert WorkerShard(0, 2) != WorkerShard(0, 2, by_files=True)
    alone = distribution.make_workers(strategy)
    assert (alone.is_chief, alone.count, alone.all_reduce_sum(3), alone.broadcast(b"x")) == (True, 1, 3, b"x")


def test_a_model_without_a_strategy_stays_as_it_was():
    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    model.compile("sgd", "mse")
    before = dict(vars(model)), dict(vars(model.optimizer))
    assert distribution.prepare(model) is model
    assert (dict(vars(model)), dict(vars(model.optimizer))) == before
