"""Models by name, in the manner of Keras Applications and timm."""

import fnmatch

import h5py
import keras
import numpy as np

from keras_vit.metadata import metadata
from keras_vit.models import VARIANTS, build_model
from keras_vit.preprocessing import InputSpec
from keras_vit.validation import nearest
from keras_vit.weights import load_variant


def list_models(pattern="*", pretrained=False):
    """Names that `create_model` knows.

    Args:
        pattern: str with `*` and `?`, for example `"vit_base*"`.
        pretrained: bool. Only names with a tag, whose weights can be loaded. No published weights are in the
            catalog of this version, so the list is empty.

    Returns:
        A sorted list of str.
    """
    return [] if pretrained else sorted(fnmatch.filter(VARIANTS, pattern))


def create_model(name, weights=None, *, input_spec=None, labels=None, dtype=None, model_name=None, **overrides):
    """Builds a model by its name.

    Args:
        name: str, for example `vit_small_patch16_224`; see `list_models`.
        weights: `None` (random), or the path of a checkpoint: `.weights.h5` as Keras writes it, or a public one
            in any layout that `keras_vit.weights` reads (`.safetensors`, `.npz`, `.pth`). A public one must be of the
            sizes of `name`; whatever else it tells goes before the defaults of `name`: activation, epsilon, pooling,
            the number of classes. Positions of another grid are resized.
        input_spec: `InputSpec` or `None`: what stands beside a public checkpoint, else pixels to -1 .. 1.
        labels: class names in the order of the logits, or `None`: what stands beside a public checkpoint.
        dtype: dtype policy or `None`: the global one.
        model_name: str or `None`: what the `keras.Model` is called; by default `name` without its tag.
        **overrides: fields of the config, for example `num_classes=10, image_size=(384, 256)`.

    Returns:
        A functional `keras.Model` from `(batch, height, width, channels)` images to logits.

    Raises:
        ValueError: on an unknown name or field, with the nearest one; on weights that cannot be read or are of
            another architecture, with the fields that differ.
    """
    base, _, tag = name.partition(".")
    if base not in VARIANTS:
        raise ValueError(f"unknown model{nearest(base, VARIANTS)} Received: name={name!r}; see keras_vit.list_models()")
    if tag:
        raise ValueError(f"{base!r} has no weights with a tag in this version. Received: name={name!r}")
    name, variant = model_name or base, VARIANTS[base]
    if weights is not None and not str(weights).endswith(".weights.h5"):
        return load_variant(weights, variant, input_spec=input_spec, labels=labels, dtype=dtype, name=name, **overrides)
    origin = None if weights is None else str(weights)
    model = build_model(variant.replace(**overrides), input_spec, labels, origin=origin, dtype=dtype, name=name)
    if weights is not None:
        _load_keras_weights(model, str(weights))
    return model


def _load_keras_weights(model, path):
    """Fills a model from a `.weights.h5` file, of which every array must be used."""
    try:
        with h5py.File(path) as file:
            stored = _count_arrays(file["layers"])
    except (OSError, KeyError) as error:
        raise ValueError(
            f"weights must be a readable '.weights.h5' file. Received: weights={path!r} ({error})"
        ) from error
    # Keras fills what it finds and leaves the rest of the file away without a word.
    if stored != len(model.weights):
        raise ValueError(
            "weights must be of the same architecture. "
            f"Received: weights={path!r} with {stored} arrays for a model with {len(model.weights)}"
        )
    model.load_weights(path)


def _count_arrays(group):
    """How many weights an HDF5 group holds: neither grids nor the states of random generators."""
    names = []
    group.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return sum("seed_generator" not in name and not name.endswith("grid_size") for name in names)


