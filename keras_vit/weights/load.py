"""Checkpoints into models."""

import math
import warnings

import numpy as np
from keras import ops

from keras_vit.metadata import metadata
from keras_vit.models import build_model
from keras_vit.resample import resize_positions
from keras_vit.weights.audit import LoadReport, check_skips, matching, raise_difference
from keras_vit.weights.detect import detect_layout
from keras_vit.weights.files import open_checkpoint
from keras_vit.weights.hints import read_hints
from keras_vit.weights.infer import grid_of_table, infer_config
from keras_vit.weights.layout import expand, weights_by_path
from keras_vit.weights.transforms import CONV_OIHW, SAME, TRANSPOSED, check_exact

_KERNEL, _TABLE = "patch_encoder/projection/kernel", "patch_encoder/position_embedding"
_ROOT = "stem_root/convolution/kernel"  # sees the channels of the image where there is a ResNet
_HEADS = ("head/", "head_dist/")
# The axis of a head's kernel that counts the classes: PyTorch's is the first.
_OUTPUTS = {TRANSPOSED: 0, SAME: -1}


def from_checkpoint(
    path, config=None, layout="auto", *, input_spec=None, labels=None, dtype=None, name="vit", **overrides
):
    """Builds the model of a checkpoint and fills it.

    The architecture is read off keys and shapes. What they do not tell, such as the number of heads or the
    activation, comes from `config`, from a `config.json` beside the file (as Hugging Face and timm write it), from
    the published size with the same numbers, or is the source's default.

    Args:
        path: of a `.safetensors`, `.npz`, `.pth`, `.pt` or `.bin` file.
        config: `ViTConfig` or `SwinConfig` of the model, or `None`.
        layout: one of `keras_vit.weights.LAYOUTS`, or `auto`.
        input_spec: `InputSpec` of the weights, which their file does not tell; `None`: pixels to -1 .. 1, as Google's
            and SigLIP's. DeiT, DINOv2 and Swin want the mean and standard deviation of ImageNet.
        labels: class names in the order of the logits, or `None`.
        dtype: dtype policy or `None`: the global one.
        name: str. The model's name.
        **overrides: fields of the config, for example `num_classes=10, image_size=(384, 256)`.

    Returns:
        A functional `keras.Model`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is unreadable or of no known layout, or does not fit.
    """
    checkpoint = open_checkpoint(path)
    found = detect_layout(checkpoint, layout)
    if config is None:
        hints = read_hints(checkpoint.path.with_name("config.json"))
        config = infer_config(found.unpack(checkpoint), found, {**hints, **overrides})
    config = config.replace(**overrides)
    model = build_model(config, input_spec, labels, origin=str(path), dtype=dtype, name=name)
    _fill(model, checkpoint, found, ())
    return model


def load_weights(model, path, layout="auto", skip=()):
    """Fills a model from a checkpoint, strictly.

    Position tables of another grid are resized by the method of the model's config; kernels of another number of
    channels are summed or tiled as timm does; a head of another number of classes stays new. Each is warned of.

    Args:
        model: a model of keras_vit.
        path: of the file.
        layout: one of `keras_vit.weights.LAYOUTS`, or `auto`.
        skip: regular expressions of keys to leave out; the variables that they would fill stay as they are.

    Returns:
        A `LoadReport`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is unreadable, of no known layout, holds NaN or infinite values, or does not fit:
            all differences at once.
    """
    checkpoint = open_checkpoint(path)
    return _fill(model, checkpoint, detect_layout(checkpoint, layout), skip)


def _fill(model, checkpoint, layout, skip):
    config, packed = metadata(model).config, checkpoint
    checkpoint = layout.unpack(checkpoint)
    check_skips([*packed, *checkpoint], skip)
    variables, table = weights_by_path(model), layout.table(config)
    rules = expand(table, config, variables)
    skipped = matching(checkpoint, skip)
    unmodelled = matching(checkpoint, layout.unmodelled)
    # The whole table: a model without a head leaves one of the file away.
    heads = {key for item in table if _is_head(item) for key in item.theirs}
    replaced = set() if _same_classes(rules, checkpoint, variables) else heads & set(checkpoint)
    headless = not heads & set(checkpoint)
    left_out = skipped | replaced
    active = [item for item in rules if not set(item.theirs) & left_out and not (headless and _is_head(item))]

    unfilled = set(variables) - {name for item in rules for name in item.ours}
    unused = set(checkpoint) - {key for item in rules for key in item.theirs} - left_out - unmodelled
    _audit(checkpoint, layout, active, variables, config, unused, unfilled)
    layout.check_constants(checkpoint, config)
    notes = []
    for item in active:
        _assign(item, checkpoint, variables, config, notes)
    filled = {name for item in active for name in item.ours}
    if headless and any(path.startswith(_HEADS) for path in variables):
        notes.append("the head is new: the file has none")
    if replaced:
        notes.append(f"the head is new: {config.num_classes} classes instead of the file's")
    if notes:
        warnings.warn(f"{checkpoint.path.name}: " + "; ".join(notes), stacklevel=3)
    return LoadReport(
        layout.name,
        tuple(sorted({key for item in active for key in item.theirs})),
        tuple(sorted(skipped)),
        tuple(sorted(unmodelled)),
        tuple(sorted(replaced)),
        tuple(sorted(set(variables) - filled)),
        tuple(notes),
    )


