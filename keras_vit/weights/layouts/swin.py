"""Swin Transformers of both versions: Microsoft's files, timm's, and Hugging Face's.

Source: microsoft/Swin-Transformer `models/swin_transformer{,_v2}.py`; timm `swin_transformer{,_v2}.py`, which moves the
merging of patches to the start of the next stage; transformers `modeling_swin{,v2}.py`.
"""

import dataclasses
import math
import re

from keras_vit.layers.swin.windows import log_coordinates, padded_size, relative_position_index, shift_mask
from keras_vit.models import SwinConfig
from keras_vit.weights.config.shapes import axes, count_classes, kernel_sizes, ratio_of_widths
from keras_vit.weights.layouts.base import Layout, count_blocks, dense, norm, rule, unknown_field
from keras_vit.weights.layouts.huggingface import body_prefix
from keras_vit.weights.layouts.swin_windows import image_size_field, window_fields, window_of_coordinates
from keras_vit.weights.layouts.transforms import CONV_OIHW, TRANSPOSED


@dataclasses.dataclass(frozen=True)
class Names:
    """Names of the parts of a Swin Transformer in a source, after a prefix."""

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


_FIELDS = frozenset(
    [
        "image_size",
        "patch_size",
        "num_channels",
        "embed_dim",
        "depths",
        "num_heads",
        "window_size",
        "mlp_ratio",
        "num_classes",
        "version",
        "pretrained_window_sizes",
        "qkv_bias",
        "activation",
        "layer_norm_epsilon",
        "window_rule",
        "position_resize",
        "dropout_rate",
        "attention_dropout_rate",
        "drop_path_rate",
        "classifier_activation",
    ]
)
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
        names: `Names`.
        prefix: str in front of every key but the head's.
        head: key of the classifier.
        merging_starts_stage: bool. Whether a stage begins with the merging of patches, as timm has it.
        buffers: bool. Whether files hold the constants of the graph.
        position_resize: how the source resizes the tables of relative position biases.
    """

    name: str
    names: Names = OFFICIAL
    prefix: str = ""
    head: str = "head"
    merging_starts_stage: bool = False
    buffers: bool = False
    position_resize: str = "bicubic"
    config_class = SwinConfig
    ignored = (r"\.relative_position_index$", r"\.attn_mask$", r"\.relative_coords_table$")

    def _blocks(self, config):
        """`(stage, number in the stage, number in the model)` of every block."""
        pairs = [(stage, block) for stage, depth in enumerate(config.depths) for block in range(depth)]
        return [(stage, block, i) for i, (stage, block) in enumerate(pairs)]

    def table(self, config):
        names, prefix = self.names, self.prefix
        rules = [
            *dense("patch_encoder/projection", prefix + names.patches, CONV_OIHW),
            *norm("patch_encoder/norm", prefix + names.embedding_norm),
            *norm("encoder_norm", prefix + names.final_norm),
            *dense("head", self.head, TRANSPOSED),
        ]
        for stage, block, i in self._blocks(config):
            rules += self._block(f"encoder_block_{i}", f"{prefix}{names.stages}.{stage}.blocks.{block}")
        for stage in range(1, len(config.depths)):
            place = stage if self.merging_starts_stage else stage - 1
            theirs = f"{prefix}{names.stages}.{place}.downsample"
            rules.append(rule(f"patch_merging_{stage}/reduction/kernel", f"{theirs}.reduction.weight", TRANSPOSED))
            rules += norm(f"patch_merging_{stage}/norm", f"{theirs}.norm")
        return rules

    def _block(self, ours, theirs):
        names, attention = self.names, f"{theirs}.{self.names.attention}"
        parts = [f"{attention}.{part}" for part in ("query", "key", "value")]
        qkv = parts if names is HUGGINGFACE else f"{attention}.qkv"
        network = f"{attention}.{names.coordinates}"
        return [
            *norm(f"{ours}/attention_norm", f"{theirs}.{names.norms[0]}"),
            *dense(f"{ours}/attention/qkv", qkv, TRANSPOSED),
            rule(f"{ours}/attention/query_bias", f"{attention}.{names.biases[0]}"),
            rule(f"{ours}/attention/value_bias", f"{attention}.{names.biases[1]}"),
            rule(f"{ours}/attention/relative_position_bias_table", f"{attention}.relative_position_bias_table"),
            rule(f"{ours}/attention/logit_scale", f"{attention}.logit_scale"),
            rule(f"{ours}/attention/cpb_kernel_1", f"{network}.0.weight", TRANSPOSED),
            rule(f"{ours}/attention/cpb_bias_1", f"{network}.0.bias"),
            rule(f"{ours}/attention/cpb_kernel_2", f"{network}.2.weight", TRANSPOSED),
            *dense(f"{ours}/attention/projection", f"{theirs}.{names.projection}", TRANSPOSED),
            *norm(f"{ours}/mlp_norm", f"{theirs}.{names.norms[1]}"),
            *dense(f"{ours}/mlp/dense_1", f"{theirs}.{names.mlp[0]}", TRANSPOSED),
            *dense(f"{ours}/mlp/dense_2", f"{theirs}.{names.mlp[1]}", TRANSPOSED),
        ]

    def refuses(self, config):
        if config.window_rule != self.name and not _rules_agree(config, self.name):
            return f"window_rule={config.window_rule!r} differs from {self.name!r} for this image size"
        return unknown_field(config, _FIELDS)

    def constants(self, config):
        """Returns the constants of the graph that the source stores in its files, by key."""
        if not self.buffers:
            return {}
        constants = {}
        for stage, block, _ in self._blocks(config):
            window, shift = config.windows[stage], config.shifts[stage] if block % 2 else (0, 0)
            attention = f"{self.prefix}{self.names.stages}.{stage}.blocks.{block}.{self.names.attention}"
            tokens = math.prod(window)
            index = relative_position_index(window).astype("int64").reshape(tokens, tokens)
            constants[f"{attention}.relative_position_index"] = index
            mask = shift_mask(padded_size(config.resolutions[stage], window), window, shift)
            if mask is not None and self.names is OFFICIAL:
                constants[f"{attention.removesuffix('.attn')}.attn_mask"] = mask
            if config.version == 2:
                table = log_coordinates(window, config.trained_windows[stage])
                coordinates = table.reshape(1, 2 * window[0] - 1, 2 * window[1] - 1, 2)
                constants[f"{attention}.relative_coords_table"] = coordinates
        return constants

    def _trained_windows(self, checkpoint):
        """Infers the window of training of each stage from a file's coordinates; 0 if it cannot be inferred."""
        stages = self.prefix + self.names.stages
        count = count_blocks(checkpoint, re.escape(stages) + r"\.(\d+)\.blocks\.")
        keys = [f"{stages}.{s}.blocks.0.{self.names.attention}.relative_coords_table" for s in range(count)]
        return tuple(window_of_coordinates(checkpoint[key]) if key in checkpoint else 0 for key in keys)

    def check_constants(self, checkpoint, config):
        """Raises a `ValueError` if a file's coordinates belong to another window of training."""
        if config.version == 1:
            return
        for trained, ours in zip(self._trained_windows(checkpoint), config.trained_windows, strict=True):
            if trained and (trained, trained) != ours:
                raise ValueError(
                    "pretrained_window_sizes must be that of the weights; build the model with it. "
                    f"Received: pretrained_window_sizes={config.pretrained_window_sizes} with the windows "
                    f"{config.windows}, and {str(checkpoint.path)!r} of weights trained with the window {trained}"
                )

    def infer(self, shapes, known_fields):
        names, stages = self.names, self.prefix + self.names.stages
        embed_dim, num_channels, patch_size = kernel_sizes(shapes, f"{self.prefix}{names.patches}.weight")
        count = count_blocks(shapes, re.escape(stages) + r"\.(\d+)\.blocks\.")
        depths = [count_blocks(shapes, re.escape(f"{stages}.{s}") + r"\.blocks\.(\d+)\.") for s in range(count)]
        firsts = [f"{stages}.{s}.blocks.0.{names.attention}" for s in range(count)]
        version = 2 if f"{firsts[0]}.logit_scale" in shapes else 1
        heads = "logit_scale" if version == 2 else "relative_position_bias_table"
        # (width of a token, width inside the MLP)
        outputs = [axes(shapes, f"{stages}.{s}.blocks.0.{names.mlp[1]}.weight", 2) for s in range(count)]
        gated = axes(shapes, f"{stages}.0.blocks.0.{names.mlp[0]}.weight", 2)[0] == 2 * outputs[0][1]
        bias = ("query.bias" if names is HUGGINGFACE else "qkv.bias", names.biases[0])[version - 1]
        fields = {
            "embed_dim": embed_dim,
            "num_channels": num_channels,
            "patch_size": patch_size,
            "depths": tuple(depths),
            # (entries, heads), or (heads, 1, 1)
            "num_heads": tuple(axes(shapes, f"{first}.{heads}", 1 + version)[2 - version] for first in firsts),
            "mlp_ratio": ratio_of_widths(outputs),
            **({"activation": "swiglu"} if gated else {}),
            "num_classes": count_classes(shapes, (f"{self.head}.weight",), (f"{self.head}.bias",)),
            "version": version,
            "qkv_bias": f"{firsts[0]}.{bias}" in shapes,
            "window_rule": self.name,
            "position_resize": self.position_resize,
        } | window_fields(shapes, firsts, patch_size, known_fields)
        return fields | image_size_field(shapes, firsts, fields, known_fields)

    def infer_values(self, checkpoint):
        """Infers `pretrained_window_sizes` from a file's coordinates, if it has them."""
        trained = self._trained_windows(checkpoint)
        return {"pretrained_window_sizes": trained} if any(trained) else {}

    def merge(self, inferred, stated):
        """Merges as in all layouts, but with the stated image size, which no table determines."""
        stated = {name: value for name, value in stated.items() if name == "image_size" or name not in inferred}
        return {**inferred, **stated}

    def make_config(self, fields):
        """Builds the config of inferred fields."""
        for name in ("window_size", "image_size"):
            if name not in fields:
                raise ValueError(
                    f"{name} cannot be inferred from this file of a Swin Transformer; pass {name}=. "
                    f"Received: layout {self.name!r}, version {fields['version']}"
                )
        # The default of timm and transformers has four entries for any number of stages; they ignore the surplus.
        trained = (fields.get("pretrained_window_sizes") or ())[: len(fields["depths"])]
        config = SwinConfig(**{**fields, "pretrained_window_sizes": trained if any(trained) else None})
        # The model's own windows are the default of `pretrained_window_sizes`.
        own = config.version == 2 and config.trained_windows == config.windows
        return config.replace(pretrained_window_sizes=None) if own else config


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


