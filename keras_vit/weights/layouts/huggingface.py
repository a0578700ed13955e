"""Hugging Face transformers: ViT, DeiT, DINOv2 (with registers), and the image towers of CLIP and SigLIP.

Source: transformers 4.x `modeling_{vit,deit,dinov2,dinov2_with_registers,clip,siglip}.py`, whose names are those
inside the public files.
"""

import dataclasses
import re

from keras_vit.weights.config.shapes import axes, count_classes, kernel_sizes, position_fields
from keras_vit.weights.layouts.base import Layout, count_blocks, dense, differing, norm, rule
from keras_vit.weights.layouts.transforms import CONV_OIHW, NO_BATCH, SAME, TRANSPOSED, VECTOR_TOKEN

OURS = "encoder_block_{i}"
_BODIES = ("", "vit.", "deit.", "dinov2.", "dinov2_with_registers.", "swin.", "swinv2.")
_CLASSIFIERS = ("classifier", "cls_classifier")
_COMMON = {"norm_placement": ("pre",), "position_embedding": ("learned",), "qk_norm": (False,)}


@dataclasses.dataclass(frozen=True)
class HuggingFace(Layout):
    """Keys of ViT, DeiT and DINOv2.

    Args:
        prefix: `vit.`, `deit.`, `dinov2.`, `dinov2_with_registers.`, or nothing in files of a bare model.
        dino: bool. DINOv2's names of norms, MLP and LayerScale.
    """

    prefix: str = "vit."
    dino: bool = False
    name = "huggingface"
    # ViTMAEForPreTraining and ViTForMaskedImageModeling have a decoder of pretraining, which belongs to no classifier.
    ignored = (r"(^|\.)embeddings\.mask_token$", r"^decoder\.")

    @property
    def square_positions(self):
        """bool. DINOv2 resizes its table from a square for every image that is none; a ViT's is that of its images."""
        return self.dino

    def table(self, config):
        at, block = self.prefix + "embeddings.", self.prefix + "encoder.layer.{i}."
        norms = ("norm1", "norm2") if self.dino else ("layernorm_before", "layernorm_after")
        mlp = ("mlp.fc1", "mlp.fc2") if self.dino else ("intermediate.dense", "output.dense")
        if config.activation == "swiglu":
            mlp = ("mlp.weights_in", "mlp.weights_out")
        parts = [f"{block}attention.attention.{part}" for part in ("query", "key", "value")]
        head = "cls_classifier" if config.distillation_token else "classifier"
        return [
            rule("patch_encoder/projection/kernel", f"{at}patch_embeddings.projection.weight", CONV_OIHW),
            rule("patch_encoder/projection/bias", f"{at}patch_embeddings.projection.bias"),
            rule("patch_encoder/class_token", f"{at}cls_token"),
            rule("patch_encoder/distillation_token", f"{at}distillation_token"),
            rule("patch_encoder/register_tokens", f"{at}register_tokens"),
            rule("patch_encoder/position_embedding", f"{at}position_embeddings"),
            *norm(f"{OURS}/attention_norm", block + norms[0]),
            *dense(f"{OURS}/attention/qkv", parts, TRANSPOSED),
            *dense(f"{OURS}/attention/projection", f"{block}attention.output.dense", TRANSPOSED),
            rule(f"{OURS}/attention_scale/gamma", f"{block}layer_scale1.lambda1"),
            *norm(f"{OURS}/mlp_norm", block + norms[1]),
            *dense(f"{OURS}/mlp/dense_1", block + mlp[0], TRANSPOSED),
            *dense(f"{OURS}/mlp/dense_2", block + mlp[1], TRANSPOSED),
            rule(f"{OURS}/mlp_scale/gamma", f"{block}layer_scale2.lambda1"),
            *norm("encoder_norm", f"{self.prefix}layernorm"),
            *dense("pre_logits", f"{self.prefix}pooler.dense", TRANSPOSED),
            *dense("head", head, TRANSPOSED),
            *dense("head_dist", "distillation_classifier", TRANSPOSED),
        ]

    def refuses(self, config):
        if self.dino != (config.layer_scale_init is not None):
            return "only DINOv2's files hold LayerScale"
        if (config.pooling == "token_gap") != (self.dino and config.num_classes > 0):
            return "pooling='token_gap' is that of DINOv2's classifier, which has no other"
        if config.pre_logits_dim and (config.num_classes or config.pre_logits_dim != config.hidden_dim or self.dino):
            return "a layer between pooling and head is the pooler of a ViT without a head, as wide as its tokens"
        swiglu = ("swiglu",) if self.dino else ()
        return differing(
            config,
            ("distillation_token", "layer_scale_init", "qkv_bias"),
            **_COMMON,
            class_token=(True,),
            pooling=("token", "token_gap") if self.dino else ("token",),
            pool_before_norm=(False,),
            embedding_norm=(False,),
            patch_bias=(True,),
            head_bias=(True,),
            position_on_prefix=(True,),
            num_registers=(config.num_registers,) if self.dino else (0,),
            activation=("gelu", "gelu_tanh", "quick_gelu", *swiglu),
        )

    def infer(self, shapes, known_fields):
        at, block = self.prefix + "embeddings.", self.prefix + "encoder.layer."
        hidden_dim, num_channels, patch_size = kernel_sizes(shapes, f"{at}patch_embeddings.projection.weight")
        second = "mlp.fc2" if self.dino else "output.dense"
        gated = f"{block}0.mlp.weights_in.weight" in shapes
        heads = ("classifier", "cls_classifier", "distillation_classifier")
        num_classes = count_classes(shapes, *([f"{head}.{name}" for head in heads] for name in ("weight", "bias")))
        registers, pooler = f"{at}register_tokens", f"{self.prefix}pooler.dense.bias"
        fields = {
            "hidden_dim": hidden_dim,
            "num_channels": num_channels,
            "patch_size": patch_size,
            "num_layers": count_blocks(shapes, r"encoder\.layer\.(\d+)\."),
            "mlp_dim": axes(shapes, f"{block}0.{'mlp.weights_out' if gated else second}.weight", 2)[1],
            "num_classes": num_classes,
            "distillation_token": f"{at}distillation_token" in shapes,
            "num_registers": axes(shapes, registers, 3)[1] if registers in shapes else 0,
            "pooling": "token_gap" if self.dino and num_classes else "token",
            "pre_logits_dim": axes(shapes, pooler, 1)[0] if pooler in shapes else None,
            "activation": "swiglu" if gated else "gelu",
            # A bias that only some blocks lack is reported as missing.
            "qkv_bias": any(re.search(r"\.attention\.attention\.(query|key|value)\.bias$", key) for key in shapes),
            "layer_norm_epsilon": 1e-6 if self.dino else 1e-12,
            "layer_scale_init": 1.0 if self.dino else None,
            # Only the model with registers is antialiased.
            "position_resize": "bicubic_antialias" if registers in shapes else "bicubic",
        }
        prefix = 1 + fields["distillation_token"]
        entries = axes(shapes, f"{at}position_embeddings", 3)[1]
        return fields | position_fields(entries, prefix, fields, known_fields, self.square_positions)


