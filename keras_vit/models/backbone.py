"""Feature maps of a model: a backbone for segmentation, detection and other dense tasks."""

import dataclasses

import keras

from keras_vit.layers.core.normalization import LayerNormalization
from keras_vit.layers.core.token_map import TokenMap
from keras_vit.metadata import composition
from keras_vit.models.config import int_if_square
from keras_vit.validation import check_choice, check_positive, nearest

LAYOUTS = ("NHWC", "tokens")
PREFIXES = ("drop", "return")


@dataclasses.dataclass(frozen=True)
class FeatureInfo:
    """A feature map that a `Backbone` returns.

    Args:
        name: str. The stage of the model that it is, for example `encoder_block_11`.
        index: int or `None`. The number of the block of a ViT, of the stage of a Swin Transformer; `None` of other
            layers.
        channels: int.
        stride: int, pixels of an image to one position of the map; `(h, w)` where they differ.
        grid_size: `(h, w)` of the map; `(None, None)` where images may have any size.
    """

    name: str
    index: int | None
    channels: int
    stride: int | tuple
    grid_size: tuple


@keras.saving.register_keras_serializable(package="keras_vit")
class Backbone(keras.Model):
    """A functional `keras.Model` from images to feature maps, see `keras_vit.backbone`.

    `feature_info`, a tuple of `FeatureInfo`, describes them in the same order; a saved backbone keeps it.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.feature_info = ()

    def get_config(self):
        return {**super().get_config(), "feature_info": [dataclasses.asdict(info) for info in self.feature_info]}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        info = [_as_tuples(item) for item in config.pop("feature_info", [])]
        model = super().from_config(config, custom_objects=custom_objects)
        model.feature_info = tuple(FeatureInfo(**item) for item in info)
        return model


def _as_tuples(fields):
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


def build_backbone(model, indices=(-4, -3, -2, -1), norm=True, prefix="drop", layout="NHWC"):
    """Builds the backbone of a model; it shares the layers and weights of the model.

    Args:
        model: `keras.Model` of this library, or one built around it, whose images are prepared alike.
        indices: ints, names of stages, or an int for the last so many; see `keras_vit.backbone`.
        norm: bool. Whether the final norm is applied.
        prefix: `drop` or `return`.
        layout: `NHWC` or `tokens`.

    Returns:
        A `Backbone`.

    Raises:
        ValueError: on a stage that the model does not have, or another value that is not listed above.
    """
    check_choice(prefix, PREFIXES, "prefix")
    check_choice(layout, LAYOUTS, "layout")
    parts = composition(model)
    maps = parts.marker.content.config.feature_maps()
    indexed = [name for name, item in maps.items() if item.indexed]
    outputs, infos = [], []
    for name in _stages(indices, maps, indexed):
        item = maps[name]
        x = parts.tensors[name]
        if norm and item.norm:
            x = parts.inner.get_layer(item.norm)(x)
        features = _as_layout(x, item, layout, name, parts.tensors["patches"])
        if prefix == "return" and item.num_prefix_tokens:
            features = [features, x[:, : item.num_prefix_tokens]]
        outputs.append(features)
        index = indexed.index(name) if name in indexed else None
        infos.append(FeatureInfo(name, index, item.channels, item.stride, item.grid_size))
    outputs = outputs[0] if len(outputs) == 1 else outputs
    whole = parts.with_front(outputs, f"{model.name}_backbone")
    backbone = Backbone(whole.inputs[0], keras.tree.pack_sequence_as(outputs, whole.outputs), name=whole.name)
    backbone.feature_info = tuple(infos)
    return backbone


def _stages(indices, maps, indexed):
    """Names of the stages that `indices` stand for, in its order."""
    if isinstance(indices, str):
        indices = [indices]
    if isinstance(indices, int) and not isinstance(indices, bool):
        if not 0 < indices <= len(indexed):
            raise ValueError(f"indices must be at most the {len(indexed)} stages of the model. Received: {indices=}")
        indices = range(-indices, 0)
    names = []
    for index in indices:
        if isinstance(index, str):
            if index not in maps:
                raise ValueError(f"unknown stage{nearest(index, maps)} Received: {index!r}, known: {list(maps)}")
            names.append(index)
        elif type(index) is int and -len(indexed) <= index < len(indexed):
            names.append(indexed[index])
        else:
            raise ValueError(
                f"an index must be an int from {-len(indexed)} to {len(indexed) - 1}, one of {indexed}, "
                f"or a name of a stage. Received: {index!r} in indices={tuple(indices)!r}"
            )
    if not names or len(set(names)) < len(names):
        raise ValueError(f"indices must name at least one stage, and each once. Received: indices={tuple(indices)!r}")
    return names


def _as_layout(x, item, layout, name, patches):
    """A stage as a map, or as tokens without those in front; `patches` are on its grid where that may be any."""
    if layout == "NHWC" and not item.is_map:
        to_map = TokenMap(item.grid_size, item.num_prefix_tokens, dtype=x.dtype, name=f"{name}_map")
        return to_map(x, like=patches) if None in item.grid_size else to_map(x)
    if layout == "NHWC":
        return x
    if item.is_map:
        return keras.layers.Reshape((-1, item.channels), name=f"{name}_tokens")(x)
    return x[:, item.num_prefix_tokens :]


def simple_feature_pyramid(backbone, channels=256, scales=(4, 2, 1, 0.5)):
    """Builds ViTDet's pyramid of feature maps on the one map of a ViT; its layers are new and trained with the rest.

    Args:
        backbone: a `Backbone` with one map, `(batch, h, w, channels)`, for example `keras_vit.backbone(name, 1)`.
        channels: int. Channels of every map. Default 256.
        scales: of 4, 2, 1 and 0.5: the size of each map as a multiple of that of the backbone. Default all: strides 4,
            8, 16 and 32 for patches of 16 pixels.

    Returns:
        A `Backbone` to a list of maps `(batch, scale * h, scale * w, channels)`, finest first as `scales` has them.

    Raises:
        ValueError: if the backbone has several maps, or tokens; on another scale.

    Source: Li et al., "Exploring Plain Vision Transformer Backbones" (arXiv:2203.16527), section 3.
    """
    if len(backbone.outputs) != 1 or len(backbone.outputs[0].shape) != 4:
        raise ValueError(
            "a simple feature pyramid needs a backbone with one map: keras_vit.backbone(model, 1). "
            f"Received: outputs {[tuple(x.shape) for x in backbone.outputs]}"
        )
    check_positive(channels, "channels")
    (features,), (info,) = backbone.outputs, backbone.feature_info
    if not scales or any(scale not in (4, 2, 1, 0.5) for scale in scales):
        raise ValueError(f"scales must be of 4, 2, 1 and 0.5. Received: scales={scales!r}")
    maps, infos = [], []
    for number, scale in enumerate(scales):
        x, name = features, f"pyramid_{number}"
        if scale == 4:
            x = _doubled(x, info.channels // 2, f"{name}_up_1")
            x = keras.layers.Activation("gelu", name=f"{name}_gelu")(_normed(x, f"{name}_up_norm"))
        if scale >= 2:
            x = _doubled(x, info.channels // int(scale), f"{name}_up")
        if scale == 0.5:
            x = keras.layers.MaxPooling2D(2, name=f"{name}_down")(x)
        for size in (1, 3):
            x = keras.layers.Conv2D(channels, size, padding="same", use_bias=False, name=f"{name}_conv_{size}")(x)
            x = _normed(x, f"{name}_norm_{size}")
        maps.append(x)
        sides = info.stride if isinstance(info.stride, tuple) else (info.stride, info.stride)
        stride = int_if_square(tuple(int(side / scale) for side in sides))
        grid = tuple(None if side is None else int(side * scale) for side in info.grid_size)
        infos.append(FeatureInfo(info.name, info.index, channels, stride, grid))
    pyramid = Backbone(backbone.inputs[0], maps[0] if len(maps) == 1 else maps, name=f"{backbone.name}_pyramid")
    pyramid.feature_info = tuple(infos)
    return pyramid


def _doubled(x, channels, name):
    return keras.layers.Conv2DTranspose(channels, 2, strides=2, name=name)(x)


def _normed(x, name):
    return LayerNormalization(epsilon=1e-6, name=name)(x)
