"""Creates models by name, as timm does, and loads models from files, runs and the Hub."""

import dataclasses
import fnmatch
import json
import pathlib
import warnings
import zipfile

import keras

from keras_vit.metadata import Metadata, ModelMetadata
from keras_vit.models import VARIANTS, build_backbone, build_model
from keras_vit.models.aliases import resolve_aliases
from keras_vit.origin import is_remote
from keras_vit.validation import nearest
from keras_vit.weights import find_entries, from_checkpoint
from keras_vit.weights.files.checkpoint import SUFFIXES
from keras_vit.weights.files.folders import find_files
from keras_vit.weights.hub.catalog import catalog
from keras_vit.weights.key_selection import ALL_KEYS, KeySelection
from keras_vit.weights.load import Source, build_published, build_variant, describe_checkpoint

# The model in the folder of a training run.
MODEL_FILE = "model.keras"


def list_models(pattern="*", pretrained=False, exclude_filters=()):
    """Names that `create_model` knows.

    Args:
        pattern: str with `*` and `?`, for example `"vit_base*"`, or a list of them, of which one must match. Case
            plays no part.
        pretrained: bool. Published weights, `architecture.tag`, instead of architectures.
        exclude_filters: the same, for names to leave out.

    Returns:
        A sorted list of str.
    """
    names = find_entries() if pretrained else VARIANTS
    return sorted(_matching(names, pattern) - _matching(names, exclude_filters))


def _matching(names, patterns):
    """The set of the names that one of the patterns, or the only one, matches."""
    patterns = [patterns] if isinstance(patterns, str) else patterns
    return {name for pattern in patterns for name in fnmatch.filter(names, pattern.lower())}


def create_model(
    name,
    weights=None,
    *,
    skip=(),
    new=(),
    prefix=None,
    input_spec=None,
    labels=None,
    dtype=None,
    model_name=None,
    **overrides,
):
    """Builds a model by its name.

    Args:
        name: str, for example `vit_small_patch16_224` (random weights; see `list_models`) or, with a tag,
            `vit_small_patch16_224.augreg_in21k_ft_in1k` (published ones; see `list_models(pretrained=True)`), which
            are downloaded once.
        weights: `None`, a tag, or the path of a checkpoint, as for `keras_vit.from_checkpoint`, or of a `.weights.h5`
            file. It must have the sizes of `name`; other fields that it states win over the defaults of `name`:
            activation, epsilon, pooling, number of classes. Positions of another grid are resized. With a tag in
            `name`, that file is read instead of the downloaded one.
        skip, new, prefix: as for `keras_vit.load_weights`; only with weights.
        input_spec, labels, dtype: as for `keras_vit.from_checkpoint`; the defaults of published weights are those of
            the catalog.
        model_name: str or `None`: `name` without its tag. Name of the `keras.Model`.
        **overrides: fields of the config, for example `num_classes=10, image_size=(384, 256)`. The names of Keras
            Applications and timm are accepted too: `input_shape`, `classes`, `include_top`, `img_size`,
            `in_chans`, `global_pool`, `pretrained`, `checkpoint_path` and others of `keras_vit.models.aliases`.

    Returns:
        A functional `keras.Model` from `(batch, height, width, channels)` images to logits.

    Raises:
        ValueError: on an unknown name or field, with the nearest one; on weights that cannot be read or are of
            another architecture, with the fields that differ.
        FileNotFoundError, PermissionError, ConnectionError, OSError: as `keras_vit.weights.download`.
    """
    if not isinstance(name, str):
        raise ValueError(f"name must be a str. Received: name={name!r}")
    base, _, tag = name.partition(".")
    if base not in VARIANTS:
        raise ValueError(f"unknown model{_advice(name, base)} Received: name={name!r}; see keras_vit.list_models()")
    timm_arguments = {key: overrides[key] for key in ("pretrained", "checkpoint_path") if key in overrides}
    overrides = resolve_aliases(
        {key: value for key, value in overrides.items() if key not in timm_arguments}, VARIANTS[base]
    )
    weights = _weights(f"{base}.{tag}" if tag else base, weights, timm_arguments)
    if _is_tag(weights):
        if tag:
            raise ValueError(f"a name has one tag. Received: name={name!r}, weights={weights!r}")
        tag, weights = weights.removeprefix(f"{base}."), None
    options = {"input_spec": input_spec, "labels": labels, "dtype": dtype}
    selection = KeySelection(skip, new, prefix)
    if tag:
        return build_published(f"{base}.{tag}", weights, selection, overrides, model_name=model_name, **options)
    if weights is not None:
        source = Source(weights, selection=selection)
        return build_variant(source, VARIANTS[base], overrides, name=model_name or base, **options)
    if selection:
        raise ValueError(
            "skip=, new= and prefix= are of weights; pass weights=. "
            f"Received: skip={skip!r}, new={new!r}, prefix={prefix!r}"
        )
    return build_model(VARIANTS[base].replace(**overrides), name=model_name or base, **options)


