"""Converts a config to the `config.json` that timm builds a model from.

Source: timm `models/_hub.py` (the file's form), `models/vision_transformer.py`, `vision_transformer_hybrid.py`,
`deit.py`, `swin_transformer.py` and `swin_transformer_v2.py` (the arguments). Every argument is written, so the
architecture name only selects the class, and what JSON cannot express: the epsilon of the norms, the gated MLP and
the ResNet of a hybrid.
"""

from keras_vit.models import VARIANTS

_BASES = {
    "distilled": "deit_base_distilled_patch16_224",
    "clip": "vit_base_patch16_clip_224",
    "swiglu": "vit_giant_patch14_dinov2",
    "plain": "vit_base_patch16_224",
    1: "swin_tiny_patch4_window7_224",
    2: "swinv2_tiny_window8_256",
}
# By the stages of their ResNet, whose width is fixed in timm.
_HYBRIDS = {known.stem_depths: name for name, known in VARIANTS.items() if known.has_stem}
_STEM_WIDTH = 64
_POOLING = {"token": "token", "gap": "avg", "map": "map"}


def timm_config(config, input_spec, labels=None, license_id=None):
    """Returns the content of timm's `config.json` for a model.

    Args:
        config: `ViTConfig`, `HybridConfig` or `SwinConfig`.
        input_spec: `InputSpec`.
        labels: class names in the order of the logits, or `None`.
        license_id: str or `None`. SPDX identifier of the weights' license.

    Returns:
        A dict of JSON types.

    Raises:
        ValueError: if timm has no such model, with the reason.
    """
    if config.num_classes and config.classifier_activation not in (None, "linear"):
        _refuse(f"classifier_activation={config.classifier_activation!r}, where timm's models give logits")
    if config.family not in _FAMILIES:
        _refuse(f"a {type(config).__name__}")
    base, arguments, num_features, classifier = _FAMILIES[config.family](config)
    squash = input_spec.crop_fraction is None
    pretrained = {
        "custom_load": False,
        "input_size": [config.num_channels, *config.image_size],
        "fixed_input_size": True,
        "interpolation": input_spec.interpolation,
        "crop_pct": 1.0 if squash else input_spec.crop_fraction,
        "crop_mode": "squash" if squash else "center",
        "mean": list(input_spec.mean),
        "std": list(input_spec.std),
        "num_classes": config.num_classes,
        "pool_size": None,
        "first_conv": _first_convolution(config),
        "classifier": classifier,
    }
    content = {
        "architecture": _published_name(config) or base,
        "num_classes": config.num_classes,
        "num_features": num_features,
        "model_args": arguments,
        "pretrained_cfg": pretrained | ({"license": license_id} if license_id else {}),
    }
    return content | ({"label_names": list(labels)} if labels else {})


def _first_convolution(config):
    if not config.has_stem:
        return "patch_embed.proj"
    return "patch_embed.backbone.stem.conv" if config.stem_depths else "patch_embed.backbone.conv"


def _published_name(config):
    """Finds the variant that differs at most in classes and rates, or `None`."""
    return next((name for name, known in VARIANTS.items() if known == _without_training(config, known)), None)


def _without_training(config, known):
    """Returns the config with the classes and rates of another, which the other weights do not depend on."""
    if type(config) is not type(known):
        return None
    names = ("num_classes", "dropout_rate", "attention_dropout_rate", "drop_path_rate")
    return config.replace(**{name: getattr(known, name) for name in names})


def _refuse(problem):
    raise ValueError(f"timm has no model of this config, so none can be written for it. Received: {problem}")


def _ratio(width, dim):
    # timm multiplies and truncates.
    return next(ratio for ratio in (width / dim, (width + 0.5) / dim) if int(dim * ratio) == width)


