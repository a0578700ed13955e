"""Checkpoints of a run: the file format, and the variables that are read from and assigned to a model.

A checkpoint holds more than that of `keras.callbacks.BackupAndRestore`: the position in the data, the random seeds of
dropout, the metrics of the unfinished epoch, the history and the recipe.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import warnings
import zipfile

import keras
import numpy as np
from keras import ops

from keras_vit.atomic import replaced
from keras_vit.training.tasks.distillation import trained_model

CHECKPOINT_FILE = "checkpoint.npz"
_STATE, _METRIC = "state.json", "metric_"
_DIGEST_SIZE = hashlib.sha256().digest_size * 2
_CHUNK_SIZE = 2**20


@dataclasses.dataclass
class Checkpoint:
    """The content of a checkpoint file.

    Args:
        state: dict of JSON types: `epoch`, the number of finished epochs; `step`, the number of finished steps of the
            next one; and the caller's own entries.
        values: list of arrays: the variables of the model and its optimizer.
        metrics: list of arrays: the variables of the metrics of the unfinished epoch.
        path: of the file; `None` for a new run.
    """

    state: dict
    values: list = dataclasses.field(default_factory=list)
    metrics: list = dataclasses.field(default_factory=list)
    path: pathlib.Path | None = None

    @property
    def position(self):
        """`(epoch, step)`: finished epochs, and finished steps of the next one."""
        return self.state["epoch"], self.state["step"]


def describe_position(epoch, step):
    """A position in a run, in words.

    Args:
        epoch: int. The number of finished epochs.
        step: int. The number of finished steps of the next one.
    """
    return f"after epoch {epoch}" + (f" and {step} step{'s' if step > 1 else ''} of the next" if step else "")


def previous_path(path):
    """The path of the checkpoint before the last one."""
    path = pathlib.Path(path)
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def save_checkpoint(path, values, state, metrics=()):
    """Writes a checkpoint; a kill or a failure at any moment leaves the previous one usable.

    The file that was at `path` becomes `previous_path(path)`, in case the disk returns other bytes than were written.

    Args:
        path: of the `.npz` file.
        values, state, metrics: as for `Checkpoint`.

    Raises:
        OSError: if it cannot be written; `path` is unchanged.
    """
    named = {f"{i:05d}": value for i, value in enumerate(values)}
    named |= {f"{_METRIC}{i:03d}": value for i, value in enumerate(metrics)}
    arrays = {_STATE: np.frombuffer(json.dumps(state).encode(), "uint8")}
    # npz has no bfloat16; float32 holds its values exactly.
    arrays |= {n: value.astype("float32") if value.dtype.name == "bfloat16" else value for n, value in named.items()}
    with replaced(path, keep=previous_path(path)) as partial, open(partial, "w+b") as file:
        with zipfile.ZipFile(file, "w") as archive:
            archive.comment = b"0" * _DIGEST_SIZE
            for name, value in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, value, allow_pickle=False)
        digest = _digest(file)
        file.seek(-_DIGEST_SIZE, os.SEEK_END)
        file.write(digest)


def load_checkpoint(path):
    """Reads the last checkpoint, or the one before it, with a warning, if the last file is damaged.

    Args:
        path: of the `.npz` file.

    Returns:
        A `Checkpoint`, or `None` if there is no file.

    Raises:
        ValueError: if there are files, but all of them are damaged.
    """
    errors = []
    for candidate in (pathlib.Path(path), previous_path(path)):
        try:
            with open(candidate, "rb") as file:
                checkpoint = read_checkpoint(file, candidate)
        except FileNotFoundError:  # The run has not saved yet, or was killed between the two renames.
            continue
        except ValueError as error:
            errors.append(error)
            continue
        if errors:
            position = describe_position(*checkpoint.position)
            warnings.warn(f"{errors[0]}; using the previous checkpoint, {position}: {str(candidate)!r}", stacklevel=2)
        return checkpoint
    if errors:
        both = f" The previous checkpoint cannot be used either: {errors[1]}." if len(errors) > 1 else ""
        raise ValueError(f"{errors[0]}.{both} Restore a copy of the file, or pass --overwrite") from errors[0]
    return None


def read_checkpoint(file, path):
    """Reads a checkpoint from an open file.

    Args:
        file: binary file that can seek.
        path: its name.

    Returns:
        A `Checkpoint`.

    Raises:
        ValueError: if the file is not one that `save_checkpoint` wrote.
    """
    if _digest(file) != file.read():
        raise ValueError(
            f"a checkpoint must be a complete file of this library. Received: {str(path)!r}, whose checksum does not "
            "match: it is truncated, damaged or of another version"
        )
    file.seek(0)
    with np.load(file) as arrays:
        names = sorted(set(arrays.files) - {_STATE})
        values = [arrays[name] for name in names if not name.startswith(_METRIC)]
        metrics = [arrays[name] for name in names if name.startswith(_METRIC)]
        return Checkpoint(json.loads(arrays[_STATE].tobytes()), values, metrics, pathlib.Path(path))


def _digest(file):
    """The checksum of a file without its own last bytes, which hold the stored checksum; the file is left there."""
    remaining = max(file.seek(0, os.SEEK_END) - _DIGEST_SIZE, 0)
    file.seek(0)
    digest = hashlib.sha256()
    while remaining:
        chunk = file.read(min(_CHUNK_SIZE, remaining))
        digest.update(chunk)
        remaining -= len(chunk)
    return digest.hexdigest().encode()


def _training_variables(model):
    """The variables that training changes, in a fixed order: weights, random seeds, optimizer; none of a teacher."""
    return [*getattr(model, "changing_variables", model.variables), *model.optimizer.variables]


def training_values(model):
    """Copies the variables that training changes into a list of NumPy arrays."""
    _sync_jax(model)
    return [ops.convert_to_numpy(variable) for variable in _training_variables(model)]


def metric_values(model):
    """Copies the variables of the model's metrics into a list of NumPy arrays."""
    _sync_jax(model)
    return [ops.convert_to_numpy(variable) for variable in model.metrics_variables]