def _application(size, default_patch):
    """A function in the manner of Keras Applications for one size."""

    def application(
        image_size=224,
        patch_size=default_patch,
        num_classes=1000,
        pooling="token",
        include_top=True,
        weights=None,
        classifier_activation=None,
        dtype=None,
        name=None,
        **overrides,
    ):
        return create_model(
            f"vit_{size}_patch{default_patch}_224",
            weights,
            dtype=dtype,
            model_name=name,
            image_size=image_size,
            patch_size=patch_size,
            num_classes=num_classes if include_top else 0,
            pooling=pooling,
            classifier_activation=classifier_activation,
            **overrides,
        )

    application.__name__ = application.__qualname__ = f"ViT{size.capitalize()}"
    application.__doc__ = f"""Vision Transformer, size {size}.

    Args:
        image_size: int or `(h, w)`, pixels; a multiple of `patch_size`. Default 224.
        patch_size: int or `(h, w)`, pixels. Default {default_patch}.
        num_classes: int. Logits; 0 as `include_top=False`. Default 1000.
        pooling: `token`, `gap` or `map`. Default `token`.
        include_top: bool. Whether the model ends in the classifier; else it returns the pooled
            representation `(batch, hidden_dim)`. For tokens see `keras_vit.features`. Default True.
        weights: as for `create_model`.
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
    return application


ViTTiny = _application("tiny", 16)
ViTSmall = _application("small", 16)
ViTBase = _application("base", 16)
ViTLarge = _application("large", 16)
ViTHuge = _application("huge", 14)


def _swin_application(name, variant):
    """As `_application`, for a Swin Transformer: `variant` gives the sizes."""
    default = VARIANTS[variant]

    def application(
        image_size=default.image_size,
        window_size=default.window_size,
        num_classes=1000,
        include_top=True,
        weights=None,
        classifier_activation=None,
        dtype=None,
        name=None,
        **overrides,
    ):
        return create_model(
            variant,
            weights,
            dtype=dtype,
            model_name=name,
            image_size=image_size,
            window_size=window_size,
            num_classes=num_classes if include_top else 0,
            classifier_activation=classifier_activation,
            **overrides,
        )

    application.__name__ = application.__qualname__ = name
    application.__doc__ = f"""Swin Transformer, version {default.version}, the size of `{variant}`.

    Args:
        image_size: int or `(h, w)`, pixels; a multiple of the patch, 4. Default {default.image_size}.
        window_size: int or `(h, w)`, tokens. Default {default.window_size}.
        num_classes, include_top, weights, classifier_activation, dtype, name: as for `ViTBase`.
        **overrides: further fields of `SwinConfig`.

    Returns, Raises:
        As `ViTBase`.
    """
    return application


SwinTiny = _swin_application("SwinTiny", "swin_tiny_patch4_window7_224")
SwinSmall = _swin_application("SwinSmall", "swin_small_patch4_window7_224")
SwinBase = _swin_application("SwinBase", "swin_base_patch4_window7_224")
SwinLarge = _swin_application("SwinLarge", "swin_large_patch4_window7_224")
SwinV2Tiny = _swin_application("SwinV2Tiny", "swinv2_tiny_window8_256")
SwinV2Small = _swin_application("SwinV2Small", "swinv2_small_window8_256")
SwinV2Base = _swin_application("SwinV2Base", "swinv2_base_window8_256")
SwinV2Large = _swin_application("SwinV2Large", "swinv2_large_window12_192")


def preprocess_input(images, model=None):
    """Normalises pixels for a model.

    Args:
        images: array or tensor `(..., height, width, channels)` of pixels 0 to 255, already of the model's size.
            To load, resize and crop files use `keras_vit.metadata(model).input_spec.load(path)`.
        model: a model of keras_vit, whose own mean and std are used; `None` for those of random weights, which
            bring pixels to -1 .. 1.

    Returns:
        float32 array or tensor of the same shape.
    """
    # The size plays no part in the normalisation.
    spec = InputSpec.symmetric(1, images.shape[-1]) if model is None else metadata(model).input_spec
    return spec.normalize(images)


def decode_predictions(predictions, top=5, model=None, labels=None):
    """The best classes of each image with their names.

    Args:
        predictions: array `(batch, num_classes)`: probabilities, or logits, whose values are then the scores.
        top: int. How many. Default 5.
        model: a model of keras_vit whose labels are used.
        labels: class names, instead of the model's. With neither, 1000 columns are taken for ImageNet-1k,
            whose names Keras downloads.

    Returns:
        A list with a list of `(class id, name, score)` for each image, best first, as Keras Applications have
        it. The class id is the WordNet id for ImageNet-1k, else the column as a str.

    Raises:
        ValueError: if the shape does not fit the labels, or there are none.
    """
    predictions = keras.ops.convert_to_numpy(predictions)
    if labels is None and model is not None:
        labels = metadata(model).labels
    if predictions.ndim != 2:
        raise ValueError(f"predictions must have the shape (batch, num_classes). Received: shape={predictions.shape}")
    if labels is None and predictions.shape[1] == 1000:
        return keras.applications.imagenet_utils.decode_predictions(predictions, top=top)
    if labels is None or len(labels) != predictions.shape[1]:
        count = "none" if labels is None else len(labels)
        raise ValueError(f"labels must name every column. Received: {count} for {predictions.shape[1]} columns")
    best = np.argsort(-predictions, axis=1, kind="stable")[:, :top]
    return [[(str(c), labels[c], float(row[c])) for c in order] for row, order in zip(predictions, best, strict=True)]
