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
ROOT = "stem_root/convolution/kernel"  # in a hybrid the ResNet, not the patch kernel, takes the image


@dataclasses.dataclass(frozen=True)
class Change:
    """A change from a file's array to the value of a variable.

    Args:
        note: str, shown to the user.
        apply: callable of the file's array, with our order of axes, that returns the variable's.
    """

    note: str
    apply: typing.Callable


@dataclasses.dataclass(frozen=True)
class OriginalSizes:
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


def original_sizes(config, layout, description, rules, shapes):
    """Finds the `OriginalSizes` of a file: as stated in it or beside it, and the rest as in the model to load.

    Args:
        config: of the model to load.
        layout: `Layout` of the file.
        description: `Description` of the file, or `None`.
        rules: list of `Rule` of the model.
        shapes: dict from key to shape.
    """
    stated, own = (description.stated, description.config is not None) if description else ({}, False)
    patch_size = layout.patch_size or _kernel_patch(rules, shapes, config)
    sizes = {name: stated[name] for name in ("image_size", "window_size") if name in stated}
    sizes |= {"patch_size": patch_size} if patch_size else {}
    try:
        known = config.at_sizes_of_file(sizes)
    except ValueError:  # the stated sizes belong to something else
        known = config
    # In another library's file the table is as that library reads it, whatever is stated; in ours as the config says.
    square = layout.square_positions and not own
    return OriginalSizes(patch_size, layout.grid_size or known.grid_size, known.windows, square, layout.spare_position)


def _kernel_patch(rules, shapes, config):
    kernel = next((item for item in rules if item.ours[0] == KERNEL), None)
    if kernel is None or kernel.transform not in PATCH_AXES:
        return config.patch_size
    shape = shapes.get(kernel.theirs[0], ())
    return tuple(shape[axis] for axis in PATCH_AXES[kernel.transform]) if len(shape) == 4 else None


def find_change(path, shape, target, config, source):
    """Finds the change that turns a file's array into the value of a variable.

    Args:
        path: of the variable.
        shape: of the file's array in our order of axes.
        target: shape of the variable.
        config: the config of the model.
        source: `OriginalSizes` of the file.

    Returns:
        A `Change`, or `None` if the array fits as it is.

    Raises:
        ValueError: if no change makes it fit.
    """
    if path == KERNEL:
        return _kernel_change(shape, target, config, source.patch_size)
    if path == ROOT and len(shape) == 4:
        return _root_change(shape, target)
    if path == POSITIONS and len(shape) == 3:
        return _position_change(shape, target, config, source)
    if path.endswith(BIASES) and len(shape) == 2:
        return _bias_change(path, shape, target, config, source)
    _check_same(shape, target)
    return None


def _check_same(shape, target):
    if shape != target:
        raise ValueError(f"sizes must be those of the variable. Received: {shape} for {target}")


def _root_change(shape, target):
    _check_same((*shape[:2], shape[3]), (*target[:2], target[3]))
    if shape == target:
        return None
    return Change(
        f"kernels of the stem of {shape[2]} channels are adapted to {target[2]}",
        lambda array: adapt_channels(array, target[2]),
    )


def _kernel_change(shape, target, config, old_patch):
    if old_patch is None:
        raise ValueError("a patch kernel must have four axes")
    _check_same(shape[1:], target[1:])
    patch = config.patch_size
    channels, new_channels = shape[0] // math.prod(old_patch), target[0] // math.prod(patch)
    if new_channels != config.num_channels:  # those of a ResNet's features
        _check_same(channels, new_channels)
    notes = []
    if old_patch != patch:
        notes.append(f"patch kernels of {old_patch} are resampled to {patch}")
    if channels != new_channels:
        notes.append(f"patch kernels of {channels} channels are adapted to {new_channels}")

    def apply(array):
        kernel = resample_kernel(array.reshape(*old_patch, channels, -1), patch)
        return adapt_channels(kernel, new_channels).reshape(target)

    return Change("; ".join(notes), apply) if notes else None


def adapt_channels(kernel, num_channels):
    """Adapts a patch kernel `(ph, pw, c, hidden_dim)` to another number of channels: summed for one, else tiled.

    OriginalSizes: timm `adapt_input_conv`.
    """
    channels = kernel.shape[2]
    if num_channels == channels:
        return kernel
    if num_channels == 1:
        return kernel.sum(axis=2, keepdims=True)
    tiled = np.tile(kernel, (1, 1, math.ceil(num_channels / channels), 1))[:, :, :num_channels]
    return tiled * (channels / num_channels)


def _position_change(shape, target, config, source):
    _check_same((shape[0], shape[2]), (target[0], target[2]))
    prefix = (int(config.class_token) + int(config.distillation_token)) * config.position_on_prefix
    grid, table_prefix = grid_of_table(
        shape[1], prefix, (source.grid_size, config.grid_size), source.square, source.spare
    )
    if source.spare and table_prefix > prefix:
        note = "the entry of the class token is left out of the positions, as the model has none"
        rest = _position_change((1, shape[1] - 1, shape[2]), target, config, source)
        if rest is None:
            return Change(note, lambda array: array[:, 1:])
        return Change(f"{note}; {rest.note}", lambda array: rest.apply(array[:, 1:]))
    _check_same(table_prefix, prefix)
    if grid == config.grid_size:
        return None
    method = config.position_resize
    return Change(
        f"positions of the grid {grid} are resized to {config.grid_size} ({method})",
        lambda array: resize_positions(array, grid, config.grid_size, prefix, method),
    )


def _bias_change(path, shape, target, config, source):
    _check_same(shape[1], target[1])
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