def _sync_jax(model):
    """Writes the values that `fit` holds on JAX into the variables of the model."""
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()


def restore(path, model):
    """Restores a compiled model from a checkpoint file.

    Args:
        path: of the `.npz` file.
        model: with the same architecture and optimizer; in the scope of the same strategy.

    Returns:
        The `state` that was saved with it, a dict.

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: if the file cannot be read or is of another model or optimizer.
    """
    checkpoint = load_checkpoint(path)
    if checkpoint is None:
        raise FileNotFoundError(f"a checkpoint must exist. Received: {str(path)!r}, which does not exist")
    restore_variables(model, checkpoint)
    return checkpoint.state


def restore_variables(model, checkpoint):
    """Assigns the values of a `Checkpoint` to a compiled model and its optimizer; see `restore`."""
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    _assign(_training_variables(model), checkpoint.values, checkpoint.path, "model and optimizer")


def restore_metrics(model, checkpoint):
    """Assigns the metrics of a `Checkpoint` to a compiled model."""
    if len(model.metrics_variables) != len(checkpoint.metrics):
        _build_metrics(model)
    _assign(model.metrics_variables, checkpoint.metrics, checkpoint.path, "metrics")


def _assign(variables, values, path, owner):
    if [value.shape for value in values] != [tuple(variable.shape) for variable in variables]:
        raise ValueError(
            f"a checkpoint must be of the same {owner}. "
            f"Received: {str(path)!r} with {len(values)} arrays for {len(variables)} variables, or other shapes"
        )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _build_metrics(model):
    """Creates the variables of compiled metrics, which Keras on TensorFlow creates in the first step only."""
    images = keras.KerasTensor((1, *trained_model(model).input_shape[1:]))
    outputs = keras.tree.map_structure(lambda output: ops.zeros(output.shape), model.compute_output_spec(images))
    # Targets have one column a class, as logits have.
    model.compute_metrics(None, keras.tree.flatten(outputs)[0], outputs)
    model.reset_metrics()