def _advice(name, base):
    """Suggests names for the error about an unknown one."""
    if is_remote(name):
        return f"; a repository of the Hub is loaded by keras_vit.load_model({name!r})."
    if name.startswith("timm/"):
        return f"; a repository of the Hub is loaded by keras_vit.load_model({'hub:' + name!r})."
    if base.lower() in VARIANTS:
        return f". Did you mean {base.lower()!r}?"
    longer = [known for known in VARIANTS if known.startswith(base.lower())][:5] if base else []
    return f". Names that begin so: {', '.join(longer)}." if longer else nearest(base, VARIANTS)


def load_model(name, **overrides):
    """Loads a model from a file, a folder, the Hub or a published name.

    Args:
        name: str or path. Existing paths win over names:

            - a `.keras` file, or the folder of a training run, which holds `model.keras`;
            - a checkpoint in any layout that `keras_vit.weights` reads, or a folder with one;
            - `hub:organization/repository`, with an optional `@revision` and `/file`, or a URL of a checkpoint;
            - published weights, `architecture.tag` (see `list_models(pretrained=True)`);
            - an architecture (see `list_models()`), with random weights and a warning that says so.
        **overrides: fields of the config, for example `num_classes=10, image_size=384`, and the keywords
            `input_spec`, `labels` and `dtype`: the model is built again, also that of a `.keras` file, and its
            weights are loaded as from any checkpoint (see `from_checkpoint`). Layers around the model of keras_vit are
            then left out, with a warning.

    Returns:
        A `keras.Model`.

    Raises:
        ValueError: if `name` is none of these, with the nearest name; for a SavedModel, which cannot become a Keras
            model again; on an unknown field.
        FileNotFoundError, PermissionError, ConnectionError, OSError: as `keras_vit.weights.download`.
    """
    path, text = pathlib.Path(name), str(name)
    if file := model_file(path):
        return from_checkpoint(file, **overrides) if overrides else _load_keras_file(file)
    if is_remote(text):
        return from_checkpoint(text, **overrides)
    if is_saved_model(path):
        raise ValueError(
            "a SavedModel is for serving and cannot be loaded as a Keras model; load what it was exported from. "
            "`keras_vit predict --model` and keras_vit.export.predict classify images with it, and "
            f"`keras_vit check` examines it. Received: {text!r}, a SavedModel"
        )
    if text.endswith(".weights.h5") and path.is_file():
        raise ValueError(
            "a .weights.h5 file does not say which architecture it belongs to; "
            f"use keras_vit.create_model(architecture, weights={text!r}). Received: {text!r}"
        )
    if path.is_file() or _has_checkpoint(path):
        return from_checkpoint(path, **overrides)
    if text in catalog():
        return create_model(text, **overrides)
    if text in VARIANTS:
        _warn_of_random_weights(text)
        return create_model(text, **overrides)
    raise ValueError(
        "a model must be an existing .keras file, the folder of a training run, a checkpoint "
        f"({', '.join(SUFFIXES)}), a folder with model.safetensors, hub:organization/repository, or a name of "
        f"`keras_vit list` or `keras_vit list --pretrained`{nearest(text, [*catalog(), *VARIANTS])} Received: {text!r}"
    )


