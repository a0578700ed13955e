"""LoRA: trains small adapters beside the frozen weights of a model, and merges them into it."""

import re

import keras
import numpy as np

from keras_vit.backend.keras_private import own_variables
from keras_vit.composition import find_layers
from keras_vit.layers.core.composite import keep_adapters
from keras_vit.metadata import composition
from keras_vit.models.heads import HEADS
from keras_vit.validation import check_positive, is_number, nearest

TARGETS = r"encoder_block_.*/(attention/(qkv|query|key|value|projection)|mlp/.*)"
_CHANGES = ("sublayers", "lora_rank", "lora_alpha")  # of a layer after it was built, in its config
_ADAPTER = re.compile(r"lora_\w*kernel_[ab]$")


def add_lora(model, rank=8, alpha=None, targets=TARGETS, seed=0):
    """Adds LoRA adapters to a model, in place, and freezes all else but its heads.

    Each target layer computes with `kernel + alpha / rank * A @ B`; A is drawn, B begins at zero, so that the outputs
    stay the same. Layers that follow the model of this library, such as a head of one's own, are trained too.
    Compile the model after this.

    Args:
        model: a model of keras_vit, or one built around one.
        rank: int. Width of the adapters. Default 8.
        alpha: float or `None`, the rank: a scale of 1.
        targets: regular expression of whole paths of dense layers, such as `encoder_block_0/attention/qkv`. Default:
            all of attention and MLP.
        seed: int. Of the initial adapters. Default 0.

    Returns:
        A list of the paths of the layers that got adapters.

    Raises:
        ValueError: on a rank or alpha that is not positive, or on targets that are no regular expression; if no dense
            layer matches, with the nearest path; if a target has adapters already or is quantized.

    Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (arXiv:2106.09685).
    """
    check_lora(rank, alpha, targets)
    alpha = rank if alpha is None else alpha
    inner = composition(model).inner
    dense = dense_layers(inner)
    chosen = {path: layer for path, layer in dense.items() if re.fullmatch(targets, path)}
    if not chosen:
        raise ValueError(
            f"targets must match paths of dense layers{nearest(targets, dense)} Received: targets={targets!r}, layers: "
            f"{', '.join([*dense][:8])}, ..."
        )
    for path, layer in chosen.items():
        if layer.quantization_mode is not None:
            raise ValueError(
                "LoRA needs weights that are not quantized; add it before quantize(). "
                f"Received: {path!r} with {layer.quantization_mode}"
            )
        if layer.lora_enabled:
            raise ValueError(f"the layer has LoRA already; merge it first (merge_lora). Received: {path!r}")
    for layer in inner.layers:
        if any(path == layer.path or path.startswith(f"{layer.path}/") for path in chosen):
            for variable in layer.trainable_variables:
                variable.trainable = False
        elif layer.name not in HEADS:
            layer.trainable = False
    for number, (_, layer) in enumerate(sorted(chosen.items())):
        layer.enable_lora(rank, lora_alpha=alpha, a_initializer=keras.initializers.HeUniform(seed=seed + number))
        keep_adapters(layer)
    return list(chosen)


def check_lora(rank, alpha, targets):
    """Raises a `ValueError` unless the arguments are ones of `add_lora`."""
    check_positive(rank, "rank")
    if alpha is not None and (not is_number(alpha) or alpha <= 0):
        raise ValueError(f"alpha must be positive or None. Received: alpha={alpha!r}")
    try:
        re.compile(targets)
    except (re.error, TypeError) as error:
        raise ValueError(f"targets must be a regular expression. Received: targets={targets!r} ({error})") from error


def dense_layers(model):
    """The dense layers of a model, also inside its layers, by their paths."""
    layers = [layer for layer in find_layers(model, keras.layers.Dense) if layer.built]
    return dict(sorted(((layer.path, layer) for layer in layers), key=lambda item: _natural(item[0])))


def _natural(path):
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path)]


def lora_layers(model):
    """The layers with adapters, by their paths."""
    return {path: layer for path, layer in dense_layers(model).items() if layer.lora_enabled}


def adapters(layer):
    """The variables `(A, B)` of a layer with LoRA."""
    first, second = sorted((v for v in layer.variables if _ADAPTER.search(v.name)), key=lambda v: v.name)
    return first, second


def merge_lora(model):
    """Builds the plain model that computes as one with LoRA does: adapters are added to the kernels.

    Args:
        model: a functional `keras.Model`, as `add_lora` left it, trained or not.

    Returns:
        A `keras.Model` of the same layers without adapters; everything can be trained, and it is not compiled. `model`
        itself, if it has no adapters.
    """
    layers = lora_layers(model)
    if not layers:
        return model
    merged = {layer.path: _merged_kernel(layer) for layer in layers.values()}
    plain = keras.models.clone_model(model, clone_function=_without_lora)
    known = {variable.path: variable for variable in model.weights}
    for variable in plain.weights:
        layer, _, name = variable.path.rpartition("/")
        is_merged = name == "kernel" and layer in merged
        variable.assign(merged[layer] if is_merged else known[variable.path])
    return plain


def _merged_kernel(layer):
    """`kernel + alpha / rank * A @ B` in float32; `layer.kernel` would have the dtype of the computation."""
    kernel = next(variable for variable in own_variables(layer) if variable.name == "kernel")
    first, second = (keras.ops.convert_to_numpy(variable).astype("float64") for variable in adapters(layer))
    change = layer.lora_alpha / layer.lora_rank * (first @ second)
    return keras.ops.convert_to_numpy(kernel) + change.astype(np.float32)


def _without_lora(layer):
    """A new layer of the same config, but for adapters and frozen variables."""
    if isinstance(layer, keras.Model):
        return keras.models.clone_model(layer, clone_function=_without_lora)
    config = layer.get_config() | {"trainable": True}
    return type(layer).from_config({name: value for name, value in config.items() if name not in _CHANGES})