@dataclasses.dataclass(frozen=True)
class HuggingFaceTower(Layout):
    """Keys of the image towers of CLIP and SigLIP.

    Args:
        clip: bool. CLIP's class token and norm before the blocks; else SigLIP's attention pooling. Its projection to
            the space of the texts is the head where `num_classes` is as wide, else ignored.
        prefix: in front of every key.
        classifies: bool. Whether it is a SigLIP with a classifier on the mean of its tokens; its pooling, which the
            file still holds, is then ignored.
    """

    clip: bool = True
    prefix: str = "vision_model."
    classifies: bool = False
    name = "huggingface"
    square_positions = True
    _texts = (r"^text_model\.", r"^logit_(scale|bias)$", r"^(text|visual)_projection\.", r"position_ids$")

    @property
    def ignored(self):
        """Patterns of keys: the tower of the texts and, beside a classifier, the attention pooling."""
        return (*self._texts, rf"^{re.escape(self.prefix)}head\.") if self.classifies else self._texts

    def table(self, config):
        at, block = self.prefix + "embeddings.", self.prefix + "encoder.layers.{i}."
        pooling = self.prefix + "head."
        projection = [rule("head/kernel", "visual_projection.weight", TRANSPOSED)] if config.num_classes else []
        if self.classifies:
            projection = dense("head", "classifier", TRANSPOSED)
        parts = [f"{block}self_attn.{part}_proj" for part in "qkv"]
        packed = [
            rule(
                (f"representation/query/{mine}", f"representation/key_value/{mine}"),
                f"{pooling}attention.in_proj_{their}",
                transform,
                split_sizes=(1, 2),
            )
            for mine, their, transform in (("kernel", "weight", TRANSPOSED), ("bias", "bias", SAME))
        ]
        return [
            rule("patch_encoder/projection/kernel", f"{at}patch_embedding.weight", CONV_OIHW),
            rule("patch_encoder/projection/bias", f"{at}patch_embedding.bias"),
            rule("patch_encoder/class_token", f"{at}class_embedding", VECTOR_TOKEN),
            rule("patch_encoder/position_embedding", f"{at}position_embedding.weight", NO_BATCH),
            *norm("embedding_norm", f"{self.prefix}pre_layrnorm"),
            *norm(f"{OURS}/attention_norm", f"{block}layer_norm1"),
            *dense(f"{OURS}/attention/qkv", parts, TRANSPOSED),
            *dense(f"{OURS}/attention/projection", f"{block}self_attn.out_proj", TRANSPOSED),
            *norm(f"{OURS}/mlp_norm", f"{block}layer_norm2"),
            *dense(f"{OURS}/mlp/dense_1", f"{block}mlp.fc1", TRANSPOSED),
            *dense(f"{OURS}/mlp/dense_2", f"{block}mlp.fc2", TRANSPOSED),
            *norm("encoder_norm", f"{self.prefix}post_layernorm"),
            rule("representation/probe", f"{pooling}probe"),
            *packed,
            *dense("representation/projection", f"{pooling}attention.out_proj", TRANSPOSED),
            *norm("representation/norm", f"{pooling}layernorm"),
            *dense("representation/mlp/dense_1", f"{pooling}mlp.fc1", TRANSPOSED),
            *dense("representation/mlp/dense_2", f"{pooling}mlp.fc2", TRANSPOSED),
            *projection,
        ]

    def refuses(self, config):
        return differing(
            config,
            ("position_on_prefix",),
            **_COMMON,
            qkv_bias=(True,),
            class_token=(self.clip,),
            embedding_norm=(self.clip,),
            patch_bias=(not self.clip,),
            pooling=("token",) if self.clip else ("gap",) if self.classifies else ("map",),
            pool_before_norm=(False,),
            num_registers=(0,),
            distillation_token=(False,),
            layer_scale_init=(None,),
            # CLIP's projection to the space of the texts is a head without a bias.
            num_classes=(config.num_classes if self.classifies or (self.clip and not config.head_bias) else 0,),
            head_bias=(True,) if self.classifies else (True, False),
            pre_logits_dim=(None,),
            activation=("gelu", "gelu_tanh", "quick_gelu"),
        )

    def infer(self, shapes, known_fields):
        at = self.prefix + "embeddings."
        hidden_dim, num_channels, patch_size = kernel_sizes(shapes, f"{at}patch_embedding.weight")
        # A file of CLIP holds the projection even if the model does not use it.
        projection_dim = count_classes(shapes, ("visual_projection.weight",), ())
        projects = 0 < projection_dim == known_fields.get("num_classes")
        classes = count_classes(shapes, ("classifier.weight",), ("classifier.bias",)) if self.classifies else 0
        fields = {
            "hidden_dim": hidden_dim,
            "num_channels": num_channels,
            "patch_size": patch_size,
            "num_layers": count_blocks(
                [key for key in shapes if key.startswith(self.prefix)], r"encoder\.layers\.(\d+)\."
            ),
            "mlp_dim": axes(shapes, f"{self.prefix}encoder.layers.0.mlp.fc1.bias", 1)[0],
            "num_classes": projection_dim if projects else classes,
            "head_bias": not projects,
            "class_token": self.clip,
            "pooling": "token" if self.clip else "gap" if self.classifies else "map",
            "embedding_norm": self.clip,
            "patch_bias": not self.clip,
            "activation": "quick_gelu" if self.clip else "gelu_tanh",
            "layer_norm_epsilon": 1e-5 if self.clip else 1e-6,
            "position_resize": "bicubic",
        }
        entries = axes(shapes, f"{at}position_embedding.weight", 2)[0]
        return fields | position_fields(entries, int(self.clip), fields, known_fields, self.square_positions)


def body_prefix(shapes, ending):
    """Finds the prefix of a backbone's keys, which the keys of its head lack; `None` for several.

    Args:
        shapes: dict from key to shape.
        ending: of a key of the body.
    """
    classified = any(f"{head}.weight" in shapes for head in _CLASSIFIERS)
    for prefix in (key.removesuffix(ending) for key in shapes if key.endswith(ending)):
        # Another name is that of a backbone only if a head is beside it.
        if prefix in _BODIES or (classified and re.fullmatch(r"\w+\.", prefix)):
            return prefix
    return None


def detect_huggingface(shapes):
    """Detects the Hugging Face layout of a file, or `None`."""
    tower = next((p for p in ("vision_model.", "") if f"{p}embeddings.patch_embedding.weight" in shapes), None)
    if tower is not None:
        clip = f"{tower}pre_layrnorm.weight" in shapes
        return HuggingFaceTower(clip, tower, not clip and "classifier.weight" in shapes)
    ending = "embeddings.patch_embeddings.projection.weight"
    prefix = body_prefix(shapes, ending)
    if prefix is None or f"{prefix}embeddings.cls_token" not in shapes:
        return None
    return HuggingFace(prefix, any(".layer_scale1." in key for key in shapes))