def backbone(model, indices=(-4, -3, -2, -1), norm=True, prefix="drop", layout="NHWC", **overrides):
    """Loads or takes a model as a backbone, which gives feature maps for segmentation, detection and the like.

    The backbone ends at the last stage that is asked for: later blocks and the head are not part of it. It shares its
    layers and weights with `model`.

    Args:
        model: `keras.Model`, or whatever `load_model` takes.
        indices: which stages, in the order of the outputs: ints that count the blocks of a ViT or the stages of a Swin
            Transformer, from the end where they are negative; names of layers, for example `encoder_block_3`,
            `stem_stage_0`, `patch_encoder`; or an int n, the last n. Default: the last four.
        norm: bool. Whether the model's final norm is applied to each block of a ViT, and to the last stage of a Swin
            Transformer, the only one that it fits. A ViT whose norm follows the pooling has none to apply.
        prefix: `drop`, or `return`: then `[map, prefix]` stands for each map of a model with tokens in front of those
            of the patches (class token, distillation token, registers), `prefix` being `(batch, prefix, channels)`.
        layout: `NHWC`: `(batch, h, w, channels)`; or `tokens`: `(batch, h * w, channels)`.
        **overrides: as for `load_model`, for example `image_size=(384, 512)`.

    Returns:
        A `keras_vit.models.Backbone`, a functional `keras.Model` from images to the list of maps, or to the map itself
        where it is one. `feature_info` describes them in the same order: `name`, `index`, `channels`, `stride` and
        `grid_size` of each.

    Raises:
        ValueError: on a stage that the model does not have, with the nearest; otherwise as `load_model`.

    Source: the maps are those of timm's `forward_intermediates` (timm 1.0.31).
    """
    if isinstance(model, keras.Model):
        if overrides:
            raise ValueError(
                f"fields change a model that is loaded by name. Received: a model, {model.name!r}, and {overrides}"
            )
    else:
        model = load_model(model, **overrides)
    return build_backbone(model, indices, norm, prefix, layout)


def _load_keras_file(file):
    """`keras.models.load_model`, whose errors about a damaged archive do not name the file."""
    if not zipfile.is_zipfile(file):
        raise ValueError(
            f"a .keras file must be readable. Received: {str(file)!r} (it is no archive, or its end is missing)"
        )
    try:
        return keras.models.load_model(file)
    except zipfile.BadZipFile as error:
        raise ValueError(f"a .keras file must be readable. Received: {str(file)!r} ({error})") from error


def describe_model(name, selection=ALL_KEYS):
    """Reads the metadata of a model without building it.

    Args:
        name: as for `load_model`, except an architecture, which has no weights.
        selection: `KeySelection` of the keys to read from a checkpoint.

    Returns:
        A `ModelMetadata`: the config at the image size of the preprocessing, preprocessing, labels, origin
        and license.

    Raises:
        ValueError, FileNotFoundError, PermissionError, ConnectionError, OSError: as `load_model`.
    """
    path, text = pathlib.Path(name), str(name)
    if file := model_file(path):
        return _metadata_in(file)
    if text in catalog() and not path.exists():
        entry = catalog()[text]
        config = entry.config()
        spec, labels = entry.input_spec_for(config), entry.labels_for(config)
        return ModelMetadata(config, spec, labels, text, entry.license)
    if is_remote(text) or path.is_file() or _has_checkpoint(path):
        return describe_checkpoint(text if is_remote(text) else path, selection=selection)
    raise ValueError(
        "weights must be a .keras file, the folder of a training run, a checkpoint, a folder with model.safetensors, "
        f"hub:organization/repository, or a name of `keras_vit list --pretrained`{nearest(text, catalog())} "
        f"Received: {text!r}"
    )


