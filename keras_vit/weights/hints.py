"""What a `config.json` beside a checkpoint tells of the architecture, as Hugging Face and timm write it."""

from keras_vit.models import VARIANTS
from keras_vit.validation import as_pair

_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
}
_POOLINGS = {"avg": "gap", "token": "token", "map": "map"}
# Words of Hugging Face for fields of ours.
_TRANSFORMERS = {
    "num_attention_heads": "num_heads",
    "layer_norm_eps": "layer_norm_epsilon",
    "image_size": "image_size",
    "window_size": "window_size",
    "pretrained_window_sizes": "pretrained_window_sizes",
}


# What transformers takes where a `config.json` leaves it out: `configuration_*.py` of each `model_type`.
_VIT_TYPES = ("vit", "deit", "dinov2", "dinov2_with_registers")
_TOWER_TYPES = ("clip", "clip_vision_model", "siglip", "siglip_vision_model")
_DEFAULTS = {
    **{kind: {"num_attention_heads": 12} for kind in (*_VIT_TYPES, *_TOWER_TYPES)},
    **{kind: {"image_size": 224, "window_size": 7} for kind in ("swin", "swinv2")},
}


def config_fields(content):
    """Fields of a config; an empty dict for an empty object.

    Args:
        content: dict, a `config.json`.

    Raises:
        ValueError: if it names an activation that is not known, a size that is none, or absolute positions in a Swin
            Transformer.
    """
    fields = _timm(content) if "architecture" in content else _transformers(_with_defaults(content))
    for name in ("image_size", "window_size"):
        if fields.get(name) is not None:
            value = fields[name]
            fields[name] = as_pair(tuple(value) if isinstance(value, list) else value, name)
    sizes = fields.get("pretrained_window_sizes")
    if sizes is not None:
        fields["pretrained_window_sizes"] = tuple(sizes) if any(sizes) else None
    return {name: value for name, value in fields.items() if value is not None}


def find_variant(architecture):
    """The config of a model of timm's by its name, with or without a tag and what stands in front; else `None`."""
    name = architecture.rpartition("/")[2].partition(".")[0]
    # The names with `_gap` differ in their pooling alone, which is an argument.
    return VARIANTS.get(name.replace("_siglip_gap_", "_siglip_"))


def _timm(content):
    architecture, arguments = content["architecture"], content.get("model_args") or {}
    variant = find_variant(architecture)
    fields = {}
    for name in ("num_heads", "window_size", "pretrained_window_sizes"):
        value = arguments.get(name) or getattr(variant, name, None)
        fields[name] = tuple(value) if isinstance(value, list) else value
    fields["pooling"] = _POOLINGS.get(arguments.get("global_pool", content.get("global_pool")))
    input_size = (content.get("pretrained_cfg") or {}).get("input_size")
    fields["image_size"] = arguments.get("img_size") or (input_size and input_size[1:])
    # The name alone stands for the activation, unless it is an argument; whether an MLP is gated, its arrays tell.
    activation = "quick_gelu" if "quickgelu" in architecture else getattr(variant, "activation", None)
    fields["activation"] = None if activation == "swiglu" else activation
    if isinstance(arguments.get("act_layer"), str):
        fields["activation"] = _activation(arguments["act_layer"])
    return fields


def _with_defaults(content):
    """What a `config.json` says of the image tower, or of all there is, and what its `model_type` stands for."""
    tower = content.get("vision_config")
    kind = (tower or content).get("model_type", content.get("model_type"))
    return {**(_DEFAULTS.get(kind, {}) if isinstance(kind, str) else {}), **(tower or content)}


def _transformers(content):
    if content.get("use_absolute_embeddings"):
        raise ValueError("absolute positions are not modelled in Swin Transformers. Received: use_absolute_embeddings")
    fields = {ours: content[theirs] for theirs, ours in _TRANSFORMERS.items() if theirs in content}
    if "CLIPVisionModelWithProjection" in (content.get("architectures") or ()):
        fields |= {"num_classes": content["projection_dim"], "head_bias": False}
    if "hidden_act" in content and not content.get("use_swiglu_ffn"):
        fields["activation"] = _activation(content["hidden_act"])
    return fields


def _activation(name):
    if not isinstance(name, str) or name not in _ACTIVATIONS:
        raise ValueError(f"an activation must be one of {sorted(_ACTIVATIONS)}. Received: {name!r}")
    return _ACTIVATIONS[name]
