"""Where the goldens are and how a case is read. Their origin and meaning: goldens/README.md."""

import json
import pathlib
import struct

import numpy as np

from keras_vit.models import SwinConfig, ViTConfig

GOLDENS = pathlib.Path(__file__).with_name("goldens")
_DTYPES = {"F32": "<f4", "I64": "<i8"}
_GELU = {"erf": "gelu", "tanh": "gelu_tanh", "quick": "quick_gelu"}


def cases(swin):
    """Names of the cases of Swin Transformers, or of all others."""
    paths = sorted(GOLDENS.glob("*/*/config.json"))
    families = {str(p.parent.relative_to(GOLDENS)): json.loads(p.read_text()).get("family", "vit") for p in paths}
    return [case for case, family in families.items() if family.startswith("swin") == swin]


def read_safetensors(path):
    """The arrays of a `.safetensors` file: eight bytes of length, a JSON header, raw data."""
    data = pathlib.Path(path).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    header.pop("__metadata__", None)
    return {
        name: np.frombuffer(body[slice(*entry["data_offsets"])], _DTYPES[entry["dtype"]]).reshape(entry["shape"])
        for name, entry in header.items()
    }


def read_case(case):
    """A case's config as JSON, its checkpoint as flat arrays, and its inputs and outputs."""
    folder = GOLDENS / case
    config = json.loads((folder / "config.json").read_text())
    if (folder / "checkpoint.npz").exists():
        checkpoint = dict(np.load(folder / "checkpoint.npz"))
    else:
        checkpoint = read_safetensors(folder / "checkpoint.safetensors")
    return config, checkpoint, dict(np.load(folder / "io.npz"))


def vit_config(case):
    """The `ViTConfig` of a case's `config.json`."""
    same = ("image_size", "patch_size", "hidden_dim", "num_layers", "num_heads", "mlp_dim", "num_classes", "pooling")
    same += ("class_token", "num_registers", "qk_norm", "layer_norm_epsilon", "pre_logits_dim", "position_on_prefix")
    return ViTConfig(
        **{name: case[name] for name in same},
        distillation_token=case["distilled"],
        position_embedding=case["position"],
        activation="swiglu" if case["swiglu"] else _GELU[case["gelu"]],
        embedding_norm=case.get("pre_norm_after_embedding", False),
        pool_before_norm=case.get("final_norm", "").startswith("after pooling"),
        layer_scale_init=1.0 if case["layer_scale"] else None,
    )


def swin_config(case, source):
    """The `SwinConfig` of a case's `config.json`; `source` is the window rule."""
    same = ("image_size", "patch_size", "embed_dim", "depths", "num_heads", "window_size", "mlp_ratio", "num_classes")
    return SwinConfig(
        **{name: case[name] for name in (*same, "layer_norm_epsilon")},
        qkv_bias=case.get("qkv_bias", True),
        activation=_GELU[case["gelu"]],
        version=2 if case["family"] == "swin_v2" else 1,
        pretrained_window_sizes=case.get("pretrained_window_sizes"),
        window_rule=source,
    )


def fill(model, values):
    """Assigns `{variable path: array}` to a model: no variable may be left, no array unused, no shape differ."""
    variables = {variable.path: variable for variable in model.weights}
    assert sorted(values) == sorted(variables)
    for path, value in values.items():
        assert value.shape == tuple(variables[path].shape), path
        variables[path].assign(value)
