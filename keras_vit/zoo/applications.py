"""Models as functions, `preprocess_input` and `decode_predictions`, as in Keras Applications."""

import re

import keras
import numpy as np

from keras_vit.backend.runtime import to_numpy
from keras_vit.metadata import metadata, output
from keras_vit.models import VARIANTS
from keras_vit.outputs import class_names, score_activation
from keras_vit.preprocessing import InputSpec
from keras_vit.weights.hub.catalog import imagenet_ids, read_labels
from keras_vit.zoo.create import create_model


def _create(variant, fields, include_top, weights, dtype, name, overrides):
    """Creates the model of an application; fields that are `None` are those of the weights or the variant."""
    fields = {field: value for field, value in fields.items() if value is not None}
    if not include_top:
        fields["num_classes"] = 0
        overrides.pop("classes", None)  # Keras Applications ignore it too.
    return create_model(variant, weights, dtype=dtype, model_name=name, **fields, **overrides)


def _named(function, name, documentation):
    function.__name__ = function.__qualname__ = name
    function.__doc__ = documentation
    return function


def _vit_application(name, variant):
    """Makes the function of one size of Vision Transformers; `variant` gives the defaults."""
    default = VARIANTS[variant]

    def application(
        image_size=None,
        patch_size=None,
        num_classes=None,
        pooling=None,
        include_top=True,
        weights=None,
        classifier_activation=None,
        dtype=None,
        name=None,
        **overrides,
    ):
        fields = {
            "image_size": image_size,
            "patch_size": patch_size,
            "num_classes": num_classes,
            "pooling": pooling,
            "classifier_activation": classifier_activation,
        }
        return _create(variant, fields, include_top, weights, dtype, name, overrides)

    documentation = f"""Vision Transformer, the size of `{variant}`.

    Args:
        image_size: int or `(h, w)`, pixels; a multiple of `patch_size`. Default {default.image_size[0]}.
        patch_size: int or `(h, w)`, pixels. Default {default.patch_size[0]}.
        num_classes: int. Logits; 0 as `include_top=False`. Default: those of the weights, or 1000.
        pooling: `token`, `gap` or `map`. Default: that of the weights, or `{default.pooling}`.
        include_top: bool. Whether the model ends in the classifier; else it returns the pooled
            representation `(batch, hidden_dim)`. For tokens see `keras_vit.features`. Default True.
        weights: as for `create_model`: `None`, a tag such as those of
            `keras_vit.list_models("{variant}*", pretrained=True)`, or a path.
        classifier_activation: `None` (logits), `softmax` or `sigmoid`. Default `None`.
        dtype: dtype policy or `None`: the global one.
        name: str or `None`. The model's name.
        **overrides: further fields of `ViTConfig`.

    Returns:
        A functional `keras.Model` from `(batch, height, width, channels)` images, prepared by
        `keras_vit.preprocess_input`, to `(batch, num_classes)`.

    Raises:
        ValueError: on an unknown field, with the nearest one, and where sizes do not fit.
    """
    return _named(application, name, documentation)


ViTTiny = _vit_application("ViTTiny", "vit_tiny_patch16_224")
ViTSmall = _vit_application("ViTSmall", "vit_small_patch16_224")
ViTBase = _vit_application("ViTBase", "vit_base_patch16_224")
ViTLarge = _vit_application("ViTLarge", "vit_large_patch16_224")
ViTHuge = _vit_application("ViTHuge", "vit_huge_patch14_224")
# With the distillation token; `distillation_token=False` is the plain DeiT.
DeiTTiny = _vit_application("DeiTTiny", "deit_tiny_distilled_patch16_224")
DeiTSmall = _vit_application("DeiTSmall", "deit_small_distilled_patch16_224")
DeiTBase = _vit_application("DeiTBase", "deit_base_distilled_patch16_224")


def _swin_application(name, variant):
    """Makes the function of one size of Swin Transformers; `variant` gives the defaults."""
    default = VARIANTS[variant]

    def application(
        image_size=None,
        window_size=None,
        num_classes=None,
        include_top=True,
        weights=None,
        classifier_activation=None,
        dtype=None,
        name=None,
        **overrides,
    ):
        fields = {
            "image_size": image_size,
            "window_size": window_size,
            "num_classes": num_classes,
            "classifier_activation": classifier_activation,
        }
        return _create(variant, fields, include_top, weights, dtype, name, overrides)

    documentation = f"""Swin Transformer, version {default.version}, the size of `{variant}`.

    Args:
        image_size: int or `(h, w)`, pixels; a multiple of the patch, 4. Default {default.image_size}.
        window_size: int or `(h, w)`, tokens. Default {default.window_size}.
        num_classes, include_top, weights, classifier_activation, dtype, name: as for `ViTBase`.
        **overrides: further fields of `SwinConfig`.

    Returns, Raises:
        As `ViTBase`.
    """
    return _named(application, name, documentation)


