"""Small random configs for property tests, and the families whose checkpoints are public.

`HYPOTHESIS_PROFILE=thorough` draws far more of them, another set each time, than the default, whose draws are the same
in every run.
"""

import os

from hypothesis import HealthCheck, assume, settings
from hypothesis import strategies as st

from keras_vit.models import HybridConfig, SwinConfig, ViTConfig

_COMMON = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
settings.register_profile("quick", derandomize=True, **_COMMON)
settings.register_profile("thorough", **_COMMON)
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "quick")
settings.load_profile(PROFILE)

_HYBRID = {"patch_size": 1, "image_size": (14, 22), "stem_width": 32}
_BARE = {"class_token": False, "position_on_prefix": False}
VITS = {
    "token": {},
    "pre_logits": {"pre_logits_dim": 12},
    "gap": {"pooling": "gap", **_BARE},
    "gap, fc_norm": {"pooling": "gap", "pool_before_norm": True},
    "map": {"pooling": "map", **_BARE},
    "sincos2d": {"pooling": "gap", **_BARE, "position_embedding": "sincos2d"},
    "distilled": {"distillation_token": True},
    "deit3": {"layer_scale_init": 0.1, "position_on_prefix": False},
    "dinov2": {"layer_scale_init": 1.0, "num_classes": 0},
    "dinov2, registers": {"layer_scale_init": 1.0, "num_classes": 0, "num_registers": 2},
    "dinov2, swiglu": {"layer_scale_init": 1.0, "num_classes": 0, "activation": "swiglu"},
    "dinov2, classifier": {"layer_scale_init": 1.0, "pooling": "token_gap"},
    "timm, registers": {"layer_scale_init": 1.0, "num_registers": 2, "position_on_prefix": False},
    "siglip": {"pooling": "map", **_BARE, "num_classes": 0, "activation": "gelu_tanh"},
    "siglip, classifier": {"pooling": "gap", **_BARE, "activation": "gelu_tanh"},
    "clip": {"embedding_norm": True, "patch_bias": False, "num_classes": 0, "layer_norm_epsilon": 1e-5},
    "clip, projection": {"embedding_norm": True, "patch_bias": False, "head_bias": False, "layer_norm_epsilon": 1e-5},
    "qk_norm": {"qk_norm": True},
    "no qkv_bias": {"qkv_bias": False},
    "hybrid": {**_HYBRID, "stem_depths": (1, 1)},
    "hybrid, root": {**_HYBRID, "stem_depths": (), "patch_size": 2},
}
SWINS = {"swin": {}, "swin, no head": {"num_classes": 0}, "swin v2": {"version": 2}}
# What may be changed in any of them, few at a time.
_VIT_CHANGES = {
    "num_classes": (0, 1, 5),
    "head_bias": (False,),
    "drop_remainder": (True,),
    "class_token": (True, False),
    "distillation_token": (True,),
    "num_registers": (1, 3),
    "pooling": ("token", "gap", "token_gap", "map"),
    "pool_before_norm": (True,),
    "pre_logits_dim": (7, 16),
    "activation": ("gelu_tanh", "quick_gelu", "swiglu"),
    "norm_placement": ("post",),
    "patch_bias": (False,),
    "embedding_norm": (True,),
    "qk_norm": (True,),
    "qkv_bias": (False,),
    "layer_norm_epsilon": (1e-5,),
    "layer_scale_init": (0.5,),
    "position_embedding": ("sincos2d",),
    "position_on_prefix": (True, False),
    "position_resize": ("bicubic",),
    "dropout_rate": (0.1,),
    "drop_path_rate": (0.1,),
    "classifier_activation": ("softmax",),
    "pre_logits_activation": (None,),
}
_SWIN_CHANGES = {
    "num_classes": (0, 1),
    "qkv_bias": (False,),
    "activation": ("gelu_tanh", "swiglu"),
    "layer_norm_epsilon": (1e-6,),
    "drop_path_rate": (0.1,),
    "classifier_activation": ("softmax",),
}


