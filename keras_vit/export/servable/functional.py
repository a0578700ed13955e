"""Prepares a model for export: one flat functional graph with the requested compute dtype."""

import keras
from keras import ops

from keras_vit.composition import find_layers
from keras_vit.metadata import LAYER_NAME, composition, folded_spec, metadata
from keras_vit.outputs import HEADS, REPRESENTATIONS

_LORA = ("lora_kernel_a", "lora_kernel_b", "lora_embeddings_a", "lora_embeddings_b")
_MERGED = ("kernel", "embeddings")


def flat(model):
    """Flattens nested models into one functional model that starts at the images of the Vision Transformer.

    Args:
        model: of keras_vit; or one that is built around such a model. What augments or normalizes images in front of
            it is left out: `keras_vit.metadata.folded_spec` has what it does.

    Returns:
        A functional `keras.Model` of one input and one output whose layers are those of `model`.

    Raises:
        ValueError: if there are other inputs or outputs, or the images are changed in a way that is not known.
    """
    return flat_composition(composition(model))


def flat_composition(parts):
    """Does the same for a `keras_vit.composition.Composition`."""
    outputs = keras.tree.flatten(parts.outputs)
    if len(outputs) != 1:
        raise ValueError(
            "a model to export must have one input and one output. "
            f"Received: model={parts.model.name!r} with 1 and {len(outputs)}"
        )
    # Report errors of the layers in front before the rest is built.
    if parts.front is not None:
        folded_spec(parts)
    return parts.core(outputs[0])


def check_backend():
    """Raises a `ValueError` unless the backend is TensorFlow."""
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise ValueError(
            "models are exported from the TensorFlow backend; a .keras file loads under all of them. "
            f"Received: KERAS_BACKEND={backend}"
        )


def is_quantized(model):
    """Returns whether `model.quantize` changed any layer."""
    return any(getattr(layer, "quantization_mode", None) for layer in find_layers(model, keras.layers.Layer))


def without_lora(model):
    """Merges LoRA adapters into the kernels, in a copy with its own variables.

    Returns:
        `model` itself where there are none. So it is also where a layer with adapters is quantized: the merged kernel
        would be rounded.
    """
    return model if is_quantized(model) or not _adapted(model) else _copy(model, {})


def with_compute_dtype(model, dtype):
    """Copies a flat model with another compute dtype and the same weights; its output stays float32.

    Args:
        model: from `flat`.
        dtype: `float32` or `bfloat16`.

    Returns:
        `model` itself where all of its layers compute in that type, else a copy with variables of its own.

    Raises:
        ValueError: if the model is quantized: its policies tell how.
    """
    if is_quantized(model):
        raise ValueError(f"a quantized model computes as it was quantized. Received: dtype={dtype!r}")
    policy = "float32" if dtype == "float32" else f"mixed_{dtype}"
    policies = dict.fromkeys(map(id, _leaves(model)), "float32") | dict.fromkeys(map(id, _trunk(model)), policy)
    # The policy of layers without weights, such as the input, does not matter.
    weighted = [layer for layer in _leaves(model) if layer.weights]
    if all(keras.dtype_policies.get(policies[id(layer)]) == layer.dtype_policy for layer in weighted):
        return without_lora(model)
    return _copy(model, policies)


def _leaves(model):
    """Yields the layers of a model and of nested models."""
    for layer in model.layers:
        yield from _leaves(layer) if isinstance(layer, keras.Model) else [layer]


def _trunk(model):
    """Returns the layers before the heads; heads, also custom ones, compute in float32 under every policy."""
    stages = [i for i, layer in enumerate(model.layers) if _is_stage(layer)]
    return [layer for layer in model.layers[: stages[-1] + 1] if layer.name not in HEADS]


def _is_stage(layer):
    return type(layer).__module__.startswith("keras_vit.") or layer.name in REPRESENTATIONS


def _adapted(model):
    return [layer for layer in find_layers(model, keras.layers.Layer) if getattr(layer, "lora_enabled", False)]


def _copy(model, policies):
    """Copies a functional model without LoRA, with new dtype policies by the ids of its layers."""

    def clone(layer):
        if isinstance(layer, keras.Model) and not hasattr(layer, "operations"):
            raise ValueError(
                "a model to copy in another dtype, or without LoRA, must be functional. "
                f"Received: model={model.name!r} with {layer.name!r}, a {type(layer).__name__}"
            )
        config = {name: value for name, value in layer.get_config().items() if not name.startswith("lora_")}
        # LoRA adapters and frozen sublayers; the copy is not trained.
        config.pop("sublayers", None)
        if "dtype" in config and id(layer) in policies:
            config["dtype"] = policies[id(layer)]
        return type(layer).from_config(config)

    copy = keras.models.clone_model(model, clone_function=clone, recursive=True)
    merged = {}
    for layer in _adapted(model):
        weights = {weight.name: weight for weight in layer.weights}
        first, second = (weights[name] for name in _LORA if name in weights)
        kernel = next(weights[name] for name in _MERGED if name in weights)
        scale = layer.lora_alpha / layer.lora_rank
        merged[id(kernel)] = ops.cast(kernel, "float32") + scale * ops.matmul(first, second)
    weights = [weight for weight in model.weights if weight.name not in _LORA]
    for ours, theirs in zip(copy.weights, weights, strict=True):
        ours.assign(merged.get(id(theirs), theirs))
    return copy


def with_representation(model):
    """Adds the input of the classifier to the outputs of a flat model.

    Returns:
        A `keras.Model` from images to a dict: `outputs`, those of `model`, and `representation`, `(batch, width)`.
    """
    return keras.Model(model.input, {"outputs": model.output, "representation": _representation(model)})


def _representation(model):
    name = "encoder_norm" if getattr(metadata(model).config, "pool_before_norm", False) else "representation"
    stages = {layer.name: layer for layer in model.layers}
    if name in stages:
        return stages[name].output
    # A custom head pools the tokens itself.
    for layer in reversed(model.layers):
        if layer.weights and isinstance(layer.input, keras.KerasTensor) and len(layer.input.shape) == 2:
            return layer.input
    raise ValueError(
        "a model to export must make one vector of an image before its classifier. "
        f"Received: model={model.name!r}, which has no layer {name!r} behind {LAYER_NAME!r}"
    )
