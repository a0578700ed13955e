"""Where the goldens are and how a case is read. Their origin and meaning: goldens/README.md."""

import functools
import json
import pathlib
import warnings

import numpy as np

from keras_vit.models import HybridConfig, SwinConfig, ViTConfig
from keras_vit.weights import from_checkpoint

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"
# How each source's models resize positions; all others as timm's.
_RESIZES = {
    **dict.fromkeys(("deit", "huggingface", "torchvision"), "bicubic"),
    **dict.fromkeys(("big_vision", "google"), "bilinear_corners"),
    "dinov2": "bicubic_offset",
}
_GELU = {"erf": "gelu", "tanh": "gelu_tanh", "quick": "quick_gelu"}


def cases(swin):
    """Names of the cases of Swin Transformers, or of all others."""
    paths = sorted(GOLDENS.glob("*/*/config.json"))
    families = {str(p.parent.relative_to(GOLDENS)): json.loads(p.read_text()).get("family", "vit") for p in paths}
    return [case for case, family in families.items() if family.startswith("swin") == swin]


def read_case(case):
    """A case's config as JSON, and its inputs and outputs."""
    folder = GOLDENS / case
    return json.loads((folder / "config.json").read_text()), dict(np.load(folder / "io.npz"))


def vit_config(case, source):
    """The `ViTConfig` or `HybridConfig` of a case's `config.json`; `source` says what the reference's habits are."""
    same = ("image_size", "patch_size", "hidden_dim", "num_layers", "num_heads", "mlp_dim", "num_classes")
    same += ("class_token", "num_registers", "qk_norm", "layer_norm_epsilon", "pre_logits_dim", "position_on_prefix")
    fields = {name: case[name] for name in same}
    if "pooler" in case.get("pre_logits", ""):
        fields["pre_logits_dim"] = case["hidden_dim"]
    stem = {name: case[name] for name in ("stem_depths", "stem_width", "stem_rule") if name in case}
    if not stem:
        # A convolution leaves the pixels beyond the last whole patch out; all sources' do.
        pair = [v if isinstance(v, list) else [v, v] for v in (case["image_size"], case["patch_size"])]
        fields["drop_remainder"] = any(side % patch for side, patch in zip(*pair, strict=True))
    clip = case.get("pre_norm_after_embedding", False)
    return (HybridConfig if stem else ViTConfig)(
        **fields,
        **stem,
        pooling="token_gap" if case["pooling"].startswith("token+gap") else case["pooling"],
        distillation_token=case["distilled"],
        position_embedding=case["position"],
        position_resize=_resize(case, source),
        activation="swiglu" if case["swiglu"] else _GELU[case["gelu"]],
        patch_bias=case.get("patch_embedding_bias", not clip),
        embedding_norm=clip,
        pool_before_norm=case.get("final_norm", "").startswith("after pooling"),
        layer_scale_init=1.0 if case["layer_scale"] else None,
    )


def _resize(case, source):
    """The name of the rule for positions of another grid: the case's, or else that of its source."""
    rule = case.get("position_interpolation")
    if rule is not None:
        plain = "bicubic_offset" if rule["scale_factor_offset"] else "bicubic"
        return "bicubic_antialias" if rule["antialias"] else plain
    if case["num_registers"] and source in ("dinov2", "huggingface"):
        return "bicubic_antialias"
    return _RESIZES.get(source, "bicubic_antialias")


def swin_config(case, source):
    """The `SwinConfig` of a case's `config.json`; `source` is the window rule."""
    same = ("image_size", "patch_size", "embed_dim", "depths", "num_heads", "window_size", "mlp_ratio", "num_classes")
    return SwinConfig(
        **{name: case[name] for name in (*same, "layer_norm_epsilon")},
        qkv_bias=case.get("qkv_bias", True),
        activation=_GELU[case["gelu"]],
        version=2 if case["family"] == "swin_v2" else 1,
        pretrained_window_sizes=_trained(case),
        window_rule=source,
        position_resize="geometric" if source == "timm" else "bicubic",
    )


def _trained(case):
    """The windows of training: of as many stages as there are, and `None` where they are the model's own."""
    sizes = (case.get("pretrained_window_sizes") or ())[: len(case["depths"])]
    return sizes if any(sizes) else None


def config_of(case, source):
    """The config of a case of any family; `source` is its folder's name."""
    return swin_config(case, source) if case["family"].startswith("swin") else vit_config(case, source)


CASES = cases(swin=False)

# timm's constructor arguments, which its files do not hold: the two differ from the default of the source.
TIMM_ACTIVATION = {"timm/vit_clip_pre_norm": "quick_gelu"}


@functools.cache
def load(case):
    """The model of a case, the images, and everything the reference gave for them."""
    description, io = read_case(case)
    config = config_of(description, case.split("/")[0])
    (path,) = (GOLDENS / case).glob("checkpoint.*")
    overrides = {"num_heads": config.num_heads, "image_size": config.image_size}
    if case in TIMM_ACTIVATION:
        overrides["activation"] = TIMM_ACTIVATION[case]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if case == "dinov2/dinov2_interpolated" else "error")
        model = from_checkpoint(path, **overrides)
    return model, io.pop("images"), io
