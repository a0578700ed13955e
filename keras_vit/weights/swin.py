"""Swin Transformers of both versions: Microsoft's files, timm's, and Hugging Face's.

Source: microsoft/Swin-Transformer `models/swin_transformer{,_v2}.py`; timm `swin_transformer{,_v2}.py`, which moves the
merging of patches to the start of the next stage; transformers `modeling_swin{,v2}.py`.
"""

import dataclasses
import math
import re

import numpy as np

from keras_vit.layers.windows import log_coordinates, padded_size, relative_position_index, shift_mask
from keras_vit.models import SwinConfig
from keras_vit.weights.layout import Layout, count_blocks, dense, norm, rule
from keras_vit.weights.transforms import CONV_OIHW, TRANSPOSED


@dataclasses.dataclass(frozen=True)
class Names:
    """A source's words, below a prefix, for the parts of a Swin Transformer."""

    patches: str
    embedding_norm: str
    stages: str
    norms: tuple
    attention: str
    projection: str
    mlp: tuple
    biases: tuple
    coordinates: str
    final_norm: str


OFFICIAL = Names(
    patches="patch_embed.proj",
    embedding_norm="patch_embed.norm",
    stages="layers",
    norms=("norm1", "norm2"),
    attention="attn",
    projection="attn.proj",
    mlp=("mlp.fc1", "mlp.fc2"),
    biases=("q_bias", "v_bias"),
    coordinates="cpb_mlp",
    final_norm="norm",
)
HUGGINGFACE = Names(
    patches="embeddings.patch_embeddings.projection",
    embedding_norm="embeddings.norm",
    stages="encoder.layers",
    norms=("layernorm_before", "layernorm_after"),
    attention="attention.self",
    projection="attention.output.dense",
    mlp=("intermediate.dense", "output.dense"),
    biases=("query.bias", "value.bias"),
    coordinates="continuous_position_bias_mlp",
    final_norm="layernorm",
)


