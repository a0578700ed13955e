"""Checkpoints into models."""

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
from keras_vit.weights.assign import fill, find_skipped
from keras_vit.weights.config.infer import infer_config
from keras_vit.weights.describe import Description, describe
from keras_vit.weights.files.checkpoint import open_checkpoint
from keras_vit.weights.files.folders import find_file
from keras_vit.weights.hub.catalog import catalog, catalog_entry
from keras_vit.weights.hub.download import download
from keras_vit.weights.key_selection import ALL_KEYS, KeySelection
from keras_vit.weights.layouts.detect import find_model
from keras_vit.weights.layouts.keras_layout import KerasLayout
from keras_vit.weights.transpose import turning

# What a variant's name stands for; the patch may be asked for otherwise.
_VARIANT_SIZES = (
    *("hidden_dim", "embed_dim", "num_layers", "depths", "num_heads", "mlp_dim", "mlp_ratio", "patch_size", "version"),
    *("distillation_token", "num_registers"),
)
# Sizes that a name has of the image, which a file may have otherwise.
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
    """Builds the model of a checkpoint and fills it.

    The architecture is read off keys and shapes. What they do not tell, such as the number of heads or the activation,
    comes from the file itself if `save_weights` wrote it as `.safetensors`, else from a `config.json` beside it, as
    Hugging Face and timm write it, from the published size with the same numbers, or is the source's default. So do
    the preprocessing, also from a `preprocessor_config.json`, and the class names. Arguments win over all of it.

    A model of another image, patch or window size than the file's is filled as by `load_weights`. In Swin
    Transformers V2 the windows of training stay the file's, where it or a description tells them.

    Args:
        path: of a file of safetensors, PyTorch, NumPy (`.npz`) or Keras (`.keras`), whatever its name; of the index of
            a model in several files; of a folder with one of them; or what `keras_vit.weights.download` takes, such as
            `hub:organization/repository`.
        config: `ViTConfig` or `SwinConfig` of the model, which is then taken as it is, or `None`.
        layout: one of `keras_vit.weights.LAYOUTS`, or `auto`.
        skip, new, prefix: as for `load_weights`. The architecture is that of the keys that are not skipped.
        input_spec: `InputSpec` of the weights; `None`: as described, at the model's image size, or else pixels to
            -1 .. 1, as Google's and SigLIP's. DeiT, DINOv2 and Swin want the mean and standard deviation of ImageNet.
        labels: class names in the order of the logits; `None`: as described, if the classes are the file's.
        dtype: dtype policy or `None`: the global one.
        name: str. The model's name.
        **overrides: fields of the config, for example `num_classes=10, image_size=(384, 256)`.

    Returns:
        A functional `keras.Model`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file or what describes it is unreadable, if it is of no known layout or does not fit; on an
            unknown field, with the nearest one.
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
    """Builds a model of a published size and fills it.

    The size is the variant's; whatever else the file or its description tells is as in the file: activation, epsilon,
    pooling, the way to resize, the number of classes. The variant decides the rest, in timm's keys and those like them
    the activation too. Arguments win over all of it.

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
    """As `load_variant`, of an open `Source`."""
    path, wanted = source.name, variant.replace(**overrides)
    if source.has_no_config:
        classes = {"num_classes": source.layout.count_classes(source.checkpoint.shapes)}
        return source.build(variant.replace(**{**classes, **overrides}), input_spec, labels, dtype, name)
    _check_family(path, source.layout.config_class, wanted, isinstance(wanted, source.layout.config_class))
    described = {name: value for name, value in overrides.items() if name not in _IMAGE_SIZES}
    config = source.config(overrides, {**vars(variant), **described})
    _check_family(path, type(config), wanted, type(config) is type(wanted))
    _check_sizes(path, config, wanted, {"patch_size"} & set(overrides))
    sizes = {name: getattr(variant, name) for name in _IMAGE_SIZES[:2] if hasattr(variant, name)}
    config = config.adapt(**{**sizes, **overrides})
    return source.build(config, input_spec, labels, dtype, name)


def _check_family(path, found, wanted, agree):
    if not agree:
        raise ValueError(
            f"weights must be of the model's family, {type(wanted).__name__}. "
            f"Received: {str(path)!r} of a {found.__name__}"
        )


