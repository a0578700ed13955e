"""Semantic segmentation: a linear layer on the feature maps of a backbone, enlarged to the size of the image."""

import keras

from keras_vit.metadata import metadata, update_metadata
from keras_vit.models.backbone import build_backbone
from keras_vit.models.build import build_model
from keras_vit.validation import check_positive

LOGITS = "segmentation_logits"


def add_segmentation_head(backbone, num_classes, indices=(-1,), batch_norm=True, name=None):
    """Builds a linear segmentation model on a backbone.

    The maps are those of whole encoder blocks, behind the final norm, or of the stages of a Swin Transformer; smaller
    ones are enlarged to the largest. They are concatenated, normalized, classified by one dense layer at each place and
    enlarged bilinearly to the size of the image. The new layers are `segmentation_norm`, `segmentation_head` and
    `segmentation_logits`; `freeze=(r"(?!segmentation_).*",)` of a recipe trains them alone.

    Args:
        backbone: a model of this library, with or without a classifier, which is left out. Its layers are shared.
        num_classes: int.
        indices: which maps, as for `keras_vit.backbone`. Default the last one; `(-4, -3, -2, -1)` is DINOv2's "+ms"
            protocol without its several image sizes.
        batch_norm: bool. Whether batch normalization stands in front of the dense layer, as in DINOv2. Default True.
        name: str or `None`: that of the backbone.

    Returns:
        A functional `keras.Model` from images to float32 logits `(batch, height, width, num_classes)`.

    Raises:
        ValueError: if the backbone has no such maps, or takes images of any size.

    Source: DINOv2 (arXiv:2304.07193), section 7.4; facebookresearch/dinov2 `dinov2/eval/segmentation`, `BNHead`.
    """
    check_positive(num_classes, "num_classes")
    features, config = build_backbone(backbone, indices), metadata(backbone).config
    if None in features.inputs[0].shape[1:3]:
        raise ValueError(
            "a segmentation head needs a backbone of one image size, and slides over larger images; build it with "
            f"dynamic_image_size=False. Received: model={backbone.name!r} with dynamic_image_size=True"
        )
    maps = features.outputs
    largest = max((map_.shape[1:3] for map_ in maps), key=lambda size: size[0] * size[1])
    maps = [
        map_ if map_.shape[1:3] == largest else _enlarge(map_, largest, f"segmentation_enlarged_{i}")
        for i, map_ in enumerate(maps)
    ]
    x = keras.layers.Concatenate(dtype="float32", name="segmentation_features")(maps) if len(maps) > 1 else maps[0]
    if batch_norm:
        x = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, dtype="float32", name="segmentation_norm")(x)
    kernel = keras.initializers.RandomNormal(stddev=0.01)
    x = keras.layers.Dense(num_classes, kernel_initializer=kernel, dtype="float32", name="segmentation_head")(x)
    logits = _enlarge(x, config.image_size, LOGITS)
    return keras.Model(features.inputs, logits, name=name or backbone.name)


def build_segmenter(config, num_classes, indices=(-1,), batch_norm=True, input_spec=None, labels=None, name="model"):
    """Builds a linear segmentation model with random weights.

    Args:
        config: `ViTConfig`, `HybridConfig` or `SwinConfig` of the backbone.
        num_classes, indices, batch_norm: as for `add_segmentation_head`.
        input_spec: `InputSpec` or `None`: pixels to -1 .. 1.
        labels: class names or `None`.
        name: str.

    Returns:
        A `keras.Model`, as `add_segmentation_head` returns it.
    """
    backbone = build_model(config.replace(num_classes=0), input_spec, name=name)
    if labels is not None:
        update_metadata(backbone, labels=labels)
    return add_segmentation_head(backbone, num_classes, indices, batch_norm)


def is_segmenter(model):
    """Returns whether a model ends in the logits of a segmentation."""
    return bool(getattr(model, "layers", None)) and model.layers[-1].name == LOGITS


def num_segmentation_classes(model):
    """Returns the number of classes of a segmentation model.

    Raises:
        ValueError: if the model is none.
    """
    if not is_segmenter(model):
        raise ValueError(
            "a segmentation model is one that keras_vit.models.add_segmentation_head or a recipe with `segmentation` "
            f"has made. Received: model={getattr(model, 'name', model)!r}"
        )
    return model.outputs[0].shape[-1]


def _enlarge(x, size, name):
    """Resizes a map bilinearly, with half-pixel centers."""
    return keras.layers.Resizing(*size, "bilinear", data_format="channels_last", dtype="float32", name=name)(x)