TIMM = Swin("timm", head="head.fc", merging_starts_stage=True, position_resize="geometric")
MICROSOFT = Swin("microsoft", buffers=True)


def detect_swin(shapes):
    """Detects the `Swin` layout of a file, or `None`."""
    prefix = body_prefix(shapes, "encoder.layers.0.blocks.0.attention.self.query.weight")
    if prefix is not None:
        buffers = any(key.endswith("relative_position_index") for key in shapes)
        return Swin("huggingface", HUGGINGFACE, prefix, "classifier", buffers=buffers)
    if "layers.0.blocks.0.attn.qkv.weight" not in shapes:
        return None
    # timm's files have neither; nor do they have the constants, which identify a single stage without a head.
    official = any(key.startswith("layers.0.downsample.") for key in shapes) or "head.weight" in shapes
    single = not any(key.startswith("layers.1.") for key in shapes) and "head.fc.weight" not in shapes
    constants = any(key.endswith(".relative_position_index") for key in shapes)
    return MICROSOFT if official or (single and constants) else TIMM


def swin_to_write(name, config):
    """Selects the layout object that writes a Swin Transformer."""
    prefix = ("swinv2." if config.version == 2 else "swin.") if config.num_classes else ""
    huggingface = Swin("huggingface", HUGGINGFACE, prefix, "classifier", buffers=True)
    return {"timm": TIMM, "microsoft": MICROSOFT, "huggingface": huggingface}[name]
