"""`keras.distribution` on JAX: four logical CPUs train as one, and kernels are where the layouts say."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from keras_vit import sharding
from keras_vit.models import VARIANTS

HELPERS = pathlib.Path(__file__).with_name("helpers")
# Compiling takes longer than these programs run: XLA is not to optimise.
ENVIRONMENT = {
    **os.environ,
    "KERAS_BACKEND": "jax",
    "XLA_FLAGS": "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0",
}


def _python(*arguments):
    answer = subprocess.run(
        [sys.executable, *arguments], cwd=HELPERS, env=ENVIRONMENT, capture_output=True, text=True, timeout=300
    )
    assert answer.returncode == 0, answer.stderr[-3000:]
    return answer.stdout.splitlines()


@pytest.fixture(scope="module")
def answers():
    """What sharded_training.py prints."""
    pytest.importorskip("jax")
    return json.loads(_python("sharded_training.py")[-1])


@pytest.mark.long
@pytest.mark.parametrize("kind", ["data", "model"])
@pytest.mark.parametrize("case", ["vit", "map", "deit", "swin"])
def test_four_devices_end_as_one(answers, case, kind):
    found = answers[case][kind]
    assert answers[case]["steps"] == 10
    assert found["logits"] <= 1e-4
    key_biases = {path for path in found["weights"] if path.endswith("qkv/bias")} if case == "vit" else set()
    assert max(value for path, value in found["weights"].items() if path not in key_biases) <= 1e-4


@pytest.mark.long
def test_wide_kernels_are_cut_and_the_rest_is_whole(answers):
    assert set(answers["vit"]["data"]["pieces"].values()) == {1}
    for case in ("vit", "map", "swin"):
        cut = {path for path, pieces in answers[case]["model"]["pieces"].items() if pieces == 2}
        whole = {path for path, pieces in answers[case]["model"]["pieces"].items() if pieces == 1}
        assert cut | whole == set(answers[case]["model"]["pieces"])
        blocks = {path for path in cut | whole if "encoder_block" in path}
        assert {path for path in blocks if path.endswith("kernel")} <= cut
        assert {path for path in blocks if "norm" in path} <= whole
        assert {"head/kernel", "head/bias", "patch_encoder/projection/kernel"} <= whole
    assert "patch_merging_1/reduction/kernel" in cut


def test_other_backends_are_refused():
    with pytest.raises(ValueError, match=r"set KERAS_BACKEND=jax .* Received: backend='tensorflow'"):
        sharding.data_parallel()
    with pytest.raises(ValueError, match="on the JAX backend alone"):
        sharding.model_parallel(VARIANTS["vit_tiny_patch16_224"], shards=2)


_REFUSED = """
import keras
from keras_vit import sharding
from keras_vit.models import ViTConfig

def refused(call):
    try:
        call()
    except ValueError as error:
        print(error)

narrow = ViTConfig(image_size=8, patch_size=4, hidden_dim=18, num_layers=1, num_heads=3, mlp_dim=24)
refused(lambda: sharding.model_parallel(narrow, shards=3))
refused(lambda: sharding.model_parallel(narrow, shards=4))
mesh = keras.distribution.DeviceMesh((4,), ("batch",), keras.distribution.list_devices())
refused(lambda: sharding.layout_map(narrow, mesh))
"""


def test_uneven_shards_are_refused():
    pytest.importorskip("jax")
    first, second, third = _python("-c", _REFUSED)
    assert "shards must divide the devices. Received: shards=3, 4 devices" in first
    assert "4 shards for {'hidden_dim': 18}" in second
    assert "a mesh must have an axis 'model'" in third