@dataclasses.dataclass(frozen=True)
class Swin(Layout):
    """Keys of a Swin Transformer.

    Args:
        name: str, also the rule of its windows.
        words: `Names`.
        prefix: str in front of every key but the head's.
        head: key of the classifier.
        merging_starts_stage: bool. Whether a stage begins with the merging of patches, as timm has it.
        buffers: bool. Whether files hold the constants of the graph.
    """

    name: str
    words: Names = OFFICIAL
    prefix: str = ""
    head: str = "head"
    merging_starts_stage: bool = False
    buffers: bool = False
    unmodelled = (r"\.relative_position_index$", r"\.attn_mask$", r"\.relative_coords_table$")

    def _blocks(self, config):
        """`(stage, number in the stage, number in the model)` of every block."""
        pairs = [(stage, block) for stage, depth in enumerate(config.depths) for block in range(depth)]
        return [(stage, block, i) for i, (stage, block) in enumerate(pairs)]

    def table(self, config):
        words, prefix = self.words, self.prefix
        rules = [
            *dense("patch_encoder/projection", prefix + words.patches, CONV_OIHW),
            *norm("patch_encoder/norm", prefix + words.embedding_norm),
            *norm("encoder_norm", prefix + words.final_norm),
            *dense("head", self.head, TRANSPOSED),
        ]
        for stage, block, i in self._blocks(config):
            rules += self._block(f"encoder_block_{i}", f"{prefix}{words.stages}.{stage}.blocks.{block}")
        for stage in range(1, len(config.depths)):
            place = stage if self.merging_starts_stage else stage - 1
            theirs = f"{prefix}{words.stages}.{place}.downsample"
            rules.append(rule(f"patch_merging_{stage}/reduction/kernel", f"{theirs}.reduction.weight", TRANSPOSED))
            rules += norm(f"patch_merging_{stage}/norm", f"{theirs}.norm")
        return rules

    def _block(self, ours, theirs):
        words, attention = self.words, f"{theirs}.{self.words.attention}"
        parts = [f"{attention}.{part}" for part in ("query", "key", "value")]
        qkv = parts if words is HUGGINGFACE else f"{attention}.qkv"
        network = f"{attention}.{words.coordinates}"
        return [
            *norm(f"{ours}/attention_norm", f"{theirs}.{words.norms[0]}"),
            *dense(f"{ours}/attention/qkv", qkv, TRANSPOSED),
            rule(f"{ours}/attention/query_bias", f"{attention}.{words.biases[0]}"),
            rule(f"{ours}/attention/value_bias", f"{attention}.{words.biases[1]}"),
            rule(f"{ours}/attention/relative_position_bias_table", f"{attention}.relative_position_bias_table"),
            rule(f"{ours}/attention/logit_scale", f"{attention}.logit_scale"),
            rule(f"{ours}/attention/cpb_kernel_1", f"{network}.0.weight", TRANSPOSED),
            rule(f"{ours}/attention/cpb_bias_1", f"{network}.0.bias"),
            rule(f"{ours}/attention/cpb_kernel_2", f"{network}.2.weight", TRANSPOSED),
            *dense(f"{ours}/attention/projection", f"{theirs}.{words.projection}", TRANSPOSED),
            *norm(f"{ours}/mlp_norm", f"{theirs}.{words.norms[1]}"),
            *dense(f"{ours}/mlp/dense_1", f"{theirs}.{words.mlp[0]}", TRANSPOSED),
            *dense(f"{ours}/mlp/dense_2", f"{theirs}.{words.mlp[1]}", TRANSPOSED),
        ]

    def refuses(self, config):
        if config.window_rule != self.name and not _rules_agree(config, self.name):
            return f"window_rule={config.window_rule!r} treats this image size otherwise than {self.name!r}"
        return None

    def constants(self, config):
        """The constants of the graph that the source keeps in its files, by key."""
        if not self.buffers:
            return {}
        found = {}
        for stage, block, _ in self._blocks(config):
            window, shift = config.windows[stage], config.shifts[stage] if block % 2 else (0, 0)
            attention = f"{self.prefix}{self.words.stages}.{stage}.blocks.{block}.{self.words.attention}"
            tokens = math.prod(window)
            index = relative_position_index(window).astype("int64").reshape(tokens, tokens)
            found[f"{attention}.relative_position_index"] = index
            mask = shift_mask(padded_size(config.resolutions[stage], window), window, shift)
            if mask is not None and self.words is OFFICIAL:
                found[f"{attention.removesuffix('.attn')}.attn_mask"] = mask
            if config.version == 2:
                trained = (config.pretrained_window_sizes or [0] * len(config.depths))[stage]
                table = log_coordinates(window, (trained, trained) if trained else window)
                found[f"{attention}.relative_coords_table"] = table.reshape(1, 2 * window[0] - 1, 2 * window[1] - 1, 2)
        return found

    def check_constants(self, checkpoint, config):
        """Raises a `ValueError` where a file's coordinates are those of another window of training."""
        for key, ours in self.constants(config).items():
            if not key.endswith("relative_coords_table") or checkpoint.shapes.get(key) != ours.shape:
                continue
            if not np.allclose(checkpoint[key], ours, atol=1e-5):
                raise ValueError(
                    "pretrained_window_sizes must be that of the weights, which a file does not name; pass it. "
                    f"Received: pretrained_window_sizes={config.pretrained_window_sizes} for {key!r} of "
                    f"{str(checkpoint.path)!r}"
                )

    def infer(self, shapes, hints):
        words, stages = self.words, self.prefix + self.words.stages
        embed_dim, num_channels, *patch_size = shapes[f"{self.prefix}{words.patches}.weight"]
        count = count_blocks(shapes, re.escape(stages) + r"\.(\d+)\.blocks\.")
        depths = [count_blocks(shapes, re.escape(f"{stages}.{s}") + r"\.blocks\.(\d+)\.") for s in range(count)]
        firsts = [f"{stages}.{s}.blocks.0.{words.attention}" for s in range(count)]
        version = 2 if f"{firsts[0]}.logit_scale" in shapes else 1
        width = shapes[f"{stages}.0.blocks.0.{words.mlp[0]}.bias"][0]
        fields = {
            "embed_dim": embed_dim,
            "num_channels": num_channels,
            "patch_size": tuple(patch_size),
            "depths": tuple(depths),
            "mlp_ratio": width / embed_dim,
            "num_classes": shapes[f"{self.head}.bias"][0] if f"{self.head}.bias" in shapes else 0,
            "version": version,
            "window_rule": self.name,
        }
        if version == 2:
            fields["num_heads"] = tuple(shapes[f"{first}.logit_scale"][0] for first in firsts)
            index = shapes.get(f"{firsts[0]}.relative_position_index")
            if index:
                fields["window_size"] = math.isqrt(index[0])
            return fields
        fields["num_heads"] = tuple(shapes[f"{first}.relative_position_bias_table"][1] for first in firsts)
        entries = shapes[f"{firsts[0]}.relative_position_bias_table"][0]
        fields["window_size"] = hints.get("window_size", (math.isqrt(entries) + 1) // 2)
        if "image_size" not in hints and isinstance(fields["window_size"], int):
            # The published models have as many tokens in the last stage as in a window.
            fields["image_size"] = tuple(2 ** (count - 1) * fields["window_size"] * side for side in patch_size)
        return fields

    def make_config(self, fields):
        """The config of inferred fields."""
        for name in ("window_size", "image_size"):
            if name not in fields:
                raise ValueError(
                    f"{name} cannot be told from a file of Swin Transformer V2; pass {name}=. "
                    f"Received: layout {self.name!r}"
                )
        return SwinConfig(**fields)


def _rules_agree(config, other):
    try:
        same = config.replace(window_rule=other)
    except ValueError:
        return False
    padded = any(
        side % window
        for resolution, sizes in zip(config.resolutions, config.windows, strict=True)
        for side, window in zip(resolution, sizes, strict=True)
    )
    return not padded and (same.windows, same.shifts) == (config.windows, config.shifts)


TIMM = Swin("timm", head="head.fc", merging_starts_stage=True)
MICROSOFT = Swin("microsoft", buffers=True)


def detect_swin(shapes):
    """The `Swin` layout of a file, or `None`."""
    first = next((key for key in shapes if key.endswith("layers.0.blocks.0.attention.self.query.weight")), None)
    if first is not None:
        prefix = first.removesuffix("encoder.layers.0.blocks.0.attention.self.query.weight")
        buffers = any(key.endswith("relative_position_index") for key in shapes)
        return Swin("huggingface", HUGGINGFACE, prefix, "classifier", buffers=buffers)
    if "layers.0.blocks.0.attn.qkv.weight" not in shapes:
        return None
    official = any(key.startswith("layers.0.downsample.") for key in shapes) or "head.weight" in shapes
    return MICROSOFT if official else TIMM


def swin_to_write(name, config):
    """The object that writes a Swin Transformer in a layout, or `None`."""
    prefix = ("swinv2." if config.version == 2 else "swin.") if config.num_classes else ""
    huggingface = Swin("huggingface", HUGGINGFACE, prefix, "classifier", buffers=True)
    return {"timm": TIMM, "microsoft": MICROSOFT, "huggingface": huggingface}.get(name)
