"""Models by name, in the manner of timm, and models from files."""

import fnmatch
import pathlib
import warnings

import h5py
import keras

from keras_vit.models import VARIANTS, build_model
from keras_vit.validation import nearest
from keras_vit.weights import catalog_entry, find_entries, from_checkpoint, load_published, load_variant
from keras_vit.weights.catalog import catalog
from keras_vit.weights.downloads import is_remote
from keras_vit.weights.files import SUFFIXES

# What a training run leaves in its folder.
MODEL_FILE = "model.keras"
# What makes a folder a checkpoint.
CHECKPOINT_FILES = ("model.safetensors",)


def list_models(pattern="*", pretrained=False):
    """Names that `create_model` knows.

    Args:
        pattern: str with `*` and `?`, for example `"vit_base*"`. Case plays no part.
        pretrained: bool. Published weights, `architecture.tag`, instead of architectures.

    Returns:
        A sorted list of str.
    """
    return find_entries(pattern) if pretrained else sorted(fnmatch.filter(VARIANTS, pattern.lower()))


def create_model(name, weights=None, *, input_spec=None, labels=None, dtype=None, model_name=None, **overrides):
    """Builds a model by its name.

    Args:
        name: str, for example `vit_small_patch16_224` (random weights; see `list_models`) or, with a tag,
            `vit_small_patch16_224.augreg_in21k_ft_in1k` (published ones; see `list_models(pretrained=True)`), which
            are downloaded once.
        weights: `None`, a tag, or the path of a checkpoint: `.weights.h5` as Keras writes it, or a public one
            in any layout that `keras_vit.weights` reads (`.safetensors`, `.npz`, `.pth`). A public one must be of the
            sizes of `name`; whatever else it tells goes before the defaults of `name`: activation, epsilon, pooling,
            the number of classes. Positions of another grid are resized. With a tag in `name`, that file is read
            instead of the downloaded one.
        input_spec: `InputSpec` or `None`: that of the published weights, or what stands beside a checkpoint, else
            pixels to -1 .. 1.
        labels: class names in the order of the logits, or `None`: those of the published weights, or what stands
            beside a checkpoint.
        dtype: dtype policy or `None`: the global one.
        model_name: str or `None`: what the `keras.Model` is called; by default `name` without its tag.
        **overrides: fields of the config, for example `num_classes=10, image_size=(384, 256)`.

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
        raise ValueError(f"unknown model{nearest(base, VARIANTS)} Received: name={name!r}; see keras_vit.list_models()")
    if _is_tag(weights):
        if tag:
            raise ValueError(f"a name has one tag. Received: name={name!r}, weights={weights!r}")
        tag, weights = weights.removeprefix(f"{base}."), None
    options = {"input_spec": input_spec, "labels": labels, "dtype": dtype}
    is_keras = weights is not None and str(weights).endswith(".weights.h5")
    if tag and not is_keras:
        return load_published(f"{base}.{tag}", weights, model_name=model_name, **options, **overrides)
    if weights is not None and not is_keras:
        return load_variant(weights, VARIANTS[base], name=model_name or base, **options, **overrides)
    if tag:
        entry = catalog_entry(name)
        config = entry.config(**overrides)
        options["input_spec"] = input_spec or entry.input_spec_for(config)
        options["labels"] = entry.labels_for(config) if labels is None else labels
    else:
        config = VARIANTS[base].replace(**overrides)
    origin = None if weights is None else str(weights)
    model = build_model(config, origin=origin, name=model_name or base, **options)
    if is_keras:
        _load_keras_weights(model, str(weights))
    return model


def load_model(name, **overrides):
    """Loads a model from whatever names one.

    Args:
        name: str or path. What exists on disk goes before names:

            - a `.keras` file, or the folder of a training run, which holds `model.keras`;
            - a checkpoint in any layout that `keras_vit.weights` reads, or a folder with `model.safetensors`;
            - `hub:organization/repository`, with an optional `@revision` and `/file`, or a URL of a checkpoint;
            - published weights, `architecture.tag` (see `list_models(pretrained=True)`);
            - an architecture (see `list_models()`), with random weights and a warning that says so.
        **overrides: fields of the config, for example `num_classes=10, image_size=384`, and the keywords
            `input_spec`, `labels` and `dtype`, where the model is built anew. A `.keras` file takes none.

    Returns:
        A `keras.Model`.

    Raises:
        ValueError: if `name` is none of these, with the nearest name; for a SavedModel, which cannot become a Keras
            model again; on overrides of a `.keras` file or an unknown field.
        FileNotFoundError, PermissionError, ConnectionError, OSError: as `keras_vit.weights.download`.
    """
    path, text = pathlib.Path(name), str(name)
    if file := model_file(path):
        if overrides:
            raise ValueError(
                "a .keras file keeps its own config; load it without overrides, or pass it as weights= to a recipe or "
                f"keras_vit.fine_tune. Received: {str(file)!r}, {overrides}"
            )
        return keras.models.load_model(file)
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


def model_file(source):
    """Finds the `.keras` file that a path stands for: itself, or the one in a run's folder; else `None`."""
    path = pathlib.Path(source)
    path = path / MODEL_FILE if path.is_dir() else path
    return path if path.suffix == ".keras" and path.is_file() else None


def is_saved_model(path):
    """Whether a path is the folder of a SavedModel, or of its versions."""
    path, name = pathlib.Path(path), "saved_model.pb"
    versions = [file.parent.name for file in path.glob(f"*/{name}")] if path.is_dir() else []
    return (path / name).is_file() or any(version.isdigit() for version in versions)


def _has_checkpoint(folder):
    """Whether a folder holds weights as Hugging Face's libraries lay them out."""
    return folder.is_dir() and any((folder / file).is_file() for file in CHECKPOINT_FILES)


def _warn_of_random_weights(architecture):
    tags = [name for name in catalog() if name.partition(".")[0] == architecture]
    advice = f"published weights: {', '.join(tags)}" if tags else "there are no published weights of it"
    warnings.warn(f"{architecture} is an architecture, so its weights are random; {advice}", stacklevel=3)


def _is_tag(weights):
    """Whether `weights` can only be meant as a tag: it is neither there nor called as a file is."""
    if not isinstance(weights, str) or is_remote(weights):
        return False
    return not weights.endswith((*SUFFIXES, ".h5")) and not pathlib.Path(weights).exists()


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
