"""Files that PyTorch itself saves, read without it (`make test-peers`)."""

import argparse
import datetime
import pathlib
import pickle
import sys

import numpy as np
import pytest

if "torch" not in sys.modules:
    pytest.skip("runs in make test-peers, where PyTorch is loaded before TensorFlow", allow_module_level=True)

import torch
from tiny import tiny_vit

from keras_vit.weights import load_weights
from keras_vit.weights.files.checkpoint import open_checkpoint
from keras_vit.weights.layouts.timm import TIMM
from keras_vit.weights.save import to_tensors

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]
OLD = {"_use_new_zipfile_serialization": False}


@pytest.fixture(scope="module")
def model():
    return tiny_vit()


@pytest.fixture(scope="module")
def module(model):
    """A module of PyTorch with timm's names and the model's values."""
    root = torch.nn.Module()
    for key, value in to_tensors(model, TIMM).items():
        place, (*path, name) = root, key.split(".")
        for part in path:
            if part not in dict(place.named_children()):
                place.add_module(part, torch.nn.Module())
            place = getattr(place, part)
        place.register_parameter(name, torch.nn.Parameter(torch.from_numpy(np.array(value))))
    root.register_buffer("position_ids", torch.arange(3), persistent=False)
    return root


def _strided(state):
    return {key: value.t().contiguous().t() if value.ndim == 2 else value for key, value in state.items()}


def _shared(state):
    flat = torch.cat([value.reshape(-1) for value in state.values()])
    parts = torch.split(flat, [value.numel() for value in state.values()])
    return {key: part.view(value.shape) for (key, value), part in zip(state.items(), parts, strict=True)}


def _training(module):
    optimizer = torch.optim.AdamW(module.parameters())
    sum(parameter.sum() for parameter in module.parameters()).backward()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    optimizer.step()
    module.load_state_dict(before)
    arguments = argparse.Namespace(lr=0.1, out=pathlib.Path("x"), now=datetime.datetime(2026, 1, 1))
    beside = {"args": arguments, "best": np.float64(0.5), "rng": torch.get_rng_state(), "np": np.random.PCG64(0)}
    return {"model": module.state_dict(), "optimizer": optimizer.state_dict(), "device": torch.device("cpu"), **beside}


CONTENTS = {
    "state dict": lambda module: module.state_dict(),
    "parallel": lambda module: torch.nn.DataParallel(module).state_dict(),
    "compiled": lambda module: torch.compile(module).state_dict(),
    "average": lambda module: torch.optim.swa_utils.AveragedModel(module).state_dict(),
    "training": _training,
    "strided": lambda module: _strided(module.state_dict()),
    "shared storage": lambda module: _shared(module.state_dict()),
    "parameters": lambda module: dict(module.named_parameters()),
    "requires grad": lambda module: {"net": dict(module.named_parameters())},
    "in a list": lambda module: [module.state_dict(), 3],
}


def _blank():
    other = tiny_vit()
    for variable in other.weights:
        variable.assign(variable * 0)
    return other


def _assert_read(path, model):
    other = _blank()
    load_weights(other, path)
    for ours, theirs in zip(other.weights, model.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=ours.path)


@pytest.mark.parametrize("options", [{}, OLD], ids=["archive", "old"])
@pytest.mark.parametrize("name", CONTENTS)
def test_what_pytorch_saves_is_read(name, options, model, module, tmp_path):
    torch.save(CONTENTS[name](module), tmp_path / "x", **options)
    _assert_read(tmp_path / "x", model)


@pytest.mark.parametrize("options", [{}, OLD], ids=["archive", "old"])
def test_whole_modules_are_read(options, model, module, tmp_path):
    torch.save(module, tmp_path / "x", **options)
    other = _blank()
    assert load_weights(other, tmp_path / "x", skip=["position_ids"]).skipped == ("position_ids",)
    np.testing.assert_array_equal(other.get_layer("head").kernel, model.get_layer("head").kernel)


@pytest.mark.parametrize("protocol", range(2, 6))
def test_pickled_tensors_are_read(protocol, model, module, tmp_path):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(module.state_dict(), protocol))
    _assert_read(tmp_path / "x.pkl", model)


@pytest.mark.parametrize("options", [{}, OLD], ids=["archive", "old"])
def test_every_dtype_is_read(options, tmp_path):
    dtypes = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16]
    dtypes += [torch.int8, torch.uint8, torch.bool, torch.complex64, torch.complex128]
    if not options:
        dtypes += [torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2]
    values = {str(dtype).removeprefix("torch."): torch.tensor([[0, 1, 0], [1, 1, 0]]).to(dtype) for dtype in dtypes}
    torch.save({**values, "empty": torch.zeros(0, 3), "scalar": torch.tensor(2.0)}, tmp_path / "x", **options)
    checkpoint = open_checkpoint(tmp_path / "x")
    for name in values:
        assert checkpoint[name].dtype.name == name
        np.testing.assert_array_equal(checkpoint[name].astype("complex128"), [[0, 1, 0], [1, 1, 0]])
    assert (checkpoint["empty"].shape, checkpoint["scalar"]) == ((0, 3), 2)


def test_what_is_no_plain_tensor_is_refused_by_name(module, model, tmp_path):
    state = module.state_dict()
    weight = state["head.weight"]
    kinds = {
        "a quantized tensor": torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8),
        "a sparse tensor": weight.to_sparse(),
        "a tensor without values": weight.to("meta"),
    }
    for kind, value in kinds.items():
        torch.save({"model": {**state, "head.weight": value}}, tmp_path / "x")
        with pytest.raises(ValueError, match=f"plain, dense arrays.*'model.head.weight', {kind}"):
            load_weights(model, tmp_path / "x")
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "x")
    with pytest.raises(ValueError, match="TorchScript"):
        load_weights(model, tmp_path / "x")
