"""Configs: the base of all families, and the architecture of a Vision Transformer as plain data."""

import dataclasses
import json
import math
import re
import typing

import keras

from keras_vit.layers.core.resample import METHODS
from keras_vit.layers.vit.positions import POSITION_EMBEDDINGS
from keras_vit.models.aliases import resolve_aliases
from keras_vit.models.flops import block_multiply_adds
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
    nearest,
    replace_fields,
)

CLASSIFIER_ACTIVATIONS = (None, "linear", "softmax", "sigmoid")
_STEM = re.compile(r"(stem_\w+|patches|patch_encoder|embedding_norm)/")
_BLOCK = re.compile(r"encoder_block_(\d+)/")
_MERGING = re.compile(r"patch_merging_(\d+)/")


def int_if_square(pair):
    """An int for two equal sides, else the pair."""
    return pair[0] if pair[0] == pair[1] else pair


@dataclasses.dataclass(frozen=True)
class FeatureMap:
    """A stage of a model as a map of features.

    Args:
        channels: int.
        grid_size: `(h, w)` of the map; `(None, None)` where images may have any size.
        stride: int, pixels of an image to one position of the map; `(h, w)` where they differ.
        num_prefix_tokens: int. Tokens in front of those of the map.
        is_map: bool. Whether the stage is `(batch, h, w, channels)` already, rather than tokens.
        norm: str or `None`. The norm that `backbone(..., norm=True)` applies to it.
        indexed: bool. Whether an index counts it: the blocks of a ViT, the stages of a Swin Transformer.
    """

    channels: int
    grid_size: tuple
    stride: int | tuple
    num_prefix_tokens: int = 0
    is_map: bool = False
    norm: str | None = None
    indexed: bool = False


