"""Google's original Vision Transformers and big_vision: Flax parameters in `.npz` files.

Source: google-research/vision_transformer `models_vit.py`; google-research/big_vision `models/vit.py`. The activation
is Flax' `nn.gelu`, the tanh approximation. Positions are resized by `scipy.ndimage.zoom(order=1)`.
"""

import dataclasses
import functools
import re

import numpy as np

from keras_vit.weights.config.shapes import axes, count_classes, position_fields
from keras_vit.weights.layouts.base import Layout, count_blocks, dense, differing, norm, rule
from keras_vit.weights.layouts.hybrid import google_stem_fields, google_stem_rules
from keras_vit.weights.layouts.transforms import CONV_HWIO, HEADS_FIRST, HEADS_LAST, SAME

PREFIXES = ("params/img/", "opt/target/img/", "opt/target/", "params/", "img/", "")
TABLES = ("Transformer/posembed_input/pos_embedding", "Transformer/pos_embedding", "pos_embedding")
_STACK, _BLOCK = "Transformer/encoderblock/", "Transformer/encoderblock_"
_KERNEL = ("kernel", "bias")


def _linear(ours, theirs, transform=SAME):
    return dense(ours, theirs, transform, tuple(f"/{name}" for name in _KERNEL))


def _scaled(ours, theirs):
    return norm(ours, theirs, ("/scale", "/bias"))


def _heads(ours, theirs):
    """A dense layer, or several joined, whose outputs are split into heads."""
    theirs = (theirs,) if isinstance(theirs, str) else theirs
    return [rule(f"{ours}/{name}", tuple(f"{prefix}/{name}" for prefix in theirs), HEADS_LAST) for name in _KERNEL]


def _attention_out(ours, theirs):
    return [rule(f"{ours}/kernel", f"{theirs}/kernel", HEADS_FIRST), rule(f"{ours}/bias", f"{theirs}/bias")]