def _metadata_in(file):
    """Reads the `ModelMetadata` of a `.keras` file; the origin of a model trained from scratch is the file."""
    try:
        with zipfile.ZipFile(file) as archive:
            layers = list(_metadata_layers(json.loads(archive.read("config.json"))))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"a .keras file must be readable. Received: {str(file)!r} ({error})") from error
    if len(layers) != 1:
        raise ValueError(
            f"a .keras file must hold one model of keras_vit. Received: {str(file)!r}, which holds {len(layers)}"
        )
    content = Metadata.from_config(layers[0]).content
    return content if content.origin else dataclasses.replace(content, origin=str(file))


def _metadata_layers(node):
    """Yields the configs of all `Metadata` layers in the JSON of a Keras model."""
    if isinstance(node, list):
        for item in node:
            yield from _metadata_layers(item)
    elif isinstance(node, dict):
        if node.get("registered_name") == "keras_vit>Metadata":
            yield node["config"]
        else:
            yield from _metadata_layers(list(node.values()))


def model_file(source):
    """Finds the `.keras` file of a path: the file itself, or that in the folder of a run; else `None`."""
    path = pathlib.Path(source)
    path = path / MODEL_FILE if path.is_dir() else path
    return path if path.suffix == ".keras" and path.is_file() else None


def is_saved_model(path):
    """Returns whether a path is the folder of a SavedModel, or of its versions."""
    path, name = pathlib.Path(path), "saved_model.pb"
    versions = [file.parent.name for file in path.glob(f"*/{name}")] if path.is_dir() else []
    return (path / name).is_file() or any(version.isdigit() for version in versions)


def _has_checkpoint(folder):
    """Returns whether a folder holds a checkpoint."""
    return folder.is_dir() and bool(find_files(folder))


def _warn_of_random_weights(architecture):
    tags = [name for name in catalog() if name.partition(".")[0] == architecture]
    advice = f"published weights: {', '.join(tags)}" if tags else "there are no published weights of it"
    warnings.warn(f"{architecture} is an architecture, so its weights are random; {advice}", stacklevel=3)


def _weights(name, weights, timm_arguments):
    """Merges `weights=` with timm's arguments for the same.

    Args:
        name: of the model, with its tag if it has one.
        weights: as for `create_model`.
        timm_arguments: dict with `pretrained`, `checkpoint_path` or neither.

    Returns:
        As `weights`.

    Raises:
        ValueError: if both select weights, or `pretrained=True` is ambiguous.
    """
    path, pretrained = timm_arguments.get("checkpoint_path") or None, timm_arguments.get("pretrained", False)
    if path is not None and weights is not None:
        raise ValueError(f"weights must be given once. Received: {weights=!r}, checkpoint_path={path!r}")
    weights = path if path is not None else weights
    if "pretrained" in timm_arguments and not pretrained and "." in name:
        raise ValueError(
            "a name with a tag has published weights; for random ones leave the tag out: "
            f"keras_vit.create_model({name.partition('.')[0]!r}). Received: {name=!r}, pretrained={pretrained!r}"
        )
    if not pretrained or weights is not None or "." in name:
        return weights
    tags = [entry.partition(".")[2] for entry in find_entries(f"{name}.*")]
    if len(tags) == 1:
        return tags[0]
    known = f"one of {', '.join(tags)}" if tags else "a checkpoint, as there are no published ones of this size"
    raise ValueError(f"weights must say which to take: weights={known}. Received: {name=!r}, pretrained=True")


def _is_tag(weights):
    """Returns whether `weights` is a tag: neither an existing path nor named as a file."""
    if not isinstance(weights, str) or is_remote(weights):
        return False
    return not weights.endswith(SUFFIXES) and not pathlib.Path(weights).exists()
