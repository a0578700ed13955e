"""Assigns the arrays of a checkpoint to the variables of a model: all of them, or none."""

import dataclasses
import inspect
import warnings

import keras
import numpy as np
from keras import ops

from keras_vit.metadata import metadata
from keras_vit.weights.adapt import find_change, original_sizes
from keras_vit.weights.key_selection import matching
from keras_vit.weights.layouts.base import HEADS, expand, is_head, weights_by_path
from keras_vit.weights.layouts.transforms import SAME, TRANSPOSED, check_exact


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """Report of a load.

    Args:
        layout: str. The file's layout.
        used: tuple of keys that were loaded.
        skipped: tuple of keys that `skip=` named.
        ignored: tuple of keys of parts that the model does not have, such as a text tower.
        replaced: tuple of keys of a head with another number of classes.
        new: tuple of paths of variables that keep their initial values.
        notes: tuple of str. What was resized or adapted.
        prefix: str in front of the keys in the file.
        outside: tuple of keys of the file without that prefix: of other models, an optimizer or other layers.
    """

    layout: str
    used: tuple
    skipped: tuple = ()
    ignored: tuple = ()
    replaced: tuple = ()
    new: tuple = ()
    notes: tuple = ()
    prefix: str = ""
    outside: tuple = ()


def raise_difference(path, layout, unused, unfilled, misshapen, selection, prefix=""):
    """Raises a `ValueError` that lists all differences, if there are any.

    Args:
        path: of the file.
        layout: str.
        unused: keys without a variable.
        unfilled: dict from path of a variable to its missing keys.
        misshapen: dict from key or path to a pair of shapes, the file's and the model's.
        selection: `KeySelection`, whose arguments the error advises.
        prefix: str in front of the keys in the file.
    """
    if not unused and not unfilled and not misshapen:
        return
    lines = [f"  - {key}  (in the file, no variable takes it)" for key in sorted(unused)]
    lines += [f"  + {ours}  (in the model, needs {', '.join(keys)})" for ours, keys in sorted(unfilled.items())]
    lines += [f"  ~ {name}  (file {theirs}, model {ours})" for name, (theirs, ours) in sorted(misshapen.items())]
    raise ValueError(
        f"a checkpoint must fit the model, key by key; {selection.argument('skip')}[...] leaves out keys of the file, "
        f"{selection.argument('new')}[...] variables of the model. Received: {str(path)!r}, read as layout {layout!r}"
        f"{f' with prefix {prefix!r}' if prefix else ''}:\n" + "\n".join(lines)
    )


_MAX_NAMES = 8  # names in a message
# The axis of a head's kernel that counts the classes: PyTorch's is the first.
_OUTPUTS = {TRANSPOSED: 0, SAME: -1}


def assign_weights(model, checkpoint, layout, selection, description=None):
    """Assigns the arrays of a checkpoint to a model. On an error the model is unchanged.

    Args:
        model: a model of keras_vit.
        checkpoint: `Checkpoint` of a model, as returned by `find_model`.
        layout: its `Layout`.
        selection: `KeySelection`; keys to leave out are as the file has them or with one a block.
        description: `Description` of the file, or `None`.

    Returns:
        A `LoadReport`.

    Raises:
        ValueError: with all differences at once; on NaN and infinite values.
    """
    config = metadata(model).config
    checkpoint = layout.unpack(checkpoint)
    skipped, outside = find_skipped(checkpoint, selection)
    variables = weights_by_path(model)
    selection.check_matches("new", variables, "the path of a variable of the model, such as 'encoder_norm/gamma'")
    untouched = matching(variables, selection.new)
    layout = layout.bind(variables)
    table = layout.table(config)
    rules = expand(table, config, variables)
    ignored = matching(checkpoint, layout.ignored) - {key for item in rules for key in item.theirs}
    # The whole table: a model without a head still ignores the head of the file.
    heads = {key for item in table if is_head(item) for key in item.theirs}
    replaced = set() if _same_classes(rules, checkpoint, variables) else heads & set(checkpoint)
    headless = not heads & set(checkpoint)
    left_out = skipped | replaced
    active = [item for item in rules if not set(item.theirs) & left_out and not (headless and is_head(item))]
    active = [item for item in active if not set(item.ours) <= untouched]
    skipped |= {key for item in rules if set(item.ours) <= untouched for key in item.theirs if key in checkpoint}

    unfilled = set(variables) - {name for item in rules for name in item.ours} - untouched
    unused = set(checkpoint) - {key for item in rules for key in item.theirs} - left_out - ignored
    source = original_sizes(config, layout, description, rules, checkpoint.shapes)
    filled = {path: variable for path, variable in variables.items() if path not in untouched}
    changes = _find_changes(checkpoint, layout, active, filled, (config, source), unused, unfilled, selection)
    layout.check_constants(checkpoint, config)
    # All arrays are read before the first variable changes, one at a time, so that no copy of the model is needed.
    for key in (key for item in active for key in item.theirs):
        check_exact(checkpoint[key], key)
    for item in active:
        _assign(item, checkpoint, filled, config, changes)

    notes = list(dict.fromkeys(change.note for change in changes.values()))
    subtree = checkpoint.subtree
    if note := subtree.note(outside, selection):
        notes.insert(0, note)
    if untouched:
        names = sorted(untouched)
        more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
        notes.append(f"left as in the model, by {selection.argument('new')}: {', '.join(names[:_MAX_NAMES])}{more}")
    if headless and any(path.startswith(HEADS) for path in filled):
        notes.append("the head is new: the file has none")
    if replaced and config.num_classes:  # No head at all is what was asked for.
        notes.append(f"the head is new: {config.num_classes} classes instead of the file's")
    if notes:
        warnings.warn(f"{checkpoint.path.name}: " + "; ".join(notes), stacklevel=_stacklevel())
    used = {key for item in active for key in item.theirs}
    new = set(variables) - {name for item in active for name in item.ours if name in filled}
    names = (tuple(sorted(group)) for group in (used, skipped, ignored, replaced, new))
    return LoadReport(layout.name, *names, tuple(notes), subtree.prefix, tuple(sorted(subtree.outside)))


