"""Loads checkpoints: builds their models, or fills existing ones."""

import contextlib
import gc
import os
import pathlib

from keras_vit.backend.skip_init import skip_init
from keras_vit.metadata import ModelMetadata, update_metadata
from keras_vit.models import build_model
from keras_vit.models.aliases import resolve_aliases
from keras_vit.origin import is_remote
from keras_vit.preprocessing import InputSpec
from keras_vit.weights.assign import assign_weights, find_skipped
from keras_vit.weights.config.infer import infer_config
from keras_vit.weights.describe import Description, describe
from keras_vit.weights.files.checkpoint import open_checkpoint
from keras_vit.weights.files.folders import find_file
from keras_vit.weights.hub.catalog import catalog, catalog_entry
from keras_vit.weights.hub.download import download
from keras_vit.weights.key_selection import ALL_KEYS, KeySelection
from keras_vit.weights.layouts.detect import find_model
from keras_vit.weights.layouts.keras_layout import KerasLayout

# Fields that the name of a variant determines; another patch size may be requested.
_VARIANT_SIZES = (
    *("hidden_dim", "embed_dim", "num_layers", "depths", "num_heads", "mlp_dim", "mlp_ratio", "patch_size", "version"),
    *("distillation_token", "num_registers"),
)
# Fields of a name that a file may have with other values.
_IMAGE_SIZES = ("image_size", "window_size", "pretrained_window_sizes")


def from_checkpoint(
    path,
    config=None,
    layout="auto",
    *,
    skip=(),
    new=(),
    prefix=None,
    input_spec=None,
    labels=None,
    dtype=None,
    name="vit",
    **overrides,
):
    """Builds the model of a checkpoint and loads its weights.

    The architecture is inferred from keys and shapes. Fields that they do not determine, such as the number of heads
    or the activation, are read from the file if `save_weights` wrote it as `.safetensors`, else from a `config.json`
    beside it (Hugging Face, timm), else they are those of the published size with the same widths, or the source's
    default. Preprocessing, also from a `preprocessor_config.json`, and class names are read likewise. Arguments win.

    Weights of another image, patch or window size are resized as by `load_weights`. In Swin Transformers V2 the
    windows of training stay those of the file, if it or its description states them.

    Args:
        path: of a file of safetensors, PyTorch, NumPy (`.npz`) or Keras (`.keras`), whatever its name; of the index of
            a sharded model; of a folder with one of them; or a source for `keras_vit.weights.download`, such as
            `hub:organization/repository`.
        config: `ViTConfig` or `SwinConfig` of the model, or `None`: inferred.
        layout: one of `keras_vit.weights.LAYOUTS`, or `auto`.
        skip, new, prefix: as for `load_weights`. The architecture is that of the keys that are not skipped.
        input_spec: `InputSpec` of the weights; `None`: as stated by the checkpoint, at the model's image size, else
            pixels to -1 .. 1, as for Google's and SigLIP's weights. DeiT, DINOv2 and Swin need the mean and standard
            deviation of ImageNet.
        labels: class names in the order of the logits; `None`: as stated by the checkpoint, if the number fits.
        dtype: dtype policy or `None`: the global one.
        name: str. The model's name.
        **overrides: fields of the config, for example `num_classes=10, image_size=(384, 256)`.

    Returns:
        A functional `keras.Model`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file or its description is unreadable, of no known layout or does not fit; on an unknown
            field, with the nearest one.
    """
    overrides = resolve_aliases(overrides, config)
    source = Source(path, layout, KeySelection(skip, new, prefix))
    config = source.config(overrides).adapt(**overrides) if config is None else config.replace(**overrides)
    return source.build(config, input_spec, labels, dtype, name)


def load_variant(
    path,
    variant,
    layout="auto",
    *,
    skip=(),
    new=(),
    prefix=None,
    input_spec=None,
    labels=None,
    dtype=None,
    name="vit",
    **overrides,
):
    """Builds a model of a published size and loads its weights.

    The sizes are those of the variant. Other fields that the file or its description states are those of the file:
    activation, epsilon, pooling, resize method, number of classes. The remaining ones are those of the variant, in
    timm's layout and similar ones the activation too. Arguments win.

    Args:
        path, layout, skip, new, prefix, input_spec, labels, dtype, name, **overrides: as for `from_checkpoint`; also a
            `.weights.h5` file.
        variant: the config of the published size.

    Returns:
        A functional `keras.Model`.

    Raises:
        FileNotFoundError, ValueError: as `from_checkpoint`; also if the file is of another size.
    """
    source = Source(path, layout, KeySelection(skip, new, prefix))
    return build_variant(source, variant, overrides, input_spec, labels, dtype, name)


