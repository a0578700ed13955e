"""Swin Transformers: their config, and their builder as plain functional `keras.Model`s."""

import dataclasses
import math

import keras

from keras_vit.layers import LayerNormalization, PatchEmbedding, Patches, PatchMerging, SwinBlock, TokenPooling
from keras_vit.layers.core.resample import BIAS_METHODS
from keras_vit.layers.swin.windows import MASK_VALUE, WINDOW_RULES, window_and_shift, window_and_shift_by_height
from keras_vit.loss_check import check_loss_at_compile
from keras_vit.metadata import LAYER_NAME, Metadata
from keras_vit.models.config import ACTIVATIONS, CLASSIFIER_ACTIVATIONS, FeatureMap, ModelConfig, int_if_square
from keras_vit.models.flops import block_multiply_adds
from keras_vit.models.heads import classifier
from keras_vit.models.vit import default_input_spec
from keras_vit.validation import (
    as_pair,
    check_choice,
    check_count,
    check_divides,
    check_epsilon,
    check_heads,
    check_positive,
    check_rate,
    is_number,
)


@keras.saving.register_keras_serializable(package="keras_vit")
@dataclasses.dataclass(frozen=True, kw_only=True)
class SwinConfig(ModelConfig):
    """Everything that decides the graph and the weights of a Swin Transformer.

    Args:
        image_size: int or `(h, w)`, pixels; a multiple of `patch_size`. Default 224.
        patch_size: int or `(h, w)`, pixels. Default 4.
        num_channels: int. Channels of an image. Default 3.
        embed_dim: int. Width of a token in the first stage; it doubles from stage to stage.
        depths: ints. Blocks of each stage.
        num_heads: ints. Attention heads of each stage; they divide its width.
        window_size: int or `(h, w)`, tokens. Default 7.
        mlp_ratio: float. Width inside the MLP in multiples of the stage's. Default 4.
        num_classes: int. Logits; 0 leaves the head away and the model returns the representation. Default 1000.
        version: 1, or 2: cosine attention, biases from coordinates, norms after the branches. Default 1.
        pretrained_window_sizes: ints or `None`. Version 2: for each stage the window of the weights' training;
            0 is the stage's own window. Default `None`: 0 in every stage.
        qkv_bias: bool. Whether queries, keys (version 1) and values have a bias. Default True.
        activation: `gelu` (exact), `gelu_tanh`, `quick_gelu` or `swiglu`. Default `gelu`.
        layer_norm_epsilon: float. Default 1e-5.
        window_rule: the source's way with grids that are smaller than the window or that it does not divide.
            `timm` decides window and shift on each axis and shifts before it fills up; `microsoft` decides on
            the smaller side and takes only what the window divides; `huggingface` decides as `microsoft`, in version 2
            on the height alone, and fills up before it shifts. On all other grids they agree. Default `timm`.
        position_resize: how tables of relative position biases of weights with another window are resized: one of
            `keras_vit.layers.core.resample.BIAS_METHODS`, `geometric` (timm) or `bicubic` (Microsoft). Version 2 has
            none. Default `geometric`.
        dropout_rate: float in [0, 1). After the patch embedding, attention projection and both MLP layers.
        attention_dropout_rate: float in [0, 1). On the attention probabilities.
        drop_path_rate: float in [0, 1). Stochastic depth of the last block; linear from 0 in the first one.
        classifier_activation: `None`, `softmax` or `sigmoid`. Default `None`: logits.

    Raises:
        ValueError: if a field breaks these rules.

    Source: Liu et al., arXiv:2103.14030, section 3.3, and arXiv:2111.09883, section 3.5.
    """

    family = "swin"

    image_size: tuple = (224, 224)
    patch_size: tuple = (4, 4)
    num_channels: int = 3
    embed_dim: int
    depths: tuple
    num_heads: tuple
    window_size: tuple = (7, 7)
    mlp_ratio: float = 4.0
    num_classes: int = 1000
    version: int = 1
    pretrained_window_sizes: tuple | None = None
    qkv_bias: bool = True
    activation: str = "gelu"
    layer_norm_epsilon: float = 1e-5
    window_rule: str = "timm"
    position_resize: str = "geometric"
    dropout_rate: float = 0.0
    attention_dropout_rate: float = 0.0
    drop_path_rate: float = 0.0
    classifier_activation: str | None = None

    def __post_init__(self):
        for name in ("image_size", "patch_size", "window_size"):
            object.__setattr__(self, name, as_pair(getattr(self, name), name))
        check_divides(self.image_size, self.patch_size)
        for name in ("num_channels", "embed_dim"):
            check_positive(getattr(self, name), name)
        for name in ("dropout_rate", "attention_dropout_rate", "drop_path_rate"):
            object.__setattr__(self, name, check_rate(getattr(self, name), name))
        check_choice(self.version, (1, 2), "version")
        check_choice(self.activation, ACTIVATIONS, "activation")
        check_choice(self.window_rule, WINDOW_RULES, "window_rule")
        check_choice(self.position_resize, BIAS_METHODS, "position_resize")
        check_choice(self.classifier_activation, CLASSIFIER_ACTIVATIONS, "classifier_activation")
        self._check_numbers()
        self._check_stages()
        self._check_rule()

    def _check_numbers(self):
        if not isinstance(self.qkv_bias, bool):
            raise ValueError(f"qkv_bias must be True or False. Received: qkv_bias={self.qkv_bias!r}")
        check_count(self.num_classes, "num_classes")
        if not is_number(self.mlp_ratio) or self.mlp_ratio * self.embed_dim < 1:
            raise ValueError(f"mlp_ratio must give a width of at least 1. Received: mlp_ratio={self.mlp_ratio!r}")
        check_epsilon(self.layer_norm_epsilon, "layer_norm_epsilon")

    def _check_stages(self):
        for name, least in (("depths", 1), ("num_heads", 1), ("pretrained_window_sizes", 0)):
            values = getattr(self, name)
            if values is None and name == "pretrained_window_sizes":
                continue
            valid = isinstance(values, tuple | list) and len(values) > 0
            if not valid or any(isinstance(v, bool) or not isinstance(v, int) or v < least for v in values):
                raise ValueError(f"{name} must hold one int of at least {least} a stage. Received: {name}={values!r}")
            object.__setattr__(self, name, tuple(values))
            if len(values) != len(self.depths):
                raise ValueError(f"{name} must be as long as depths. Received: {name}={values}, depths={self.depths}")
        for width, heads in zip(self.hidden_dims, self.num_heads, strict=True):
            check_heads(width, heads)
        if self.version == 1 and self.pretrained_window_sizes is not None:
            raise ValueError(
                "pretrained_window_sizes needs version=2. "
                f"Received: version=1, pretrained_window_sizes={self.pretrained_window_sizes}"
            )

    def _check_rule(self):
        if self.window_rule == "timm":
            return
        if self.window_size[0] != self.window_size[1]:
            raise ValueError(
                f"window_rule={self.window_rule!r} needs a square window. Received: window_size={self.window_size}"
            )
        if self.window_rule == "huggingface":
            return
        stages = list(zip(self.resolutions, self.windows, strict=True))
        for stage, (resolution, window) in enumerate(stages):
            odd = stage + 1 < len(stages) and any(side % 2 for side in resolution)
            if odd or any(side % w for side, w in zip(resolution, window, strict=True)):
                raise ValueError(
                    "window_rule='microsoft' needs a grid that is a multiple of the window in every stage, "
                    f"and even where patches are merged. Received: image_size={self.image_size}, "
                    f"stage {stage} with the grid {resolution} and the window {window}"
                )

    @property
    def hidden_dims(self):
        """Widths of the stages."""
        return tuple(self.embed_dim * 2**stage for stage in range(len(self.depths)))

    @property
    def resolutions(self):
        """`(h, w)` for each stage, tokens."""
        grid = tuple(s // p for s, p in zip(self.image_size, self.patch_size, strict=True))
        return tuple(tuple(-(-side // 2**stage) for side in grid) for stage in range(len(self.depths)))

    def attention_grids(self):
        return [
            (window, tuple(side * 2**stage for side in self.patch_size))
            for stage, (window, depth) in enumerate(zip(self.windows, self.depths, strict=True))
            for _ in range(depth)
        ]

    def token_grid(self, tokens):
        return next(grid for grid in self.resolutions if math.prod(grid) == tokens)

    @property
    def windows(self):
        """`(h, w)` for each stage: `window_size`, or less on a small grid."""
        return tuple(window for window, _ in self._windows_and_shifts())

    @property
    def shifts(self):
        """`(h, w)` for each stage: what its odd blocks are shifted by; the even ones are not."""
        return tuple(shift for _, shift in self._windows_and_shifts())

    def _windows_and_shifts(self):
        if self.window_rule == "huggingface" and self.version == 2:
            height = self.image_size[0] // self.patch_size[0]
            stages = range(len(self.depths))
            return [window_and_shift_by_height(height // 2**stage, self.window_size[0]) for stage in stages]
        return [window_and_shift(r, self.window_size, self.window_rule) for r in self.resolutions]

    @property
    def trained_windows(self):
        """`(h, w)` for each stage of version 2: the window whose farthest position has the coordinate 1."""
        trained = self.pretrained_window_sizes or [0] * len(self.depths)
        return tuple((t, t) if t else window for t, window in zip(trained, self.windows, strict=True))

    @property
    def stage_depths(self):
        return self.depths

    def feature_maps(self):
        maps, last = {}, len(self.depths) - 1
        for stage, (depth, channels) in enumerate(zip(self.depths, self.hidden_dims, strict=True)):
            stride = int_if_square(tuple(side * 2**stage for side in self.patch_size))
            tokens = FeatureMap(channels, self.resolutions[stage], stride)
            if not stage:
                maps["patch_encoder"] = tokens
            first = sum(self.depths[:stage])
            maps |= {f"encoder_block_{first + i}": tokens for i in range(depth)}
            # The final norm has the width of the last stage alone.
            norm = "encoder_norm" if stage == last else None
            maps[f"stage_{stage}"] = dataclasses.replace(tokens, norm=norm, indexed=True)
        return maps | {"encoder_norm": tokens}

    def adapt(self, **changes):
        """A copy with some fields changed, for a model that takes over the weights of this one.

        In version 2 the windows of training stay those of this config.

        Raises:
            ValueError: if `pretrained_window_sizes` must be passed, as the windows of training are not square.
        """
        config = self.replace(**changes)
        # The coordinates inside a window of one token are zero, whatever the window of training was.
        changed = any(new not in (old, (1, 1)) for new, old in zip(config.windows, self.windows, strict=True))
        if self.version == 1 or "pretrained_window_sizes" in changes or not changed:
            return config
        if any(height != width for height, width in self.trained_windows):
            raise ValueError(
                "pretrained_window_sizes must be passed for another window than that of the weights, if that is not "
                f"square. Received: windows {self.windows}"
            )
        return config.replace(pretrained_window_sizes=tuple(height for height, _ in self.trained_windows))

    def sharded_widths(self):
        # The widths of later stages are multiples of the first.
        return {"embed_dim": self.embed_dim, "embed_dim * mlp_ratio": int(self.embed_dim * self.mlp_ratio)}

    def multiply_adds(self):
        if self.version != 1:
            raise ValueError(f"version must be 1. Received: version={self.version}")
        total = math.prod(self.resolutions[0]) * math.prod(self.patch_size) * self.num_channels * self.embed_dim
        for stage, depth in enumerate(self.depths):
            width, window = self.hidden_dims[stage], self.windows[stage]
            # Padding up to whole windows takes part in the attention alone.
            padded = math.prod(-(-side // w) * w for side, w in zip(self.resolutions[stage], window, strict=True))
            tokens, mlp_dim = math.prod(self.resolutions[stage]), int(width * self.mlp_ratio)
            total += depth * (block_multiply_adds(padded, math.prod(window), width, 0) + 2 * tokens * width * mlp_dim)
            if stage:
                total += tokens * 2 * width * width  # four neighbors of half the width each, to one token
        return total + self.hidden_dims[-1] * self.num_classes

    def drop_path_rates(self):
        """One rate a block, counted through all stages."""
        blocks = sum(self.depths)
        return [self.drop_path_rate * i / max(blocks - 1, 1) for i in range(blocks)]


def build_swin(config, input_spec=None, labels=None, origin=None, dtype=None, name="swin"):
    """Builds a Swin Transformer.

    Every stage of the forward pass is a named layer, in this order: `metadata`, `patches`, `patch_encoder`, for
    every stage s its `encoder_block_{i}`, counted through all stages, and `stage_{s}`, an identity, with
    `patch_merging_{s}` in front of all but the first; `encoder_norm`, `representation`, `head`.

    Args:
        config: `SwinConfig`.
        input_spec: `InputSpec` or `None`: pixels to -1 .. 1, bicubic, no crop margin.
        labels: class names in the order of the logits, or `None`.
        origin: str or `None`. Where the weights come from.
        dtype: dtype policy of all layers, or `None`: the global one. The head computes in its variable dtype,
            so the logits of mixed precision are float32.
        name: str. The model's name.

    Returns:
        A `keras.Model` from `(batch, height, width, channels)` images, normalized, to `(batch, num_classes)`
        logits, or to the representation `(batch, embed_dim * 2 ** (stages - 1))` where `num_classes` is 0.
    """
    policy = keras.dtype_policies.get(dtype)
    input_spec = input_spec or default_input_spec(config)
    images = keras.Input((*config.image_size, config.num_channels), name="images")
    x = Metadata(config, input_spec, labels, origin, dtype=policy, name=LAYER_NAME)(images)
    x = Patches(config.patch_size, dtype=policy, name="patches")(x)
    x = PatchEmbedding(
        config.embed_dim, config.dropout_rate, config.layer_norm_epsilon, dtype=policy, name="patch_encoder"
    )(x)
    for stage in range(len(config.depths)):
        x = _stage(config, stage, x, policy)
    x = LayerNormalization(epsilon=config.layer_norm_epsilon, dtype=policy, name="encoder_norm")(x)
    x = TokenPooling("gap", dtype=policy, name="representation")(x)
    if config.num_classes:
        x = classifier(config, policy, "head")(x)
    return check_loss_at_compile(keras.Model(images, x, name=name))


def _stage(config, stage, tokens, policy):
    """One stage, the merging in front of it included."""
    x, first = tokens, sum(config.depths[:stage])
    if stage:
        x = PatchMerging(
            config.resolutions[stage - 1],
            config.version,
            config.layer_norm_epsilon,
            dtype=policy,
            name=f"patch_merging_{stage}",
        )(x)
    pretrained = config.pretrained_window_sizes[stage] if config.pretrained_window_sizes else 0
    for i, drop_path_rate in enumerate(config.drop_path_rates()[first : first + config.depths[stage]]):
        x = SwinBlock(
            config.num_heads[stage],
            int(config.hidden_dims[stage] * config.mlp_ratio),
            config.resolutions[stage],
            config.windows[stage],
            shift=config.shifts[stage] if i % 2 else 0,
            pad_first=config.window_rule == "huggingface",
            # transformers adds the mask of version 2 twice.
            masked=2 * MASK_VALUE if config.window_rule == "huggingface" and config.version == 2 else MASK_VALUE,
            version=config.version,
            pretrained_window_size=pretrained or None,
            qkv_bias=config.qkv_bias,
            activation=config.activation,
            dropout_rate=config.dropout_rate,
            attention_dropout_rate=config.attention_dropout_rate,
            drop_path_rate=drop_path_rate,
            layer_norm_epsilon=config.layer_norm_epsilon,
            dtype=policy,
            name=f"encoder_block_{first + i}",
        )(x)
    # Not `keras.layers.Identity`: its config cannot hold a dtype policy.
    return keras.layers.Activation("linear", dtype=policy, name=f"stage_{stage}")(x)