@dataclasses.dataclass(frozen=True)
class Flax(Layout):
    """Keys of a flattened tree of Flax parameters.

    Args:
        name: str.
        prefix: str in front of every key.
        modules: names of the block's attention, second norm and MLP, which Flax numbers.
        positions: key of the position table.
        stacked: bool. Whether all blocks lie in one array with a leading axis (`nn.scan`).
        pooling: str in front of the keys of the attention pooling; nothing in big_vision's first files.
    """

    name: str
    prefix: str
    modules: tuple
    positions: str
    stacked: bool = False
    pooling: str = "MAPHead_0/"
    # Where models without a class token had an entry for it all the same, big_vision drops it (`fix_old_checkpoints`).
    spare_position = True
    ignored = (r"^opt/state/", r"^params/(t|b)$", r"^(params/|opt/target/)?txt/", r"(^|/)step$")

    def table(self, config):
        ours, theirs = "encoder_block_{i}", f"{_BLOCK}{{i}}/"
        attention, mlp_norm, mlp = (theirs + name for name in self.modules)
        pooling = self.pooling
        rules = [
            *google_stem_rules(config),
            *_linear("patch_encoder/projection", "embedding", CONV_HWIO),
            rule("patch_encoder/class_token", "cls"),
            rule("patch_encoder/position_embedding", self.positions),
            *_scaled(f"{ours}/attention_norm", f"{theirs}LayerNorm_0"),
            *_heads(f"{ours}/attention/qkv", [f"{attention}/{part}" for part in ("query", "key", "value")]),
            *_attention_out(f"{ours}/attention/projection", f"{attention}/out"),
            *_scaled(f"{ours}/mlp_norm", mlp_norm),
            *_linear(f"{ours}/mlp/dense_1", f"{mlp}/Dense_0"),
            *_linear(f"{ours}/mlp/dense_2", f"{mlp}/Dense_1"),
            *_scaled("encoder_norm", "Transformer/encoder_norm"),
            rule("representation/probe", f"{pooling}probe"),
            *_heads("representation/query", f"{pooling}MultiHeadDotProductAttention_0/query"),
            *_heads(
                "representation/key_value",
                [f"{pooling}MultiHeadDotProductAttention_0/{part}" for part in ("key", "value")],
            ),
            *_attention_out("representation/projection", f"{pooling}MultiHeadDotProductAttention_0/out"),
            *_scaled("representation/norm", f"{pooling}LayerNorm_0"),
            *_linear("representation/mlp/dense_1", f"{pooling}MlpBlock_0/Dense_0"),
            *_linear("representation/mlp/dense_2", f"{pooling}MlpBlock_0/Dense_1"),
            *_linear("pre_logits", "pre_logits"),
            *_linear("head", "head"),
        ]
        return [dataclasses.replace(r, theirs=tuple(self.prefix + key for key in r.theirs)) for r in rules]

    def refuses(self, config):
        on_prefix = (True, False) if not config.class_token else (self.positions != "pos_embedding",)
        if config.class_token and config.pooling == "gap":
            return "a model with pooling='gap' has no class token"
        return differing(
            config,
            ("class_token", "stem_depths", "stem_width", "stem_rule"),
            distillation_token=(False,),
            num_registers=(0,),
            layer_scale_init=(None,),
            qk_norm=(False,),
            qkv_bias=(True,),
            embedding_norm=(False,),
            patch_bias=(True,),
            head_bias=(True,),
            pool_before_norm=(False,),
            norm_placement=("pre",),
            pooling=("token", "gap", "map"),
            position_embedding=("learned",) if self.name == "google" else ("learned", "sincos2d"),
            position_on_prefix=on_prefix,
            activation=("gelu", "gelu_tanh", "quick_gelu"),
        )

    def unpack(self, checkpoint):
        """Splits stacked blocks into single ones."""
        if not self.stacked:
            return checkpoint
        stack, block = self.prefix + _STACK, self.prefix + _BLOCK
        shapes, sources = {}, {}
        for key, shape in checkpoint.shapes.items():
            if not key.startswith(stack):
                shapes[key] = shape
                continue
            if not shape:
                raise ValueError(f"stacked blocks must have an axis that counts them. Received: {key!r} without axes")
            for i in range(shape[0]):
                single = f"{block}{i}/{key.removeprefix(stack)}"
                shapes[single], sources[single] = shape[1:], (key, i)

        # One rule is applied to all blocks before the next, with three stacks at most: query, key and value.
        # Mapped stacks take no memory, and compressed ones are decompressed once.
        stack_of = functools.lru_cache(maxsize=3)(checkpoint.__getitem__)

        def read(key):
            if key not in sources:
                return checkpoint[key]
            source, i = sources[key]
            return stack_of(source)[i]

        packed = {key: source for key, (source, _) in sources.items()}
        return checkpoint.derive(shapes, read, packed)

    def pack(self, tensors):
        """Inverts `unpack` for a dict of arrays."""
        if not self.stacked:
            return tensors
        packed, blocks = {}, {}
        for key, value in tensors.items():
            match = re.match(re.escape(self.prefix + _BLOCK) + r"(\d+)/(.*)", key)
            if match:
                blocks.setdefault(match[2], {})[int(match[1])] = value
            else:
                packed[key] = value
        for name, values in blocks.items():
            packed[f"{self.prefix}{_STACK}{name}"] = np.stack([values[i] for i in range(len(values))])
        return packed

    def infer(self, shapes, known_fields):
        shapes = {k.removeprefix(self.prefix): shape for k, shape in shapes.items() if k.startswith(self.prefix)}
        *patch_size, num_channels, hidden_dim = axes(shapes, "embedding/kernel", 4)
        attention, _, mlp = self.modules
        pre_logits = "pre_logits/bias"
        fields = {
            "hidden_dim": hidden_dim,
            "num_channels": num_channels,
            "patch_size": tuple(patch_size),
            "num_layers": count_blocks(shapes, r"^Transformer/encoderblock_(\d+)/"),
            "num_heads": axes(shapes, f"{_BLOCK}0/{attention}/query/bias", 2)[0],
            "mlp_dim": axes(shapes, f"{_BLOCK}0/{mlp}/Dense_0/bias", 1)[0],
            "num_classes": count_classes(shapes, ("head/kernel",), ("head/bias",), outputs=1),
            "class_token": "cls" in shapes,
            "pooling": "map" if f"{self.pooling}probe" in shapes else "token" if "cls" in shapes else "gap",
            "pre_logits_dim": axes(shapes, pre_logits, 1)[0] if pre_logits in shapes else None,
            "activation": "gelu_tanh",
            "position_resize": "bilinear_corners",
            **google_stem_fields(shapes),
        }
        if self.name != "google" and self.positions not in shapes:
            return fields | {"position_embedding": "sincos2d", "position_on_prefix": False}
        entries = axes(shapes, self.positions, 3)[1]
        return fields | position_fields(
            entries, int(fields["class_token"]), fields, known_fields, spare="cls" not in shapes
        )


PRE_LINEN = ("MultiHeadDotProductAttention_1", "LayerNorm_2", "MlpBlock_3")
LINEN = ("MultiHeadDotProductAttention_0", "LayerNorm_1", "MlpBlock_0")
GOOGLE = Flax("google", "", PRE_LINEN, TABLES[0])
BIG_VISION = Flax("big_vision", "params/", LINEN, TABLES[2])


def detect_flax(shapes):
    """Detects the `Flax` layout of a file, or `None`: with prefix, numbers, key of the position table and stacking."""
    prefix = next((p for p in PREFIXES if f"{p}embedding/kernel" in shapes), None)
    if prefix is None:
        return None
    stacked = any(key.startswith(prefix + _STACK) for key in shapes)
    old = any(f"/{PRE_LINEN[0]}/" in key for key in shapes)
    # Models without a table have the later numbers.
    positions = next((table for table in TABLES if prefix + table in shapes), TABLES[0] if old else TABLES[2])
    google = old and positions == TABLES[0]
    name, modules = "google" if google else "big_vision", PRE_LINEN if old else LINEN
    return Flax(name, prefix, modules, positions, stacked, "" if f"{prefix}probe" in shapes else "MAPHead_0/")