def _stacklevel():
    """Stack level of the nearest line outside the package, to which warnings point."""
    frame, level = inspect.currentframe().f_back, 1
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == "keras_vit":
        frame, level = frame.f_back, level + 1
    return level


def find_skipped(checkpoint, selection):
    """Finds the keys that `skip=` matches: those of the model, and the others of the file.

    A pattern may match keys with or without their prefix in the file; one that matches stacked blocks matches every
    block.
    """
    subtree = checkpoint.subtree
    full = {subtree.prefix + key: key for key in checkpoint}
    stacks = set(checkpoint.packed.values())
    selection.check_matches("skip", {*checkpoint, *full, *stacks, *subtree.outside}, "a key of the file")
    patterns = selection.skip
    stacks = matching(stacks, patterns)
    skipped = matching(checkpoint, patterns) | {full[key] for key in matching(full, patterns)}
    skipped |= {key for key, stack in checkpoint.packed.items() if stack in stacks}
    return skipped, matching(subtree.outside, patterns)


def _same_classes(rules, checkpoint, variables):
    """Returns whether the file's head is as wide as the model's.

    A head that contradicts itself, or has other axes than a head, is reported by `_find_changes`.
    """
    heads = {item.ours[0]: item for item in rules if is_head(item)}
    widths = set()
    for path, item in heads.items():
        shape = checkpoint.shapes.get(item.theirs[0])
        if shape is None:
            continue
        axis, count = (0, 1) if path.endswith("bias") else (_OUTPUTS[item.transform], 2)
        widths.add(shape[axis] if len(shape) == count else None)
    return bool(heads) and (len(widths) != 1 or widths <= {None, variables["head/kernel"].shape[-1]})


def _find_changes(checkpoint, layout, active, variables, configs, unused, unfilled, selection):
    """Finds the `Change` of every variable that needs one; raises one error that lists all differences.

    Args:
        checkpoint, layout: as for `assign_weights`.
        active: the rules that are applied.
        variables: dict from path to variable.
        configs: the model's config, and the `OriginalSizes` of the file.
        unused: keys that nothing takes.
        unfilled: paths of variables without a key.
        selection: `KeySelection`, for messages.
    """
    unfilled = {path: ["a key that this layout has not"] for path in unfilled}
    misshapen, changes = {}, {}
    for item in active:
        missing = [key for key in item.theirs if key not in checkpoint]
        if missing:
            unfilled |= dict.fromkeys([path for path in item.ours if path in variables], missing)
            continue
        # Broadcast zeros, which take no memory, give the shape after the transform.
        blanks = [np.broadcast_to(np.float32(0), checkpoint.shapes[key]) for key in item.theirs]
        targets = {path: tuple(variables[path].shape) for path in item.ours if path in variables}
        try:
            for path, blank in zip(item.ours, item.load(blanks, configs[0]), strict=True):
                if path not in targets:
                    continue
                change = find_change(path, blank.shape, targets[path], *configs)
                if change is not None:
                    changes[path] = change
        except (ValueError, IndexError, TypeError):
            ours = ", ".join(f"{path} {shape}" for path, shape in targets.items())
            misshapen[item.theirs[0]] = (checkpoint.shapes[item.theirs[0]], ours)
    raise_difference(checkpoint.path, layout.name, unused, unfilled, misshapen, selection, checkpoint.subtree.prefix)
    return changes


def _assign(item, checkpoint, variables, config, changes):
    arrays = [checkpoint[key] for key in item.theirs]
    for path, value in zip(item.ours, item.load(arrays, config), strict=True):
        if path not in variables:
            continue
        value = np.asarray(value, "float32")
        _set(variables[path], changes[path].apply(value) if path in changes else value)


def _set(variable, value):
    """Assigns an array; the backend transposes many times faster than NumPy."""
    if keras.config.backend() == "jax":
        value = np.copy(value)  # JAX may keep an array as it is, and this one may be a view of the file
    if value.ndim == 2 and value.T.flags.c_contiguous and not value.flags.c_contiguous:
        variable.assign(ops.transpose(ops.convert_to_tensor(value.T)))
    else:
        variable.assign(value)