def _vit_arguments(config):
    _check_vit(config)
    gated = config.activation == "swiglu"
    # timm's table has an entry for every prefix token or for none; a table of patches alone is the latter.
    prefix_has_positions = config.class_token and config.position_on_prefix
    arguments = {
        "img_size": list(config.image_size),
        "patch_size": list(config.patch_size),
        "in_chans": config.num_channels,
        "embed_dim": config.hidden_dim,
        "depth": config.num_layers,
        "num_heads": config.num_heads,
        "mlp_ratio": _ratio(config.mlp_dim * (2 if gated else 1), config.hidden_dim),
        "global_pool": _POOLING[config.pooling],
        "fc_norm": config.pool_before_norm,
        "class_token": config.class_token,
        "no_embed_class": bool(config.num_prefix_tokens) and not prefix_has_positions,
        "reg_tokens": config.num_registers,
        "init_values": config.layer_scale_init,
        "qk_norm": config.qk_norm,
        "pre_norm": config.embedding_norm,
    }
    if not config.qkv_bias:
        arguments["qkv_bias"] = False
    if not gated:
        arguments["act_layer"] = config.activation
    if config.distillation_token:
        del arguments["class_token"], arguments["reg_tokens"]  # DeiT's class sets them itself
    classifier = ["head", "head_dist"] if config.distillation_token else "head"
    return _vit_base(config), arguments, config.hidden_dim, classifier


def _check_vit(config):
    """Raises a `ValueError` on fields without an argument in timm."""
    epsilon = 1e-5 if config.embedding_norm else 1e-6
    required = {
        "layer_norm_epsilon": epsilon,
        "norm_placement": "pre",
        "position_embedding": "learned",
        "pre_logits_dim": None,
        "patch_bias": not config.embedding_norm,
        "head_bias": True,
    }
    for name, expected in required.items():
        if getattr(config, name) != expected:
            _refuse(f"{name}={getattr(config, name)!r} instead of {expected!r}")
    if config.pooling not in _POOLING:
        _refuse(f"pooling={config.pooling!r}")
    if config.pooling == "map" and config.activation == "swiglu":
        _refuse("pooling='map' with activation='swiglu', which timm's attention pooling does not have")
    if config.num_registers and config.class_token and config.position_on_prefix:
        _refuse("registers behind a class token with a position")
    if config.distillation_token:
        _check_distilled(config)


def _check_distilled(config):
    """Raises a `ValueError` on fields that timm's class for DeiT, which takes the first two tokens, does not have."""
    if config.num_registers or not config.class_token or not config.position_on_prefix:
        _refuse("a distillation token with registers, or without class token or its position")
    if config.pooling != "token" or config.pool_before_norm or not config.num_classes:
        _refuse("a distillation token with another pooling than that of the class token, or without classes")


def _vit_base(config):
    """Finds the architecture with the class and the remaining defaults of a config."""
    flags = {
        "distilled": config.distillation_token,
        "clip": config.embedding_norm,
        "swiglu": config.activation == "swiglu",
        "hybrid": config.has_stem,
    }
    kinds = [kind for kind, is_set in flags.items() if is_set]
    if len(kinds) > 1:
        _refuse(f"a model that is {' and '.join(kinds)}")
    if not config.has_stem:
        return _BASES[kinds[0] if kinds else "plain"]
    for name, expected in {"stem_rule": "timm", "stem_width": _STEM_WIDTH}.items():
        if getattr(config, name) != expected:
            _refuse(f"{name}={getattr(config, name)!r} instead of {expected!r}")
    if config.stem_depths not in _HYBRIDS:
        _refuse(f"stem_depths={config.stem_depths} instead of one of {sorted(_HYBRIDS)}")
    return _HYBRIDS[config.stem_depths]


def _swin_arguments(config):
    if config.activation != "gelu" or config.layer_norm_epsilon != 1e-5:
        _refuse(f"activation={config.activation!r}, layer_norm_epsilon={config.layer_norm_epsilon}")
    if config.version == 1 and not config.qkv_bias:
        _refuse("qkv_bias=False")
    arguments = {
        "img_size": list(config.image_size),
        "patch_size": list(config.patch_size),
        "in_chans": config.num_channels,
        "embed_dim": config.embed_dim,
        "depths": list(config.depths),
        "num_heads": list(config.num_heads),
        "window_size": list(config.window_size),
        "mlp_ratio": config.mlp_ratio,
    }
    if config.version == 2:
        arguments["qkv_bias"] = config.qkv_bias
        arguments["pretrained_window_sizes"] = list(config.pretrained_window_sizes or [0] * len(config.depths))
    return _BASES[config.version], arguments, config.hidden_dims[-1], "head.fc"


# A function for each family: from a config to timm's architecture, its arguments, its width and the classifier's keys.
_FAMILIES = {"vit": _vit_arguments, "hybrid": _vit_arguments, "swin": _swin_arguments}
