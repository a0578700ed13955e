"""Files of LoRA adapters: a few MB beside the weights of a model."""

import json
import pathlib
import re
import zlib

import keras
import numpy as np
import safetensors
import safetensors.numpy

from keras_vit.atomic import replaced
from keras_vit.metadata import composition
from keras_vit.models.heads import HEADS
from keras_vit.models.lora import adapters, add_lora, lora_layers

_FORMAT = "keras_vit LoRA 1"
_HEADS = tuple(f"{name}/" for name in HEADS)  # in front of the paths of their variables


def save_lora(model, path):
    """Writes the adapters and heads of a model with LoRA, without its other weights.

    Args:
        model: a model with LoRA adapters, see `keras_vit.add_lora`.
        path: `.safetensors`.

    Raises:
        ValueError: if the model has no adapters, or on another suffix.
    """
    path = pathlib.Path(path)
    _check_suffix(path)
    inner = composition(model).inner
    layers = lora_layers(inner)
    if not layers:
        raise ValueError(f"the model must have LoRA adapters, see keras_vit.add_lora. Received: {model.name!r}")
    first = next(iter(layers.values()))
    if any((layer.lora_rank, layer.lora_alpha) != (first.lora_rank, first.lora_alpha) for layer in layers.values()):
        raise ValueError("all adapters must have the same rank and alpha to be saved. Received: several")
    tensors = {v.path: keras.ops.convert_to_numpy(v) for layer in layers.values() for v in adapters(layer)}
    tensors |= {v.path: keras.ops.convert_to_numpy(v) for v in inner.variables if v.path.startswith(_HEADS)}
    content = {
        "rank": first.lora_rank,
        "alpha": first.lora_alpha,
        "layers": list(layers),
        "base": base_checksum(inner),
        "origin": composition(model).marker.content.origin,
    }
    with replaced(path) as partial:
        # safetensors takes float32 as it is, and NumPy's arrays only where they are contiguous.
        tensors = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
        safetensors.numpy.save_file(tensors, partial, {"format": _FORMAT, "lora": json.dumps(content)})


def load_lora(model, path):
    """Adds the adapters of a file to the model that they were trained for, in place, and sets its heads.

    Args:
        model: a `keras.Model` with the weights that the adapters were trained on; it may have adapters of the same
            layers and rank already, whose values are replaced.
        path: file of `save_lora`.

    Returns:
        `model`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is none of LoRA or damaged, if the weights of the model are others, or if layers, rank or
            heads do not fit.
    """
    content, tensors = _read(pathlib.Path(path))
    inner = composition(model).inner
    if content["base"] != base_checksum(inner):
        raise ValueError(
            "adapters must be loaded into the weights that they were trained on, before other adapters are merged. "
            f"Received: {str(path)!r}, of {content['origin'] or 'a model without an origin'}, for model={model.name!r}"
        )
    heads = {v.path: v for v in inner.variables if v.path.startswith(_HEADS)}
    stored = {name: value.shape for name, value in tensors.items() if name.startswith(_HEADS)}
    if stored != {name: tuple(v.shape) for name, v in heads.items()}:
        raise ValueError(
            f"the heads must be those of the file; load the model with its number of classes. Received: {stored} for "
            f"{ {name: tuple(v.shape) for name, v in heads.items()} }"
        )
    layers = lora_layers(inner)
    if not layers:
        add_lora(model, content["rank"], content["alpha"], "|".join(map(re.escape, content["layers"])))
        layers = lora_layers(inner)
    settings = {(layer.lora_rank, layer.lora_alpha) for layer in layers.values()}
    if sorted(layers) != sorted(content["layers"]) or settings != {(content["rank"], content["alpha"])}:
        raise ValueError(
            f"the adapters of the model must have the rank {content['rank']}, the alpha {content['alpha']:g} and the "
            f"layers of the file. Received: rank and alpha {sorted(settings)}, {len(layers)} layers for "
            f"{len(content['layers'])}"
        )
    variables = heads | {v.path: v for layer in layers.values() for v in adapters(layer)}
    if set(variables) != set(tensors):
        different = sorted(set(variables) ^ set(tensors))
        raise ValueError(
            f"a file of LoRA must hold what the model has. Received: {str(path)!r}; {different[:5]} differ"
        )
    for name, variable in variables.items():
        variable.assign(tensors[name])
    return model


def base_checksum(inner):
    """Returns the CRC-32 of all weights but adapters and heads, as hexadecimal text."""
    checksum = 0
    for variable in sorted(inner.weights, key=lambda variable: variable.path):
        if not variable.path.startswith(_HEADS) and "/lora_" not in variable.path:
            checksum = zlib.crc32(np.ascontiguousarray(keras.ops.convert_to_numpy(variable)), checksum)
    return f"{checksum:08x}"


def _check_suffix(path):
    if path.suffix != ".safetensors":
        raise ValueError(f"adapters are in a .safetensors file. Received: {str(path)!r}")


def _read(path):
    """The description and the tensors of a file."""
    _check_suffix(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of adapters {str(path)!r}; keras_vit.save_lora writes one")
    try:
        with safetensors.safe_open(path, "numpy") as file:
            notes = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        content = json.loads(notes["lora"]) if notes.get("format") == _FORMAT else None
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise ValueError(f"a file of adapters must be whole. Received: {str(path)!r} ({error})") from error
    if content is None:
        raise ValueError(f"a file of adapters must come from keras_vit.save_lora. Received: {str(path)!r}")
    return content, tensors
