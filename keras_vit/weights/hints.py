"""What a `config.json` beside a checkpoint tells of the architecture, as Hugging Face and timm write it."""

import json

from keras_vit.models import VARIANTS

_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
}


def read_hints(path):
    """Fields of `ViTConfig` from a `config.json`; an empty dict where there is none.

    Args:
        path: of the file.

    Raises:
        ValueError: if it is no JSON object, or names an activation that is not known.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"a config.json must be JSON. Received: {str(path)!r} ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"a config.json must hold an object. Received: {str(path)!r}")
    architecture = content.get("architecture")
    return _timm(content) if isinstance(architecture, str) else _transformers(content.get("vision_config") or content)


def _timm(content):
    hints = {}
    variant = VARIANTS.get(content["architecture"].partition(".")[0])
    arguments = content.get("model_args") or {}
    if "num_heads" in arguments or variant:
        hints["num_heads"] = arguments.get("num_heads") or variant.num_heads
    if "quickgelu" in content["architecture"]:  # timm says it nowhere else
        hints["activation"] = "quick_gelu"
    if isinstance(arguments.get("act_layer"), str):
        hints["activation"] = _activation(arguments["act_layer"])
    return hints


def _transformers(content):
    hints = {}
    for theirs, ours in (("num_attention_heads", "num_heads"), ("layer_norm_eps", "layer_norm_epsilon")):
        if theirs in content:
            hints[ours] = content[theirs]
    if "hidden_act" in content and not content.get("use_swiglu_ffn"):
        hints["activation"] = _activation(content["hidden_act"])
    return hints


def _activation(name):
    if name not in _ACTIVATIONS:
        raise ValueError(f"an activation must be one of {sorted(_ACTIVATIONS)}. Received: {name!r}")
    return _ACTIVATIONS[name]