def build_variant(source, variant, overrides, input_spec=None, labels=None, dtype=None, name="vit"):
    """Implements `load_variant` for an open `Source`."""
    path, expected = source.name, variant.replace(**overrides)
    if source.has_no_config:
        classes = {"num_classes": source.layout.count_classes(source.checkpoint.shapes)}
        return source.build(variant.replace(**{**classes, **overrides}), input_spec, labels, dtype, name)
    _check_family(path, source.layout.config_class, expected, isinstance(expected, source.layout.config_class))
    fixed = {name: value for name, value in overrides.items() if name not in _IMAGE_SIZES}
    config = source.config(overrides, {**vars(variant), **fixed})
    _check_family(path, type(config), expected, type(config) is type(expected))
    _check_sizes(path, config, expected, {"patch_size"} & set(overrides))
    sizes = {name: value for name, value in vars(variant).items() if name in _IMAGE_SIZES[:2]}
    config = config.adapt(**{**sizes, **overrides})
    return source.build(config, input_spec, labels, dtype, name)


def _check_family(path, family, expected, same):
    if not same:
        raise ValueError(
            f"weights must be of the model's family, {type(expected).__name__}. "
            f"Received: {str(path)!r} of a {family.__name__}"
        )


def _check_sizes(path, config, expected, exempt):
    """Raises a `ValueError` that lists all sizes of a file that differ from the expected ones, without `exempt`."""
    names = [name for name in _VARIANT_SIZES if name in vars(expected) and name not in exempt]
    differing = [name for name in names if getattr(config, name) != getattr(expected, name)]
    if differing:
        raise ValueError(
            f"weights must be of the model's size. Received: {str(path)!r} with "
            + ", ".join(f"{name}={getattr(config, name)} for {getattr(expected, name)}" for name in differing)
        )


