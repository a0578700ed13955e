"""Reads config, preprocessing and classes from the JSON files that Hugging Face and timm write beside a checkpoint."""

import warnings

from keras_vit.models.variants import find_variant
from keras_vit.preprocessing import InputSpec
from keras_vit.validation import as_pair

_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
}
_POOLINGS = {"avg": "gap", "token": "token", "map": "map"}
# Hugging Face's names of config fields.
_TRANSFORMERS = {
    "num_attention_heads": "num_heads",
    "layer_norm_eps": "layer_norm_epsilon",
    "image_size": "image_size",
    "window_size": "window_size",
    "pretrained_window_sizes": "pretrained_window_sizes",
}


# Defaults of transformers for a `config.json`: `configuration_*.py` of each `model_type`.
_VIT_TYPES = ("vit", "deit", "dinov2", "dinov2_with_registers")
_TOWER_TYPES = ("clip", "clip_vision_model", "siglip", "siglip_vision_model")
_DEFAULTS = {
    **{kind: {"num_attention_heads": 12} for kind in (*_VIT_TYPES, *_TOWER_TYPES)},
    **{kind: {"image_size": 224, "window_size": 7} for kind in ("swin", "swinv2")},
}


def config_fields(content):
    """Reads the fields of a config; an empty dict for an empty object.

    Args:
        content: dict, a `config.json`.

    Raises:
        ValueError: on an unknown activation, an invalid size, or absolute positions in a Swin Transformer.
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


def _timm(content):
    architecture, arguments = content["architecture"], content.get("model_args") or {}
    variant = find_variant(architecture)
    defaults = {} if variant is None else vars(variant)
    fields = {}
    for name in ("num_heads", "window_size", "pretrained_window_sizes"):
        value = arguments.get(name) or defaults.get(name)
        fields[name] = tuple(value) if isinstance(value, list) else value
    fields["pooling"] = _POOLINGS.get(arguments.get("global_pool", content.get("global_pool")))
    input_size = (content.get("pretrained_cfg") or {}).get("input_size")
    fields["image_size"] = arguments.get("img_size") or (input_size and input_size[1:])
    # Unless it is an argument, the activation follows from the name; the arrays show whether an MLP is gated.
    activation = "quick_gelu" if "quickgelu" in architecture else defaults.get("activation")
    fields["activation"] = None if activation == "swiglu" else activation
    if isinstance(arguments.get("act_layer"), str):
        fields["activation"] = _activation(arguments["act_layer"])
    return fields


def _with_defaults(content):
    """Adds the defaults of its `model_type` to a `config.json`, or to its section on the image tower."""
    tower = content.get("vision_config")
    kind = (tower or content).get("model_type", content.get("model_type"))
    return {**(_DEFAULTS.get(kind, {}) if isinstance(kind, str) else {}), **(tower or content)}


def _transformers(content):
    if content.get("use_absolute_embeddings"):
        raise ValueError(
            "Swin Transformers with absolute positions are not supported. Received: use_absolute_embeddings"
        )
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


_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
# Pillow's numbers.
_RESAMPLES = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}


def timm_input_spec(content):
    """Reads the `InputSpec` of timm's `config.json`; `None` if it states none, or one without an equivalent.

    Source: timm `data/config.py` `resolve_data_config`, whose defaults apply to missing fields, and
    `data/transforms_factory.py` `transforms_imagenet_eval`.
    """
    pretrained_cfg = content.get("pretrained_cfg")
    if not pretrained_cfg:
        return None
    mode, fraction = pretrained_cfg.get("crop_mode") or "center", pretrained_cfg.get("crop_pct") or 0.875
    if mode == "squash" and fraction == 1:
        fraction = None
    # With 'border' an image is padded instead of cropped.
    elif mode != "center":
        warnings.warn(
            f"crop_mode={mode!r} with crop_pct={fraction} of the config.json has no InputSpec; pass input_spec=",
            stacklevel=5,
        )
        return None
    interpolation = pretrained_cfg.get("interpolation") or "bicubic"
    return InputSpec(
        tuple(pretrained_cfg.get("input_size") or (3, 224, 224))[1:],
        crop_fraction=fraction,
        interpolation="bicubic" if interpolation == "random" else interpolation,
        mean=tuple(pretrained_cfg.get("mean") or _IMAGENET_MEAN),
        std=tuple(pretrained_cfg.get("std") or _IMAGENET_STD),
    )


def open_clip_to_timm(content):
    """Translates OpenCLIP's `open_clip_config.json` of a timm tower to the fields of timm's `config.json`.

    Returns:
        A dict; an empty one for an empty object, and for a tower of OpenCLIP's own.

    Source: OpenCLIP `factory.py`, `transform.py`.
    """
    tower = content.get("model_cfg", {}).get("vision_cfg", {})
    if "timm_model_name" not in tower:
        return {}
    preprocessing, size = content.get("preprocess_cfg", {}), tower.get("image_size", 224)
    height, width = size if isinstance(size, list) else (size, size)
    squashed = preprocessing.get("resize_mode", "shortest") == "squash"
    config = {
        "input_size": [3, height, width],
        "mean": preprocessing.get("mean") or _CLIP_MEAN,
        "std": preprocessing.get("std") or _CLIP_STD,
        "interpolation": preprocessing.get("interpolation") or "bicubic",
        "crop_pct": 1.0,
        "crop_mode": "squash" if squashed else "center",
    }
    pooling = {"map": "map", "token": "token", "avg": "avg"}.get(tower.get("timm_pool"))
    return {"architecture": tower["timm_model_name"], "global_pool": pooling, "pretrained_cfg": config}


def transformers_input_spec(content):
    """Reads the `InputSpec` of Hugging Face's `preprocessor_config.json`; `None` for an empty object.

    Where Hugging Face squashes an image before it cuts the center out, as for DeiT, proportions are kept here, as
    in DeiT's own evaluation; of square images both make the same.

    Source: transformers 4.x `image_processing_{vit,deit,clip,siglip,bit}.py`.
    """
    if not content:
        return None
    size, crop = _side(content.get("size", 224)), _side(content.get("crop_size", 224))
    if not content.get("do_center_crop"):
        # A shortest edge alone leaves images of any proportion.
        shortest = isinstance(content.get("size"), dict) and "shortest_edge" in content["size"]
        crop, fraction = size, 1.0 if shortest else None
    else:
        fraction = min(crop[0] / size[0], 1.0)
    # (pixel * factor - mean) / std, of pixels to 255
    scale = 255 * content.get("rescale_factor", 1 / 255) if content.get("do_rescale", True) else 255
    normalized = content.get("do_normalize", True)
    mean = content.get("image_mean") or (0.5,) * 3 if normalized else (0.0,) * 3
    std = content.get("image_std") or (0.5,) * 3 if normalized else (1.0,) * 3
    resample = content.get("resample", 2)
    if resample not in _RESAMPLES:
        raise ValueError(f"resample must be one of {sorted(_RESAMPLES)}. Received: resample={resample!r}")
    return InputSpec(
        crop,
        crop_fraction=fraction,
        interpolation=_RESAMPLES[resample],
        mean=tuple(m / scale for m in mean),
        std=tuple(s / scale for s in std),
    )


def _side(size):
    """Reads `(h, w)` from a size of Hugging Face: an int, or an object of sides."""
    if not isinstance(size, dict):
        return (size, size) if isinstance(size, int) else tuple(size)
    if "shortest_edge" in size:
        return (size["shortest_edge"],) * 2
    return size["height"], size["width"]


def labels(content):
    """Reads the class names of a `config.json` as a tuple; `None` if they are missing or placeholders."""
    names = content.get("label_names") or content.get("id2label")
    if isinstance(names, dict):
        numbered = {int(number): name for number, name in names.items()}
        if sorted(numbered) != list(range(len(numbered))):
            return None
        names = [numbered[number] for number in range(len(numbered))]
    if not names or all(name == f"LABEL_{number}" for number, name in enumerate(names)):
        return None
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"class names must be strings. Received: {names[:3]!r}")
    return tuple(names)
