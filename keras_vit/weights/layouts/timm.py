"""timm's Vision Transformers and DeiT, and what the official DeiT and DINOv2 files share with them.

Source: timm `vision_transformer.py`, `deit.py`; the official DeiT (distilled) files have the same keys.
"""

import dataclasses

import numpy as np

from keras_vit.weights.config.shapes import axes, count_classes, kernel_sizes, position_fields
from keras_vit.weights.layouts.base import Layout, count_blocks, dense, differing, norm, rule
from keras_vit.weights.layouts.hybrid import timm_stem_fields, timm_stem_rules
from keras_vit.weights.layouts.transforms import CONV_OIHW, TRANSPOSED

BLOCK, OURS = "blocks.{i}", "encoder_block_{i}"

# Fields that the keys of timm hold with any value.
_HELD = (
    *("class_token", "distillation_token", "num_registers", "pool_before_norm", "activation", "embedding_norm"),
    *("qkv_bias", "qk_norm", "layer_scale_init", "position_on_prefix", "stem_depths", "stem_width", "stem_rule"),
)


@dataclasses.dataclass(frozen=True)
class Timm(Layout):
    """Keys of a timm state dict.

    Args:
        name: str.
        layer_scale: pattern of the LayerScale's key with `{n}`, 1 or 2.
        registers: key of the register tokens.
        swiglu: prefixes of the gated MLP's two layers.
        ignored: patterns of keys without counterpart.
        position_resize: how the source resizes positions.
        square_positions: as for `Layout`.
    """

    name: str = "timm"
    layer_scale: str = "ls{n}.gamma"
    registers: str = "reg_token"
    swiglu: tuple = ("fc1", "fc2")
    ignored: tuple = ()
    position_resize: str = "bicubic_antialias"
    square_positions: bool = False

    def table(self, config):
        mlp = self.swiglu if config.activation == "swiglu" else ("fc1", "fc2")
        final = "fc_norm" if config.pool_before_norm else "norm"
        return [
            *timm_stem_rules(config),
            rule("patch_encoder/projection/kernel", "patch_embed.proj.weight", CONV_OIHW),
            rule("patch_encoder/projection/bias", "patch_embed.proj.bias"),
            rule("patch_encoder/class_token", "cls_token"),
            rule("patch_encoder/distillation_token", "dist_token"),
            rule("patch_encoder/register_tokens", self.registers),
            rule("patch_encoder/position_embedding", "pos_embed"),
            *norm("embedding_norm", "norm_pre"),
            *norm(f"{OURS}/attention_norm", f"{BLOCK}.norm1"),
            *dense(f"{OURS}/attention/qkv", f"{BLOCK}.attn.qkv", TRANSPOSED),
            *norm(f"{OURS}/attention/query_norm", f"{BLOCK}.attn.q_norm"),
            *norm(f"{OURS}/attention/key_norm", f"{BLOCK}.attn.k_norm"),
            *dense(f"{OURS}/attention/projection", f"{BLOCK}.attn.proj", TRANSPOSED),
            rule(f"{OURS}/attention_scale/gamma", f"{BLOCK}.{self.layer_scale.format(n=1)}"),
            *norm(f"{OURS}/mlp_norm", f"{BLOCK}.norm2"),
            *dense(f"{OURS}/mlp/dense_1", f"{BLOCK}.mlp.{mlp[0]}", TRANSPOSED),
            *dense(f"{OURS}/mlp/dense_2", f"{BLOCK}.mlp.{mlp[1]}", TRANSPOSED),
            rule(f"{OURS}/mlp_scale/gamma", f"{BLOCK}.{self.layer_scale.format(n=2)}"),
            *norm("encoder_norm", final),
            rule("representation/probe", "attn_pool.latent"),
            *dense("representation/query", "attn_pool.q", TRANSPOSED),
            *dense("representation/key_value", "attn_pool.kv", TRANSPOSED),
            *dense("representation/projection", "attn_pool.proj", TRANSPOSED),
            *norm("representation/norm", "attn_pool.norm"),
            *dense("representation/mlp/dense_1", "attn_pool.mlp.fc1", TRANSPOSED),
            *dense("representation/mlp/dense_2", "attn_pool.mlp.fc2", TRANSPOSED),
            *dense("pre_logits", "pre_logits.fc", TRANSPOSED),
            *dense("head", "head", TRANSPOSED),
            *dense("head_dist", "head_dist", TRANSPOSED),
        ]

    def refuses(self, config):
        has_position = config.class_token and config.position_on_prefix
        if config.num_registers and has_position and self.name != "dinov2":
            return "registers behind a class token with a position cannot be written; timm folds it into cls_token"
        return differing(
            config,
            _HELD,
            norm_placement=("pre",),
            position_embedding=("learned",),
            pooling=("token", "gap", "map"),
            patch_bias=(True, False) if config.embedding_norm else (True,),
            # Without a head there is nothing to write.
            head_bias=(True,) if config.num_classes else (True, False),
        )

    def constants(self, config):
        """DINOv2's mask token, by which its files are known: used in its training only, so zeros."""
        return {"mask_token": np.zeros((1, config.hidden_dim), "float32")} if self.name == "dinov2" else {}

    def infer(self, shapes, known_fields):
        hidden_dim, num_channels, patch_size = kernel_sizes(shapes, "patch_embed.proj.weight")
        has = lambda key: key in shapes  # noqa: E731
        inner = "w3" if has("blocks.0.mlp.w3.weight") else "fc2"
        mlp_dim = axes(shapes, f"blocks.0.mlp.{inner}.weight", 2)[1]
        gated = inner == "w3" or axes(shapes, "blocks.0.mlp.fc1.weight", 2)[0] == 2 * mlp_dim
        scales = (self.layer_scale.format(n=1), "ls1.gamma")
        # A class token with a final norm after the pooling is possible, but rare.
        gap = has("fc_norm.weight") or not has("cls_token")
        clip = has("norm_pre.weight")
        # timm's files do not state it, only the names of its models do; the most common one is the default.
        activation = known_fields.get("activation")
        fields = {
            "hidden_dim": hidden_dim,
            "num_channels": num_channels,
            "patch_size": patch_size,
            "num_layers": count_blocks(shapes, r"^blocks\.(\d+)\."),
            "mlp_dim": mlp_dim,
            "num_classes": count_classes(shapes, ("head.weight", "head_dist.weight"), ("head.bias", "head_dist.bias")),
            "class_token": has("cls_token"),
            "distillation_token": has("dist_token"),
            "num_registers": axes(shapes, self.registers, 3)[1] if has(self.registers) else 0,
            "pooling": "map" if has("attn_pool.latent") else "gap" if gap else "token",
            "pool_before_norm": has("fc_norm.weight"),
            "pre_logits_dim": axes(shapes, "pre_logits.fc.bias", 1)[0] if has("pre_logits.fc.bias") else None,
            "activation": "swiglu" if gated else "gelu" if activation in (None, "swiglu") else activation,
            "patch_bias": has("patch_embed.proj.bias") or not clip,
            "embedding_norm": clip,
            # A bias that only some blocks lack is reported as missing.
            "qkv_bias": any(key.endswith(".attn.qkv.bias") for key in shapes),
            "qk_norm": has("blocks.0.attn.q_norm.weight"),
            "layer_norm_epsilon": 1e-5 if clip else 1e-6,
            "layer_scale_init": 1e-5 if any(has(f"blocks.0.{scale}") for scale in scales) else None,
            "position_resize": self.position_resize,
            **timm_stem_fields(shapes),
        }
        if self.name == "dinov2" and fields["num_registers"]:
            fields["position_resize"] = "bicubic_antialias"
        prefix = fields["class_token"] + fields["distillation_token"]
        entries = axes(shapes, "pos_embed", 3)[1]
        return fields | position_fields(entries, prefix, fields, known_fields, self.square_positions)


TIMM = Timm()
# facebookresearch/deit models_v2.py: LayerScale under other names; positions without antialias.
DEIT = Timm(name="deit", layer_scale="gamma_{n}", position_resize="bicubic")
# facebookresearch/mae models_mae.py: with the decoder of pretraining, which belongs to no classifier.
MAE = Timm(ignored=(r"^decoder_", r"^mask_token$"), position_resize="bicubic")
# facebookresearch/dinov2 vision_transformer.py: a mask token for training alone, SwiGLU packed as w12 and w3; a table
# is read as square even if an image that is not has as many patches.
DINOV2 = Timm(
    name="dinov2",
    registers="register_tokens",
    swiglu=("w12", "w3"),
    ignored=("mask_token",),
    position_resize="bicubic_offset",
    square_positions=True,
)