def load_published(
    name,
    path=None,
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
    """Builds the model of a published checkpoint and loads its weights; downloads the file unless it is cached.

    Args:
        name: `architecture.tag` of the catalog; see `keras_vit.list_models(pretrained=True)`.
        path: of a local file with these weights, or `None`: the downloaded one.
        skip, new, prefix, input_spec, labels, dtype, **overrides: as for `from_checkpoint`; the defaults are the
            catalog's.
        model_name: str or `None`: the architecture.

    Returns:
        A functional `keras.Model`.

    Raises:
        ValueError: on an unknown name; as `from_checkpoint`.
        FileNotFoundError, PermissionError, ConnectionError, OSError: as `keras_vit.weights.download`.
    """
    options = {"input_spec": input_spec, "labels": labels, "dtype": dtype, "model_name": model_name}
    return build_published(name, path, KeySelection(skip, new, prefix), overrides, **options)


def build_published(name, path, selection, overrides, input_spec=None, labels=None, dtype=None, model_name=None):
    """Implements `load_published` with a `KeySelection` and a dict of overrides."""
    entry = catalog_entry(name)
    # A local file may hold the same weights in another layout.
    location, with_description = ((path, "auto"), True) if path else ((entry.source, entry.layout), False)
    source = Source(*location, selection, with_description)
    config = entry.config().adapt(**overrides)
    input_spec = input_spec or entry.input_spec_for(config)
    labels = entry.labels_for(config) if labels is None else labels
    origin = f"{source.name}, taken for {name}" if path else name
    model = source.build(config, input_spec, labels, dtype, model_name or entry.architecture, origin)
    update_metadata(model, license=entry.license)
    return model


def describe_checkpoint(path, layout="auto", selection=ALL_KEYS):
    """Reads the metadata of a checkpoint's model without building it.

    Args:
        path, layout: as for `from_checkpoint`.
        selection: `KeySelection` of the keys to read.

    Returns:
        A `ModelMetadata`. Its image size is that of the stated preprocessing if the architecture supports it, else
        that of the position table.

    Raises:
        FileNotFoundError, ValueError: as `from_checkpoint`.
    """
    source = Source(path, layout, selection)
    config, stated = source.config({}), source.description.input_spec
    if stated is not None and stated.size != config.image_size:
        with contextlib.suppress(ValueError):
            config = config.replace(image_size=stated.size)
    spec = source.description.input_spec_for(config) or InputSpec.symmetric(config.image_size, config.num_channels)
    return ModelMetadata(config, spec, source.description.labels_for(config), source.name, source.description.license)


def load_weights(model, path, layout="auto", skip=(), new=(), prefix=None):
    """Loads a checkpoint into a model, strictly. On an error the model is unchanged.

    Positions of another grid and the relative position biases of another window are resized by the method of the
    model's config (`position_resize`), patch kernels of another size resampled and those of another number of channels
    summed or tiled as timm does; a head of another number of classes stays new. One warning names all of it.

    Args:
        model: a model of keras_vit.
        path: of the file, as for `from_checkpoint`, also of a `.weights.h5` file.
        layout: one of `keras_vit.weights.LAYOUTS`, or `auto`.
        skip: list of regular expressions of keys to ignore; their variables keep their values.
        new: list of regular expressions of paths of variables that keep their values, such as `"^encoder_norm/"`;
            their keys are ignored.
        prefix: str in front of the model's keys, such as `student`, if a file holds several models; `None`: of a model
            and its running average (a name with `ema`, `teacher`, `target`, `swa` or `averaged`) the average.

    Returns:
        A `LoadReport`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is unreadable, of no known layout, holds NaN or infinite values, or does not fit;
            the error lists all differences.
    """
    return Source(path, layout, KeySelection(skip, new, prefix), preprocessing=False).fill(model)


def _local_file(path, with_config):
    """Returns the file of a path, a folder or a download."""
    if is_remote(path):
        return download(path, with_config)
    if not os.path.exists(path) and str(path) in catalog():
        raise ValueError(
            f"published weights are loaded by name: keras_vit.create_model({str(path)!r}). Received: path={str(path)!r}"
        )
    path = pathlib.Path(path)
    return find_file(path) if path.is_dir() else path


class Source:
    """An open checkpoint with its layout and description.

    Args:
        path, layout: as for `from_checkpoint`.
        selection: `KeySelection` of the keys to read. Default: all keys of the model.
        with_description: bool. Whether to read what the file and the files beside it state. Default True.
        preprocessing: bool. Whether to read the preprocessing too. Default True.

    Attributes:
        name: str. The path or source as it was passed.
    """

    def __init__(self, path, layout="auto", selection=ALL_KEYS, with_description=True, preprocessing=True):
        self.name, self.selection = str(path), selection
        self.checkpoint, self.layout = find_model(
            open_checkpoint(_local_file(path, with_description)), layout, selection
        )
        self.description = describe(self.checkpoint, preprocessing) if with_description else Description()

    @property
    def has_no_config(self):
        """Returns whether it is a file of Keras without a config."""
        return isinstance(self.layout, KerasLayout) and self.layout.source is None

    def config(self, requested, defaults=None):
        """Infers the config of the model that the file was written from."""
        checkpoint = self.layout.unpack(self.checkpoint)
        if self.description.config is None:  # A config of keras_vit describes the whole file.
            checkpoint = checkpoint.without(find_skipped(checkpoint, self.selection)[0])
        return infer_config(checkpoint, self.layout, self.description, requested, defaults)

    def fill(self, model):
        """Loads the weights into a model; returns a `LoadReport`."""
        return assign_weights(model, self.checkpoint, self.layout, self.selection, self.description)

    def build(self, config, input_spec, labels, dtype, name, origin=None):
        """Builds the model of a config and loads the weights."""
        input_spec = input_spec or self.description.input_spec_for(config)
        labels = self.description.labels_for(config) if labels is None else labels
        origin = origin or self.description.origin or self.name
        with _garbage_waits():
            with skip_init():
                model = build_model(config, input_spec, labels, origin=origin, dtype=dtype, name=name)
            self.fill(model)
        if self.description.license:
            update_metadata(model, license=self.description.license)
        return model


@contextlib.contextmanager
def _garbage_waits():
    """Python looks for no garbage inside it.

    A model is a hundred thousand new objects that all stay. Each time their number has grown by some, Python would
    search everything that TensorFlow and Keras hold, which takes a fifth of the time to load a Swin-B.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
