"""Adapts arrays to the shapes of a model: patch size, channels, grid of positions, window."""

import dataclasses
import math
import typing

import numpy as np

from keras_vit.layers.core.resample import resample_kernel, resize_bias_table, resize_positions
from keras_vit.weights.config.shapes import grid_of_table, window_of_table
from keras_vit.weights.layouts.transforms import PATCH_AXES

KERNEL, POSITIONS = "patch_encoder/projection/kernel", "patch_encoder/position_embedding"
BIASES = "/attention/relative_position_bias_table"
ROOT = "stem_root/convolution/kernel"  # sees the channels of the image where there is a ResNet


@dataclasses.dataclass(frozen=True)
class Change:
    """The change that turns a file's array into that of a variable.

    Args:
        note: str, shown to the user.
        apply: callable of the file's array in our shape; gives the variable's.
    """

    note: str
    apply: typing.Callable


@dataclasses.dataclass(frozen=True)
class Source:
    """Sizes of the model that a file was written from, as far as they are known.

    Args:
        patch_size: `(h, w)`, or `None` where the kernel has none.
        grid_size: `(h, w)`, or `None` in families without.
        windows: `(h, w)` for each stage, or `None` in families without.
        square, spare: bool. What tables of positions may be, as for `grid_of_table`.
    """

    patch_size: tuple | None
    grid_size: tuple | None
    windows: tuple | None
    square: bool = False
    spare: bool = False


def find_source(config, layout, description, rules, shapes):
    """The `Source` of a file: from what is told of it, and the rest as in the model that is filled.

    Args:
        config: of the model.
        layout: `Layout` of the file.
        description: `Description` of the file, or `None`.
        rules: those of the model.
        shapes: dict from key to shape.
    """
    told, own = (description.stated, description.config is not None) if description else ({}, False)
    patch_size = layout.patch_size or _kernel_patch(rules, shapes, config)
    sizes = {name: told[name] for name in ("image_size", "window_size") if name in told and hasattr(config, name)}
    # An image may have pixels beyond the last whole patch; where it has none, this changes nothing.
    sizes |= {"drop_remainder": True} if hasattr(config, "drop_remainder") else {}
    sizes |= {"patch_size": patch_size} if patch_size else {}
    try:
        known = config.replace(**sizes)
    except ValueError:  # what is told is of something else
        known = config
    # Of a source's files a table is as the source takes it, whatever is told; of ours it is as the config in it says.
    square = layout.square_positions and not own
    grid_size, windows = layout.grid_size or getattr(known, "grid_size", None), getattr(known, "windows", None)
    return Source(patch_size, grid_size, windows, square, layout.spare_position)


def _kernel_patch(rules, shapes, config):
    kernel = next((item for item in rules if item.ours[0] == KERNEL), None)
    if kernel is None or kernel.transform not in PATCH_AXES:
        return getattr(config, "patch_size", None)
    shape = shapes.get(kernel.theirs[0], ())
    return tuple(shape[axis] for axis in PATCH_AXES[kernel.transform]) if len(shape) == 4 else None


def find_change(path, shape, wanted, config, source):
    """The change that an array needs.

    Args:
        path: of the variable.
        shape: of the file's array in our order of axes.
        wanted: shape of the variable.
        config: the config of the model.
        source: `Source` of the file.

    Returns:
        A `Change`, or `None` if the array is the variable's as it is.

    Raises:
        ValueError: if no change makes it fit.
    """
    if path == KERNEL:
        return _kernel_change(shape, wanted, config, source.patch_size)
    if path == ROOT and len(shape) == 4:
        return _root_change(shape, wanted)
    if path == POSITIONS and len(shape) == 3:
        return _position_change(shape, wanted, config, source)
    if path.endswith(BIASES) and len(shape) == 2:
        return _bias_change(path, shape, wanted, config, source)
    _check_same(shape, wanted)
    return None


def _check_same(found, wanted):
    if found != wanted:
        raise ValueError(f"sizes must be those of the variable. Received: {found} for {wanted}")


def _root_change(shape, wanted):
    _check_same((*shape[:2], shape[3]), (*wanted[:2], wanted[3]))
    if shape == wanted:
        return None
    return Change(
        f"kernels of the stem of {shape[2]} channels are adapted to {wanted[2]}",
        lambda array: adapt_channels(array, wanted[2]),
    )


def _kernel_change(shape, wanted, config, old_patch):
    if old_patch is None:
        raise ValueError("a patch kernel must have four axes")
    _check_same(shape[1:], wanted[1:])
    patch = config.patch_size
    channels, new_channels = shape[0] // math.prod(old_patch), wanted[0] // math.prod(patch)
    if new_channels != config.num_channels:  # those of a ResNet's features
        _check_same(channels, new_channels)
    notes = []
    if old_patch != patch:
        notes.append(f"patch kernels of {old_patch} are resampled to {patch}")
    if channels != new_channels:
        notes.append(f"patch kernels of {channels} channels are adapted to {new_channels}")

    def apply(array):
        kernel = resample_kernel(array.reshape(*old_patch, channels, -1), patch)
        return adapt_channels(kernel, new_channels).reshape(wanted)

    return Change("; ".join(notes), apply) if notes else None


def adapt_channels(kernel, num_channels):
    """A patch kernel `(ph, pw, c, hidden_dim)` for another number of channels: summed for one, else tiled.

    Source: timm `adapt_input_conv`.
    """
    channels = kernel.shape[2]
    if num_channels == channels:
        return kernel
    if num_channels == 1:
        return kernel.sum(axis=2, keepdims=True)
    tiled = np.tile(kernel, (1, 1, math.ceil(num_channels / channels), 1))[:, :, :num_channels]
    return tiled * (channels / num_channels)


def _position_change(shape, wanted, config, source):
    _check_same((shape[0], shape[2]), (wanted[0], wanted[2]))
    prefix = (int(config.class_token) + int(config.distillation_token)) * config.position_on_prefix
    grid, found = grid_of_table(shape[1], prefix, (source.grid_size, config.grid_size), source.square, source.spare)
    if source.spare and found > prefix:
        note = "the entry of a class token, which the model has not, is left out of the positions"
        rest = _position_change((1, shape[1] - 1, shape[2]), wanted, config, source)
        if rest is None:
            return Change(note, lambda array: array[:, 1:])
        return Change(f"{note}; {rest.note}", lambda array: rest.apply(array[:, 1:]))
    _check_same(found, prefix)
    if grid == config.grid_size:
        return None
    method = config.position_resize
    return Change(
        f"positions of the grid {grid} are resized to {config.grid_size} ({method})",
        lambda array: resize_positions(array, grid, config.grid_size, prefix, method),
    )


def _bias_change(path, shape, wanted, config, source):
    _check_same(shape[1], wanted[1])
    block = int(path.split("/")[0].rpartition("_")[2])
    stage = next(s for s in range(len(config.depths)) if block < sum(config.depths[: s + 1]))
    window = config.windows[stage]
    old = window_of_table(shape[0], (source.windows[stage], window))
    if old == window:
        return None
    method = config.position_resize
    return Change(
        f"relative position biases of the window {old} are resized to {window} ({method})",
        lambda array: resize_bias_table(array, old, window, method),
    )