def _is_head(item):
    return item.ours[0].startswith(_HEADS)


def _same_classes(rules, checkpoint, variables):
    """Whether the file's head is as wide as the model's. A head that contradicts itself is left to the audit."""
    heads = {item.ours[0]: item for item in rules if _is_head(item)}
    widths = set()
    for path, item in heads.items():
        if item.theirs[0] in checkpoint:
            widths.add(checkpoint.shapes[item.theirs[0]][-1 if path.endswith("bias") else _OUTPUTS[item.transform]])
    return bool(heads) and (len(widths) != 1 or widths == {variables["head/bias"].shape[0]})


def _audit(checkpoint, layout, active, variables, config, unused, unfilled):
    """Raises one error with all that does not fit: `unused` keys and `unfilled` variables come along."""
    unfilled = {path: ["a rule of this layout"] for path in unfilled}
    misshapen = {}
    for item in active:
        missing = [key for key in item.theirs if key not in checkpoint]
        if missing:
            unfilled |= dict.fromkeys(item.ours, missing)
            continue
        if item.ours[0] == _KERNEL and not _same_patch(item.transform, checkpoint.shapes[item.theirs[0]], config):
            misshapen[item.theirs[0]] = (checkpoint.shapes[item.theirs[0]], f"patch_size {config.patch_size}")
            continue
        # Zeros that take no memory tell the shape behind the transform.
        blanks = [np.broadcast_to(np.float32(0), checkpoint.shapes[key]) for key in item.theirs]
        try:
            loaded = item.load(blanks, config)
        except (ValueError, IndexError):
            loaded = [np.zeros(0)] * len(item.ours)
        for path, blank in zip(item.ours, loaded, strict=True):
            wanted = tuple(variables[path].shape)
            if blank.shape != wanted and not _adaptable(path, blank.shape, wanted, config):
                misshapen[item.theirs[0]] = (checkpoint.shapes[item.theirs[0]], f"{path} {wanted}")
    raise_difference(checkpoint.path, layout.name, unused, unfilled, misshapen)


def _same_patch(transform, shape, config):
    """Whether a patch kernel as the file has it is of the model's patch; flattened ones may look alike."""
    sides = shape[2:] if transform is CONV_OIHW else shape[:2]
    return len(shape) == 4 and tuple(sides) == config.patch_size


def _adaptable(path, shape, wanted, config):
    """Whether an array of another shape can be brought to a variable's: channels of a kernel, grid of a table."""
    if len(shape) != len(wanted) or shape[-1] != wanted[-1]:
        return False
    if path == _KERNEL:
        patch = math.prod(config.patch_size)
        return shape[0] % patch == 0 and wanted[0] == patch * config.num_channels
    if path == _ROOT:
        return shape[:2] == wanted[:2]
    if path != _TABLE or shape[0] != wanted[0]:
        return False
    try:
        _, prefix = _table_grid(shape[1], config)
    except ValueError:
        return False
    return prefix == _num_prefix(config) * config.position_on_prefix


def _num_prefix(config):
    return int(config.class_token) + int(config.distillation_token)


def _table_grid(entries, config):
    num_prefix = _num_prefix(config) if config.position_on_prefix else 0
    return grid_of_table(entries, num_prefix, config.grid_size)


def _assign(item, checkpoint, variables, config, notes):
    arrays = []
    for key in item.theirs:
        array = checkpoint[key]
        check_exact(array, key)
        arrays.append(array)
    for path, value in zip(item.ours, item.load(arrays, config), strict=True):
        wanted = tuple(variables[path].shape)
        if value.shape != wanted:
            value = _adapted(path, value, config, notes)
        _set(variables[path], np.asarray(value, dtype="float32"))


def _set(variable, value):
    """Assigns an array; a transposed matrix is turned by the backend, which is many times faster than NumPy."""
    if value.ndim == 2 and value.T.flags.c_contiguous and not value.flags.c_contiguous:
        variable.assign(ops.transpose(ops.convert_to_tensor(value.T)))
    else:
        variable.assign(value)


def _adapted(path, value, config, notes):
    if path == _TABLE:
        grid, prefix = _table_grid(value.shape[1], config)
        notes.append(f"positions of the grid {grid} are resized to {config.grid_size} ({config.position_resize})")
        return resize_positions(np.asarray(value, "float32"), grid, config.grid_size, prefix, config.position_resize)
    sides = config.patch_size if path == _KERNEL else value.shape[:2]
    kernel = np.asarray(value, "float32").reshape(*sides, -1, value.shape[-1])
    what = "patch kernels" if path == _KERNEL else "kernels of the stem"
    notes.append(f"{what} of {kernel.shape[2]} channels are adapted to {config.num_channels}")
    adapted = adapt_channels(kernel, config.num_channels)
    return adapted.reshape(-1, value.shape[-1]) if path == _KERNEL else adapted


def adapt_channels(kernel, num_channels):
    """A patch kernel `(ph, pw, c, hidden_dim)` for another number of channels: summed for one, else tiled.

    Source: timm `adapt_input_conv`.
    """
    channels = kernel.shape[2]
    if num_channels == 1:
        return kernel.sum(axis=2, keepdims=True)
    tiled = np.tile(kernel, (1, 1, math.ceil(num_channels / channels), 1))[:, :, :num_channels]
    return tiled * (channels / num_channels)