SwinTiny = _swin_application("SwinTiny", "swin_tiny_patch4_window7_224")
SwinSmall = _swin_application("SwinSmall", "swin_small_patch4_window7_224")
SwinBase = _swin_application("SwinBase", "swin_base_patch4_window7_224")
SwinLarge = _swin_application("SwinLarge", "swin_large_patch4_window7_224")
SwinV2Tiny = _swin_application("SwinV2Tiny", "swinv2_tiny_window8_256")
SwinV2Small = _swin_application("SwinV2Small", "swinv2_small_window8_256")
SwinV2Base = _swin_application("SwinV2Base", "swinv2_base_window8_256")
SwinV2Large = _swin_application("SwinV2Large", "swinv2_large_window12_192")


def preprocess_input(images, model=None):
    """Normalizes pixels for a model.

    Args:
        images: array, or tensor of any library, `(..., height, width, channels)` of pixels 0 to 255, already of the
            model's size. Tensors inside `tf.data` are taken on every backend of Keras.
            To load, resize and crop files use `keras_vit.metadata(model).input_spec.load(path)`.
        model: a model of keras_vit, whose own mean and std are used; `None` for those of random weights, which
            bring pixels to -1 .. 1.

    Returns:
        float32 array or tensor of the same shape.

    Raises:
        ValueError: if these are no pixels, or not of the model's number of channels.
    """
    if isinstance(images, list | tuple):
        images = np.asarray(images)
    if not hasattr(images, "shape"):
        raise ValueError(
            "images must be an array or a tensor of pixels; files and PIL images are loaded, resized and normalized "
            f"by keras_vit.metadata(model).input_spec.load(image). Received: images={images!r}"
        )
    # The size plays no part, nor do channels where all have the same mean: decoders leave both unknown in `tf.data`.
    spec = InputSpec.symmetric(1, 1) if model is None else metadata(model).input_spec
    return spec.normalize(images, any_channels=model is None)


def decode_predictions(predictions, top=5, model=None, labels=None):
    """Finds the best classes of each image with their names.

    Args:
        predictions: array or tensor `(batch, num_classes)`. With `model`, its outputs: logits become
            probabilities, by softmax, or by sigmoid if the model is compiled with a binary loss; rows that are already
            a softmax are kept. Without a model these are the scores themselves. One column is the score of the second
            of two classes; the first one gets the rest.
        top: int. How many. Default 5.
        model: a model of keras_vit whose labels are used; if it has none, the names are the numbers of the columns.
        labels: class names, instead of the model's; both of them for one column. With neither model nor labels, 1000
            columns are taken for ImageNet-1k.

    Returns:
        A list with a list of `(class id, name, score)` for each image, best first, as Keras Applications have
        it. The class id is the WordNet id for ImageNet-1k and where the labels are such ids themselves, as those of
        ImageNet-21k; else the column as a str.

    Raises:
        ValueError: if the shape does not fit the labels, or there are neither labels nor a model; of the values of a
            regression.
    """
    predictions = to_numpy(predictions)
    if predictions.ndim != 2:
        raise ValueError(f"predictions must have the shape (batch, num_classes). Received: shape={predictions.shape}")
    if labels is None and model is not None:
        labels = metadata(model).labels
    if predictions.shape[1] == 1 and (model is not None or (labels is not None and len(labels) == 2)):
        predictions = _both_classes(predictions, model, labels)
        labels = class_names(labels, 1)
    elif model is not None:
        predictions = _probabilities(predictions, model, labels)
    columns = predictions.shape[1]
    numbers = [str(column) for column in range(columns)]
    if labels is None and model is not None:
        labels = numbers
    elif labels is None and columns == 1000:
        labels = read_labels("imagenet1k")
    if labels is None or len(labels) != columns:
        count = "none" if labels is None else len(labels)
        raise ValueError(f"labels must name every column. Received: {count} for {columns} columns")
    ids = labels if all(re.fullmatch(r"n\d{8}", str(label)) for label in labels) else numbers
    if columns == 1000 and tuple(labels) == read_labels("imagenet1k"):
        ids = imagenet_ids()
    best = np.argsort(-predictions, axis=1, kind="stable")[:, :top]
    return [[(ids[c], labels[c], float(row[c])) for c in order] for row, order in zip(predictions, best, strict=True)]


def _both_classes(column, model, labels):
    """Computes the scores of two classes from the column of the second one."""
    kind = None if model is None else score_activation(model, output(model), labels)
    if kind == "linear":
        raise ValueError(
            "a regression has no classes; its outputs are the values themselves. "
            f"Received: model={model.name!r}, which ends in one value"
        )
    if kind is None and not ((column >= 0) & (column <= 1)).all():
        raise ValueError(
            "one column must hold probabilities of the second class, or what model= returns. "
            f"Received: values from {column.min():.4g} to {column.max():.4g}, model={getattr(model, 'name', None)!r}"
        )
    if kind is not None:
        column = to_numpy(keras.ops.sigmoid(column))
    return np.hstack([1 - column, column])


def _probabilities(predictions, model, labels):
    """Computes the scores of several classes from the outputs of a model, or from their softmax."""
    head = output(model)
    if not head.has_head or head.units != predictions.shape[1]:
        return predictions
    kind = score_activation(model, head, labels)
    if kind == "sigmoid":
        return to_numpy(keras.ops.sigmoid(predictions))
    are_probabilities = (predictions >= 0).all() and np.allclose(predictions.sum(axis=1), 1.0, atol=1e-2)
    return to_numpy(keras.ops.softmax(predictions)) if kind == "softmax" and not are_probabilities else predictions