def examples(quick, thorough):
    """A decorator for `given`: how many examples each profile draws."""
    return settings(max_examples=thorough if PROFILE == "thorough" else quick)


def vit(**fields):
    """A tiny `ViTConfig`, or `HybridConfig`, with some fields of one's own."""
    sizes = {"image_size": 16, "patch_size": 4, "hidden_dim": 8, "num_layers": 2, "num_heads": 2, "mlp_dim": 12}
    make = HybridConfig if "stem_depths" in fields else ViTConfig
    return make(**{**sizes, "num_classes": 3, **fields})


def swin(**fields):
    """A tiny `SwinConfig` with some fields of one's own."""
    sizes = {"image_size": 32, "embed_dim": 8, "depths": (2, 1), "num_heads": (1, 2), "window_size": 4}
    return SwinConfig(**{**sizes, "num_classes": 3, **fields})


def _pairs(least, most):
    return st.tuples(*2 * [st.integers(least, most)])


def _changes(draw, table):
    names = draw(st.lists(st.sampled_from(sorted(table)), unique=True, max_size=3))
    return {name: draw(st.sampled_from(table[name])) for name in names}


def _valid(make, fields):
    try:
        return make(**fields)
    except ValueError:
        assume(False)


@st.composite
def vit_configs(draw):
    """A `ViTConfig` near one of the families."""
    patch_size, num_heads = draw(_pairs(1, 4)), draw(st.sampled_from((1, 2, 3, 4)))
    grid = draw(_pairs(1, 4))
    fields = {
        "patch_size": patch_size,
        "image_size": tuple(side * patch for side, patch in zip(grid, patch_size, strict=True)),
        "num_channels": draw(st.sampled_from((3, 1, 4))),
        "num_heads": num_heads,
        "hidden_dim": num_heads * draw(st.integers(2, 24 // num_heads)),
        "num_layers": draw(st.integers(1, 3)),
        "mlp_dim": draw(st.integers(1, 32)),
    }
    family = VITS[draw(st.sampled_from(list(VITS)))]
    fields = {**fields, **family, **_changes(draw, _VIT_CHANGES)}
    if "drop_remainder" in fields and "stem_depths" not in fields:
        rests = [draw(st.integers(0, side - 1)) for side in patch_size]
        fields["image_size"] = tuple(side + rest for side, rest in zip(fields["image_size"], rests, strict=True))
    return _valid(vit, fields)


@st.composite
def swin_configs(draw):
    """A `SwinConfig`; where the rule wants it, of grids that the windows divide."""
    depths = tuple(draw(st.lists(st.integers(1, 2), min_size=1, max_size=3)))
    rule = draw(st.sampled_from(("timm", "microsoft", "huggingface")))
    window = draw(_pairs(1, 4)) if rule == "timm" else (draw(st.integers(1, 4)),) * 2
    patch_size = draw(_pairs(1, 4))
    exact = rule == "microsoft" or draw(st.booleans())
    unit = [side * 2 ** (len(depths) - 1) for side in window] if exact else (1, 1)
    grid = [step * count for step, count in zip(unit, draw(_pairs(1, 2 if exact else 9)), strict=True)]
    version = draw(st.sampled_from((1, 2)))
    fields = {
        "patch_size": patch_size,
        "image_size": tuple(side * patch for side, patch in zip(grid, patch_size, strict=True)),
        "num_channels": draw(st.sampled_from((3, 1))),
        "embed_dim": 4 * draw(st.integers(1, 4)),
        "depths": depths,
        "num_heads": tuple(draw(st.sampled_from((1, 2, 4))) for _ in depths),
        "window_size": window,
        "mlp_ratio": draw(st.sampled_from((4.0, 2.5, 1.7))),
        "window_rule": rule,
        "version": version,
    }
    if version == 2 and draw(st.booleans()):
        fields["pretrained_window_sizes"] = tuple(draw(st.sampled_from((0, 2, 5))) for _ in depths)
    return _valid(swin, {**fields, **_changes(draw, _SWIN_CHANGES)})
