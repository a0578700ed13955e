"""The ResNet of hybrid Vision Transformers in timm's files and in Google's.

Source: timm `vision_transformer_hybrid.py`, `resnetv2.py`; google-research/vision_transformer `models_vit.py`,
`models_resnet.py`. Public files of Google hold the vectors of group norms as `(1, 1, 1, channels)`; `_fix_groupnorm` in
its `checkpoint.py` reads them as vectors, which newer versions of Flax write.
"""

import dataclasses

from keras_vit.weights.config.shapes import axes
from keras_vit.weights.layouts.base import count_blocks, norm, rule
from keras_vit.weights.layouts.transforms import GROUP_NORM, KERNEL_OIHW

_BACKBONE = "patch_embed.backbone."
# Names in a bottleneck: ours, timm's and Google's.
_CONVOLUTIONS = (
    ("convolution_1", "conv1", "conv1"),
    ("convolution_2", "conv2", "conv2"),
    ("convolution_3", "conv3", "conv3"),
    ("projection", "downsample.conv", "conv_proj"),
)
_NORMS = (
    ("norm_1", "norm1", "gn1"),
    ("norm_2", "norm2", "gn2"),
    ("norm_3", "norm3", "gn3"),
    ("projection_norm", "downsample.norm", "gn_proj"),
)


def _units(config):
    """`(stage, number in the stage, our prefix)` of every bottleneck."""
    return [(s, u, f"stem_stage_{s}/unit_{u}") for s, depth in enumerate(config.stem_depths) for u in range(depth)]


def _google_norm(ours, theirs):
    rules = norm(ours, theirs, ("/scale", "/bias"))
    return [dataclasses.replace(item, transform=GROUP_NORM) for item in rules]


def timm_stem_rules(config):
    """Returns the rules of the ResNet in a timm state dict; a root without stages has no prefix of its own."""
    if not config.has_stem:
        return []
    root = f"{_BACKBONE}stem." if config.stem_depths else _BACKBONE
    rules = [
        rule("stem_root/convolution/kernel", f"{root}conv.weight", KERNEL_OIHW),
        *norm("stem_root/norm", f"{root}norm"),
    ]
    for stage, unit, ours in _units(config):
        theirs = f"{_BACKBONE}stages.{stage}.blocks.{unit}"
        rules += [rule(f"{ours}/{c}/kernel", f"{theirs}.{key}.weight", KERNEL_OIHW) for c, key, _ in _CONVOLUTIONS]
        for mine, key, _ in _NORMS:
            rules += norm(f"{ours}/{mine}", f"{theirs}.{key}")
    return rules


def google_stem_rules(config):
    """Returns the rules of the ResNet in Google's `.npz`."""
    if not config.has_stem:
        return []
    rules = [rule("stem_root/convolution/kernel", "conv_root/kernel"), *_google_norm("stem_root/norm", "gn_root")]
    for stage, unit, ours in _units(config):
        theirs = f"block{stage + 1}/unit{unit + 1}"
        rules += [rule(f"{ours}/{c}/kernel", f"{theirs}/{key}/kernel") for c, _, key in _CONVOLUTIONS]
        for mine, _, key in _NORMS:
            rules += _google_norm(f"{ours}/{mine}", f"{theirs}/{key}")
    return rules


def timm_stem_fields(shapes):
    """Infers the fields of the ResNet from a timm state dict; an empty dict without one.

    Raises:
        ValueError: if the backbone is not this ResNet.
    """
    roots = (f"{_BACKBONE}stem.conv.weight", f"{_BACKBONE}conv.weight")
    key = next((key for key in roots if key in shapes), None)
    if key is None:
        other = next((key for key in shapes if key.startswith(_BACKBONE)), None)
        if other is not None:
            raise ValueError(f"the backbone of a hybrid must be timm's ResNetV2 with a plain stem. Received: {other!r}")
        return {}
    width, num_channels, *_ = axes(shapes, key, 4)
    return _fields("timm", width, num_channels, shapes, r"^patch_embed\.backbone\.stages\.", r"\.blocks\.(\d+)\.", 0)


def google_stem_fields(shapes):
    """Infers the fields of the ResNet from Google's keys without their prefix; an empty dict without one."""
    if "conv_root/kernel" not in shapes:
        return {}
    *_, num_channels, width = axes(shapes, "conv_root/kernel", 4)
    return _fields("google", width, num_channels, shapes, "^block", r"/unit(\d+)/", 1)


def _fields(source, width, num_channels, shapes, stages, units, first):
    """`stages` and `units` are the patterns in front of a stage's number and of a unit in it, counted from `first`."""
    count = count_blocks(shapes, rf"{stages}(\d+)") - first
    depths = [count_blocks(shapes, f"{stages}{first + stage}{units}") - first for stage in range(count)]
    return {"num_channels": num_channels, "stem_width": width, "stem_depths": tuple(depths), "stem_rule": source}
