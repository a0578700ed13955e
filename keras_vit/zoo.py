"""Models by name, in the manner of timm."""

import fnmatch
import pathlib

import h5py

from keras_vit.models import VARIANTS, build_model
from keras_vit.validation import nearest
from keras_vit.weights import catalog_entry, find_entries, load_published, load_variant
from keras_vit.weights.downloads import is_remote
from keras_vit.weights.files import SUFFIXES


def list_models(pattern="*", pretrained=False):
    """Names that `create_model` knows.

    Args:
        pattern: str with `*` and `?`, for example `"vit_base*"`.
        pretrained: bool. Published weights, `architecture.tag`, instead of architectures.

    Returns:
        A sorted list of str.
    """
    return find_entries(pattern) if pretrained else sorted(fnmatch.filter(VARIANTS, pattern))


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