class ModelConfig:
    """Base of the frozen dataclasses that describe an architecture: changed by copy, read and written as JSON.

    Raises:
        TypeError: on an unknown field, with the nearest one, also where it is another library's word for one of ours.
        ValueError: on a word of another library that means something else here, with what to do instead.
    """

    def __new__(cls, *args, **fields):
        known = [field.name for field in dataclasses.fields(cls)]
        unknown = {name: value for name, value in fields.items() if name not in known}
        if unknown:
            meant = resolve_aliases(unknown, cls)
            name, value = next(iter(unknown.items()))
            own = [word for word in meant if word in known]
            advice = f"; use {', '.join(f'{word}={meant[word]!r}' for word in own)}." if own else nearest(name, known)
            raise TypeError(f"unknown field of {cls.__name__}{advice} Received: {name}={value!r}")
        return super().__new__(cls)

    def replace(self, **changes):
        """A copy with some fields changed and everything checked again.

        Raises:
            ValueError: on an unknown field, with the nearest one.
        """
        return replace_fields(self, changes)

    def get_config(self):
        """The fields as JSON types."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_config(cls, config):
        """The inverse of `get_config`; unknown or missing fields raise a `TypeError`."""
        return cls(**config)

    def to_json(self):
        """The config as an indented JSON string."""
        return json.dumps(self.get_config(), indent=2)

    @classmethod
    def from_json(cls, text) -> typing.Self:
        """The inverse of `to_json`."""
        return cls.from_config(json.loads(text))

    # The differences between families that other packages depend on. A family overrides those that hold for it.

    # str. Key of the tables in other packages that have a row for each family.
    family: typing.ClassVar[str]
    # Fields of families with patches.
    patch_size = None
    drop_remainder = False
    # Fields that the arrays of a checkpoint determine, so that a file without a config must agree with them.
    fields_from_arrays: typing.ClassVar[tuple] = ()

    @property
    def grid_size(self):
        """`(h, w)`, the patches of an image that the position table counts; `None` without such a table."""
        return None

    @property
    def windows(self):
        """`(h, w)` for each stage, the windows of relative position biases; `None` without them."""
        return None

    @property
    def has_stem(self):
        """bool. Whether a ResNet computes features from the image, and the patches are cut from those."""
        return False

    @property
    def is_built_of_keras_layers(self):
        """bool. Whether the layers with weights are those of Keras rather than of this library."""
        return False

    @property
    def input_size(self):
        """`(h, w)` of the images that the model takes, pixels; `None` for a side that may have any length."""
        return self.image_size

    def check_one_size(self, purpose):
        """Raises a `ValueError` if the model takes images of any size; `purpose` says what needs one."""
        if None in self.input_size:
            raise ValueError(
                f"{purpose} need a model for one image size: load the weights with dynamic_image_size=False and the "
                f"image_size of the images. Received: dynamic_image_size=True"
            )

    @property
    def stage_depths(self):
        """Tuple of ints: encoder blocks in each stage, `(num_layers,)` without stages; empty without encoder blocks."""
        return ()

    @property
    def has_global_attention(self):
        """bool. Whether every token attends to every other in every block."""
        return False

    @property
    def can_mask_patches(self):
        """bool. Whether the encoder can leave out patches, as a masked autoencoder does."""
        return False

    @property
    def has_flexible_grid(self):
        """bool. Whether any multiple of the patch size is an image size at which pretrained weights work well."""
        return False

    @property
    def norm_follows_pooling(self):
        """bool. Whether the final norm belongs to the head rather than to the encoder."""
        return False

    def feature_maps(self):
        """Dict from the names of stages to `FeatureMap`, in the order of the forward pass.

        Raises:
            ValueError: if the family has no stages of this library.
        """
        raise ValueError(f"feature maps need a Vision Transformer. Received: {type(self).__name__}")

    @property
    def activation_stage(self):
        """str. The last stage whose every patch or position has an effect on the outputs: that of Grad-CAM."""
        return f"stage_{len(self.depths) - 1}"

    @property
    def token_stage(self):
        """str. The stage with the final tokens of the patches."""
        return "encoder_norm"

    @property
    def patch_pitch(self):
        """`(h, w)`, pixels from a patch of the first encoder block to the next."""
        return self.patch_size

    @property
    def kernel_layer(self):
        """str. The layer whose kernel is applied to the pixels."""
        return "patch_encoder"

    def attention_grids(self):
        """For each encoder block `(h, w)` of the patches that attend to each other, and of their distance in pixels."""
        return []

    def token_grid(self, tokens):
        """`(h, w)`, the patches of a stage with this number of tokens, prefix included."""
        raise ValueError(f"a stage must have tokens. Received: {type(self).__name__}")

    def at_sizes_of_file(self, sizes):
        """Returns the config at the sizes of a checkpoint, to find out how its arrays are laid out.

        Args:
            sizes: dict of `image_size`, `patch_size` and `window_size`; those that the family lacks are ignored.

        Raises:
            ValueError: if the sizes do not fit together.
        """
        return self.replace(**{name: value for name, value in sizes.items() if name in vars(self)})

    @property
    def has_class_token(self):
        """bool. Whether the first token is a class token."""
        return False

    def with_pooling(self, features):
        """A copy whose head classifies `representation`, `class_token`, `mean` or `class_token+mean`.

        It has no pre-logits and gives logits.

        Raises:
            ValueError: if the family, or this model of it, cannot pool so.
        """
        if features != "representation":
            raise ValueError(
                f"a model of this family classifies its own representation; use features='representation'. "
                f"Received: features={features!r} for {type(self).__name__}"
            )
        return self.replace(classifier_activation=None)

    def adapt(self, **changes):
        """A copy with some fields changed, for a model that takes over the weights of this one.

        Raises:
            ValueError: on an unknown field, or a change that leaves open how the weights are used.
        """
        return self.replace(**changes)

    def variable_depth(self, path):
        """int. The depth of a variable: 0 for the stem, n for the n-th block, one more than the blocks for the head."""
        if _STEM.match(path):
            return 0
        if block := _BLOCK.match(path):
            return int(block[1]) + 1
        if merging := _MERGING.match(path):
            return sum(self.stage_depths[: int(merging[1])]) + 1
        in_encoder = path.startswith("encoder_norm/") and not self.norm_follows_pooling
        return sum(self.stage_depths) + (0 if in_encoder else 1)

    def sharded_widths(self):
        """Dict from name to int: the widths that model parallelism divides among devices.

        Raises:
            ValueError: if the family has no encoder blocks.
        """
        raise ValueError(f"model parallelism needs encoder blocks. Received: {type(self).__name__}")

    def multiply_adds(self):
        """int. Multiply-adds of the matrix products and convolutions in a forward pass of one image.

        Raises:
            ValueError: if the family, or a variation of it, is not counted.
        """
        raise ValueError(f"the operations of this family are not counted. Received: config={self!r}")


POOLING = ("token", "gap", "token_gap", "map")
ACTIVATIONS = ("gelu", "gelu_tanh", "quick_gelu", "swiglu")
NORM_PLACEMENTS = ("pre", "post")
DROP_PATH_SCHEDULES = ("linear", "constant")


@keras.saving.register_keras_serializable(package="keras_vit")
@dataclasses.dataclass(frozen=True, kw_only=True)
class ViTConfig(ModelConfig):
    """Everything that decides the graph and the weights of a Vision Transformer.

    Args:
        image_size: int or `(h, w)`, pixels; a multiple of `patch_size` unless `drop_remainder`. Default 224.
        patch_size: int or `(h, w)`, pixels. Default 16.
        drop_remainder: bool. Whether pixels right of and below the last whole patch are left out, as a convolution
            does it (SigLIP So400m/14 at 384). Default False: such sizes are refused.
        dynamic_image_size: bool. Whether the model takes images of any multiple of the patch; the positions, which are
            stored for `image_size`, are resized in each forward pass. Default False: images of `image_size`.
        num_channels: int. Channels of an image. Default 3.
        hidden_dim: int. Width of a token; a multiple of `num_heads`.
        num_layers: int. Encoder blocks.
        num_heads: int. Attention heads.
        mlp_dim: int. Width inside the MLP; with `swiglu` the width after gating.
        num_classes: int. Logits; 0 leaves the head away and the model returns the representation. Default 1000.
        head_bias: bool. Whether the head has a bias (the projection of CLIP has none). Default True.
        class_token, distillation_token: bool. Extra tokens in front of the patches. Defaults True, False.
        num_registers: int. Register tokens, between class token and patches, without positions. Default 0.
        pooling: `token` (the class token), `gap` (mean of the patch tokens), `token_gap` (both, side by side: DINOv2's
            classifier) or `map` (attention pooling of the patch tokens).
        pool_before_norm: bool. Whether the final norm follows the pooling (timm's `fc_norm`). Default False.
        pre_logits_dim: int or `None`. Width of a dense layer between pooling and head. Default `None`.
        pre_logits_activation: `tanh` or `None` (linear). Default `tanh`.
        classifier_activation: `None`, `softmax` or `sigmoid`. Default `None`: logits.
        activation: `gelu` (exact), `gelu_tanh`, `quick_gelu` or `swiglu`.
        norm_placement: `pre` or `post`, as in the original Transformer. Default `pre`.
        patch_bias: bool. Whether the projection of the patches has a bias (CLIP has none). Default True.
        embedding_norm: bool. Whether a norm follows the patch encoder (CLIP). Default False.
        qkv_bias: bool. Whether queries, keys and values have a bias. Default True.
        qk_norm: bool. Whether queries and keys are normalized in each head. Default False.
        layer_norm_epsilon: float. Default 1e-6.
        layer_scale_init: float or `None`. Initial LayerScale; `None` leaves it away.
        position_embedding: `learned`, or fixed: `sincos2d` (big_vision) or `sincos2d_moco` (MoCo-v3, MAE).
        position_on_prefix: bool. Whether the table has entries for class and distillation token. Default True.
        position_resize: one of `keras_vit.layers.core.resample.METHODS`; how weights of another grid are resized.
        dropout_rate: float in [0, 1). After positions, attention projection and both MLP layers.
        attention_dropout_rate: float in [0, 1). On the attention probabilities.
        drop_path_rate: float in [0, 1). Stochastic depth of the last block.
        drop_path_schedule: `linear` (from 0 in the first block) or `constant`.

    Raises:
        ValueError: if a field breaks these rules.

    Source: Dosovitskiy et al., "An Image is Worth 16x16 Words" (arXiv:2010.11929), table 1.
    """

    family = "vit"
    fields_from_arrays = ("pooling", "image_size")

    image_size: tuple = (224, 224)
    patch_size: tuple = (16, 16)
    drop_remainder: bool = False
    dynamic_image_size: bool = False
    num_channels: int = 3
    hidden_dim: int
    num_layers: int
    num_heads: int
    mlp_dim: int
    num_classes: int = 1000
    head_bias: bool = True
    class_token: bool = True
    distillation_token: bool = False
    num_registers: int = 0
    pooling: str = "token"
    pool_before_norm: bool = False
    pre_logits_dim: int | None = None
    pre_logits_activation: str | None = "tanh"
    classifier_activation: str | None = None
    activation: str = "gelu"
    norm_placement: str = "pre"
    patch_bias: bool = True
    embedding_norm: bool = False
    qkv_bias: bool = True
    qk_norm: bool = False
    layer_norm_epsilon: float = 1e-6
    layer_scale_init: float | None = None
    position_embedding: str = "learned"
    position_on_prefix: bool = True
    position_resize: str = "bicubic_antialias"
    dropout_rate: float = 0.0
    attention_dropout_rate: float = 0.0
    drop_path_rate: float = 0.0
    drop_path_schedule: str = "linear"

    def __post_init__(self):
        for name in ("image_size", "patch_size"):
            object.__setattr__(self, name, as_pair(getattr(self, name), name))
        self._check_patches()
        for name in ("num_channels", "hidden_dim", "num_layers", "num_heads", "mlp_dim"):
            check_positive(getattr(self, name), name)
        for name in ("dropout_rate", "attention_dropout_rate", "drop_path_rate"):
            object.__setattr__(self, name, check_rate(getattr(self, name), name))
        self._check_choices()
        self._check_counts()
        self._check_tokens()

    def _check_patches(self):
        if self.drop_remainder is not True:
            check_divides(self.image_size, self.patch_size)

    def _check_choices(self):
        for field in dataclasses.fields(self):
            if field.type is bool and not isinstance(getattr(self, field.name), bool):
                raise ValueError(
                    f"{field.name} must be True or False. Received: {field.name}={getattr(self, field.name)!r}"
                )
        check_choice(self.pooling, POOLING, "pooling")
        check_choice(self.pre_logits_activation, ("tanh", None), "pre_logits_activation")
        check_choice(self.classifier_activation, CLASSIFIER_ACTIVATIONS, "classifier_activation")
        check_choice(self.activation, ACTIVATIONS, "activation")
        check_choice(self.norm_placement, NORM_PLACEMENTS, "norm_placement")
        check_choice(self.position_embedding, POSITION_EMBEDDINGS, "position_embedding")
        check_choice(self.position_resize, METHODS, "position_resize")
        check_choice(self.drop_path_schedule, DROP_PATH_SCHEDULES, "drop_path_schedule")

    def _check_counts(self):
        for name in ("num_classes", "num_registers"):
            check_count(getattr(self, name), name)
        check_heads(self.hidden_dim, self.num_heads)
        if self.pre_logits_dim is not None:
            check_positive(self.pre_logits_dim, "pre_logits_dim")
        check_epsilon(self.layer_norm_epsilon, "layer_norm_epsilon")
        if self.layer_scale_init is not None and not is_number(self.layer_scale_init):
            raise ValueError(
                f"layer_scale_init must be a number or None. Received: layer_scale_init={self.layer_scale_init!r}"
            )

    def _check_tokens(self):
        if self.pooling in ("token", "token_gap") and not self.class_token:
            raise ValueError(
                f"pooling={self.pooling!r} needs class_token=True. Received: class_token={self.class_token}"
            )
        if self.pooling == "token_gap" and (self.pool_before_norm or self.distillation_token):
            raise ValueError(
                "pooling='token_gap' goes with neither pool_before_norm nor distillation_token. Received: "
                f"pool_before_norm={self.pool_before_norm}, distillation_token={self.distillation_token}"
            )
        if self.position_embedding != "learned" and self.hidden_dim % 4:
            raise ValueError(
                f"position_embedding={self.position_embedding!r} needs a hidden_dim that is a multiple of 4. "
                f"Received: hidden_dim={self.hidden_dim}"
            )
        if self.pool_before_norm and self.norm_placement == "post":
            raise ValueError(
                "pool_before_norm needs norm_placement='pre': post-norm blocks have no final norm. "
                f"Received: norm_placement={self.norm_placement!r}"
            )

    @property
    def grid_size(self):
        """`(h, w)`, the patches of an image."""
        return tuple(s // p for s, p in zip(self.image_size, self.patch_size, strict=True))

    @property
    def input_size(self):
        return (None, None) if self.dynamic_image_size else self.image_size

    def get_config(self):
        config = super().get_config()
        if not self.dynamic_image_size:
            # Absent where it is not so, so that such files also load where the field does not exist yet.
            del config["dynamic_image_size"]
        return config

    @property
    def num_prefix_tokens(self):
        """int. Tokens in front of the patches: class, distillation, registers."""
        return int(self.class_token) + int(self.distillation_token) + self.num_registers

    @property
    def stage_depths(self):
        return (self.num_layers,)

    @property
    def has_global_attention(self):
        return True

    @property
    def activation_stage(self):
        # Of a pooled token the other tokens of the last block have no effect.
        last = self.num_layers - (2 if self.pooling == "token" else 1)
        return "patch_encoder" if last < 0 else f"encoder_block_{last}"

    @property
    def token_stage(self):
        has_norm = self.norm_placement == "pre" and not self.pool_before_norm
        return "encoder_norm" if has_norm else f"encoder_block_{self.num_layers - 1}"

    def attention_grids(self):
        return [(self.grid_size, self.patch_pitch)] * self.num_layers

    def token_grid(self, tokens):
        return self.grid_size

    @property
    def can_mask_patches(self):
        return self.norm_placement == "pre" and not self.dynamic_image_size

    @property
    def has_flexible_grid(self):
        return True

    @property
    def norm_follows_pooling(self):
        return self.pool_before_norm

    @property
    def has_class_token(self):
        return self.class_token

    def with_pooling(self, features):
        plain = {"pre_logits_dim": None, "classifier_activation": None, "head_bias": True}
        if features == "representation":
            return self.replace(**plain)
        if self.norm_follows_pooling or self.distillation_token:
            reason = "whose norm follows the pooling" if self.norm_follows_pooling else "with a distillation token"
            raise ValueError(
                f"a head on {features!r} needs a model with a norm of all tokens and one head; use "
                f"features='representation'. Received: a model {reason}"
            )
        pooling = {"class_token": "token", "mean": "gap", "class_token+mean": "token_gap"}[features]
        return self.replace(pooling=pooling, **plain)

    def feature_maps(self):
        stride = int_if_square(self.patch_size)
        norm = "encoder_norm" if self.norm_placement == "pre" and not self.pool_before_norm else None
        grid_size = (None, None) if self.dynamic_image_size else self.grid_size
        tokens = FeatureMap(self.hidden_dim, grid_size, stride, self.num_prefix_tokens)
        block = dataclasses.replace(tokens, norm=norm, indexed=True)
        maps = {"patch_encoder": tokens}
        if self.embedding_norm:
            maps["embedding_norm"] = tokens
        maps |= {f"encoder_block_{i}": block for i in range(self.num_layers)}
        return maps | ({norm: tokens} if norm else {})

    def at_sizes_of_file(self, sizes):
        # An image may have pixels beyond the last whole patch; otherwise `drop_remainder` changes nothing.
        return super().at_sizes_of_file({**sizes, "drop_remainder": True})

    def sharded_widths(self):
        return {"hidden_dim": self.hidden_dim, "mlp_dim": self.mlp_dim}

    def multiply_adds(self):
        if self.pooling not in ("token", "gap") or self.pre_logits_dim:
            raise ValueError(
                "pooling must be 'token' or 'gap', without pre-logits. "
                f"Received: pooling={self.pooling!r}, pre_logits_dim={self.pre_logits_dim}"
            )
        patches, width = math.prod(self.grid_size), self.hidden_dim
        tokens = patches + self.num_prefix_tokens
        projection = patches * math.prod(self.patch_size) * self.num_channels * width
        block = block_multiply_adds(tokens, tokens, width, self.mlp_dim, self.activation == "swiglu")
        heads = 2 if self.distillation_token else 1
        return projection + self.num_layers * block + heads * width * self.num_classes

    def drop_path_rates(self):
        """One rate a block."""
        if self.drop_path_schedule == "constant" or self.num_layers == 1:
            return [self.drop_path_rate] * self.num_layers
        return [self.drop_path_rate * i / (self.num_layers - 1) for i in range(self.num_layers)]
