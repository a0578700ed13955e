"""torchvision's Vision Transformers.

Source: torchvision `models/vision_transformer.py`; its first public files name the MLP's layers otherwise.
"""

import dataclasses

from keras_vit.weights.config.shapes import axes, count_classes, kernel_sizes, position_fields
from keras_vit.weights.layouts.base import Layout, count_blocks, dense, differing, norm, rule
from keras_vit.weights.layouts.transforms import CONV_OIHW, TRANSPOSED

_BLOCK, _OURS = "encoder.layers.encoder_layer_{i}", "encoder_block_{i}"


@dataclasses.dataclass(frozen=True)
class Torchvision(Layout):
    """Keys of a torchvision state dict.

    Args:
        mlp: names of the MLP's two layers: `("0", "3")`, or `("linear_1", "linear_2")` in old files.
    """

    mlp: tuple = ("0", "3")
    name = "torchvision"

    def table(self, config):
        return [
            rule("patch_encoder/projection/kernel", "conv_proj.weight", CONV_OIHW),
            rule("patch_encoder/projection/bias", "conv_proj.bias"),
            rule("patch_encoder/class_token", "class_token"),
            rule("patch_encoder/position_embedding", "encoder.pos_embedding"),
            *norm(f"{_OURS}/attention_norm", f"{_BLOCK}.ln_1"),
            *dense(f"{_OURS}/attention/qkv", f"{_BLOCK}.self_attention.in_proj", TRANSPOSED, ("_weight", "_bias")),
            *dense(f"{_OURS}/attention/projection", f"{_BLOCK}.self_attention.out_proj", TRANSPOSED),
            *norm(f"{_OURS}/mlp_norm", f"{_BLOCK}.ln_2"),
            *dense(f"{_OURS}/mlp/dense_1", f"{_BLOCK}.mlp.{self.mlp[0]}", TRANSPOSED),
            *dense(f"{_OURS}/mlp/dense_2", f"{_BLOCK}.mlp.{self.mlp[1]}", TRANSPOSED),
            *norm("encoder_norm", "encoder.ln"),
            *dense("pre_logits", "heads.pre_logits", TRANSPOSED),
            *dense("head", "heads.head", TRANSPOSED),
        ]

    def refuses(self, config):
        return differing(
            config,
            (),
            class_token=(True,),
            distillation_token=(False,),
            num_registers=(0,),
            pooling=("token",),
            pool_before_norm=(False,),
            layer_scale_init=(None,),
            qk_norm=(False,),
            qkv_bias=(True,),
            embedding_norm=(False,),
            patch_bias=(True,),
            head_bias=(True,),
            norm_placement=("pre",),
            position_embedding=("learned",),
            position_on_prefix=(True,),
            activation=("gelu", "gelu_tanh", "quick_gelu"),
        )

    def infer(self, shapes, known_fields):
        hidden_dim, num_channels, patch_size = kernel_sizes(shapes, "conv_proj.weight")
        first = "encoder.layers.encoder_layer_0"
        pre_logits = "heads.pre_logits.bias"
        fields = {
            "hidden_dim": hidden_dim,
            "num_channels": num_channels,
            "patch_size": patch_size,
            "num_layers": count_blocks(shapes, r"encoder_layer_(\d+)\."),
            "mlp_dim": axes(shapes, f"{first}.mlp.{self.mlp[0]}.bias", 1)[0],
            "num_classes": count_classes(shapes, ("heads.head.weight",), ("heads.head.bias",)),
            "pre_logits_dim": axes(shapes, pre_logits, 1)[0] if pre_logits in shapes else None,
            "position_resize": "bicubic",
        }
        return fields | position_fields(axes(shapes, "encoder.pos_embedding", 3)[1], 1, fields, known_fields)


TORCHVISION = Torchvision()
TORCHVISION_OLD = Torchvision(mlp=("linear_1", "linear_2"))