def _check_sizes(path, found, wanted, free):
    """Raises a `ValueError` that names all sizes of a file that are not the wanted ones, but those that are free."""
    names = [name for name in _VARIANT_SIZES if hasattr(wanted, name) and name not in free]
    differing = [name for name in names if getattr(found, name) != getattr(wanted, name)]
    if differing:
        raise ValueError(
            f"weights must be of the model's size. Received: {str(path)!r} with "
            + ", ".join(f"{name}={getattr(found, name)} for {getattr(wanted, name)}" for name in differing)
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
    """Builds the model of a published checkpoint and fills it; fetches the file unless it is there.

    Args:
        name: `architecture.tag` of the catalog; see `keras_vit.list_models(pretrained=True)`.
        path: of the file, if it lies elsewhere than in the cache, or `None`.
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
    """As `load_published`, with a `KeySelection` and a dict of overrides."""
    entry = catalog_entry(name)
    # A file of one's own may be the same weights with the keys of another source.
    where, described = ((path, "auto"), True) if path else ((entry.source, entry.layout), False)
    source = Source(*where, selection, described)
    config = entry.config().adapt(**overrides)
    input_spec = input_spec or entry.input_spec_for(config)
    labels = entry.labels_for(config) if labels is None else labels
    origin = f"{source.name}, taken for {name}" if path else name
    model = source.build(config, input_spec, labels, dtype, model_name or entry.architecture, origin)
    update_metadata(model, license=entry.license)
    return model


def describe_checkpoint(path, layout="auto", selection=ALL_KEYS):
    """Reads what a checkpoint says of its model, without building it.

    Args:
        path, layout: as for `from_checkpoint`.
        selection: `KeySelection` of what is read of it.

    Returns:
        A `ModelMetadata`. Its image size is that of the preprocessing that is described beside the weights, where the
        architecture can take it, else that of the table of positions.

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
    """Fills a model from a checkpoint, strictly. Where it raises, nothing of the model is changed.

    Positions of another grid and the relative position biases of another window are resized by the method of the
    model's config (`position_resize`), patch kernels of another size resampled and those of another number of channels
    summed or tiled as timm does; a head of another number of classes stays new. One warning names all of it.

    Args:
        model: a model of keras_vit.
        path: of the file, as for `from_checkpoint`, also of a `.weights.h5` file.
        layout: one of `keras_vit.weights.LAYOUTS`, or `auto`.
        skip: list of regular expressions of keys to leave out; the variables that they would fill stay as they are.
        new: list of regular expressions of paths of variables that stay as they are, such as `"^encoder_norm/"`; the
            keys that would fill them are left out.
        prefix: str in front of the model's keys, such as `student`, where a file holds several; `None`: of a model and
            its running average (a name with `ema`, `teacher`, `target`, `swa` or `averaged`) the average.

    Returns:
        A `LoadReport`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is unreadable, of no known layout, holds NaN or infinite values, or does not fit:
            all differences at once.
    """
    return Source(path, layout, KeySelection(skip, new, prefix), preprocessing=False).fill(model)


def _local_file(path, described):
    """The file of a path, a folder, or what is downloaded."""
    if is_remote(path):
        return download(path, described)
    if not os.path.exists(path) and str(path) in catalog():
        raise ValueError(
            f"published weights are loaded by name: keras_vit.create_model({str(path)!r}). Received: path={str(path)!r}"
        )
    path = pathlib.Path(path)
    return find_file(path) if path.is_dir() else path


class Source:
    """An open checkpoint, its layout, and what is told of it.

    Args:
        path, layout: as for `from_checkpoint`.
        selection: `KeySelection` of what is read of it. Default: all that is the model's.
        described: bool. Whether to read what the file and those beside it tell. Default True.
        preprocessing: bool. Whether that is read too. Default True.

    Attributes:
        name: str. Where it comes from, as it was asked for.
    """

    def __init__(self, path, layout="auto", selection=ALL_KEYS, described=True, preprocessing=True):
        self.name, self.selection = str(path), selection
        self.checkpoint, self.layout = find_model(open_checkpoint(_local_file(path, described)), layout, selection)
        self.description = describe(self.checkpoint, preprocessing) if described else Description()

    @property
    def has_no_config(self):
        """Returns whether it is a file of Keras that does not tell the architecture."""
        return isinstance(self.layout, KerasLayout) and self.layout.source is None

    def config(self, wanted, defaults=None):
        """The config of the model that the file was written from."""
        checkpoint = self.layout.unpack(self.checkpoint)
        if self.description.config is None:  # A config of ours is that of the whole file.
            checkpoint = checkpoint.without(find_skipped(checkpoint, self.selection)[0])
        return infer_config(checkpoint, self.layout, self.description, wanted, defaults)

    def fill(self, model, turned=None):
        """Fills a model; the `LoadReport`. `turned` is as for `fill.fill`."""
        return fill(model, self.checkpoint, self.layout, self.selection, self.description, turned)

    def build(self, config, input_spec, labels, dtype, name, origin=None):
        """The model of a config, filled."""
        input_spec = input_spec or self.description.input_spec_for(config)
        labels = self.description.labels_for(config) if labels is None else labels
        origin = origin or self.description.origin or self.name
        with _garbage_waits():
            with turning(self.checkpoint, self.layout, config, dtype) as turned, skip_init():
                model = build_model(config, input_spec, labels, origin=origin, dtype=dtype, name=name)
            self.fill(model, turned)
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
