"""The whole state of a run: read from a model, so that it goes on at the very step where it was, and filled in.

More than Keras' `BackupAndRestore`: the place in the data, the state of dropout's random numbers, the metrics of the
begun epoch and the history are in it, and a run directory refuses to go on with another recipe.
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

_STATE, _METRIC = "state.json", "metric_"
_DIGITS = hashlib.sha256().digest_size * 2
_CHUNK = 2**20


@dataclasses.dataclass
class Saved:
    """A state as it was read.

    Args:
        state: dict of JSON types: `epoch`, the epochs that have ended, `step`, the steps of the next one that were
            done, and whatever else the run wants to know again.
        values: list of arrays, those of the model and its optimizer.
        metrics: list of arrays, those of the metrics of the begun epoch.
        path: of the file, or `None` for a new run.
    """

    state: dict
    values: list = dataclasses.field(default_factory=list)
    metrics: list = dataclasses.field(default_factory=list)
    path: pathlib.Path | None = None

    def place(self):
        """Where it is, in words."""
        return describe(self.state["epoch"], self.state["step"])


def describe(epoch, step):
    """A place in a run in words: epochs that have ended and steps of the next one."""
    return f"after epoch {epoch}" + (f" and {step} step{'s' if step > 1 else ''} of the next" if step else "")


def previous(path):
    """Where the save before the last one is kept."""
    path = pathlib.Path(path)
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def save(path, values, state, metrics=()):
    """Writes a state so that a kill or a failure at any moment leaves the one before it.

    What was at `path` becomes `previous(path)`: for a disk that gives back other bytes than it was given.

    Args:
        path: of the `.npz` file.
        values, state, metrics: as for `Saved`.

    Raises:
        OSError: if it cannot be written; `path` is as it was.
    """
    named = {f"{i:05d}": value for i, value in enumerate(values)}
    named |= {f"{_METRIC}{i:03d}": value for i, value in enumerate(metrics)}
    arrays = {_STATE: np.frombuffer(json.dumps(state).encode(), "uint8")}
    # npz has no bfloat16; float32 holds its values exactly.
    arrays |= {n: value.astype("float32") if value.dtype.name == "bfloat16" else value for n, value in named.items()}
    with replaced(path, keep=previous(path)) as partial, open(partial, "w+b") as file:
        with zipfile.ZipFile(file, "w") as archive:
            archive.comment = b"0" * _DIGITS
            for name, value in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, value, allow_pickle=False)
        digest = _digest(file)
        file.seek(-_DIGITS, os.SEEK_END)
        file.write(digest)


def load(path):
    """What was saved last.

    Where that file is damaged, the save before it, with a warning that names both.

    Args:
        path: of the `.npz` file.

    Returns:
        `Saved`, or `None` where nothing was saved.

    Raises:
        ValueError: if there are files but none of them is whole.
    """
    problems = []
    for candidate in (pathlib.Path(path), previous(path)):
        try:
            with open(candidate, "rb") as file:
                saved = read(file, candidate)
        except FileNotFoundError:  # A run that has not saved, or was killed between the two names.
            continue
        except ValueError as error:
            problems.append(error)
            continue
        if problems:
            warnings.warn(f"{problems[0]}; the save before it is {saved.place()}: {str(candidate)!r}", stacklevel=2)
        return saved
    if problems:
        both = f" Nor can the save before it be used: {problems[1]}" if len(problems) > 1 else ""
        raise ValueError(f"{problems[0]}.{both} Put a copy in its place, or begin anew (--overwrite)") from problems[0]
    return None


def read(file, path):
    """A state from an open file.

    Args:
        file: binary file that can seek.
        path: its name.

    Returns:
        `Saved`.

    Raises:
        ValueError: if it is not what `save` wrote.
    """
    if _digest(file) != file.read():
        raise ValueError(
            "a checkpoint must be a whole file of this library. "
            f"Received: {str(path)!r}, whose checksum is another: it is cut short, damaged or of an earlier version"
        )
    file.seek(0)
    with np.load(file) as arrays:
        names = sorted(set(arrays.files) - {_STATE})
        values = [arrays[name] for name in names if not name.startswith(_METRIC)]
        metrics = [arrays[name] for name in names if name.startswith(_METRIC)]
        return Saved(json.loads(arrays[_STATE].tobytes()), values, metrics, pathlib.Path(path))


def _digest(file):
    """The checksum of all but the end of a file, as bytes; the file is left where its own checksum begins."""
    remaining = max(file.seek(0, os.SEEK_END) - _DIGITS, 0)
    file.seek(0)
    digest = hashlib.sha256()
    while remaining:
        chunk = file.read(min(_CHUNK, remaining))
        digest.update(chunk)
        remaining -= len(chunk)
    return digest.hexdigest().encode()


FILE_NAME = "checkpoint.npz"


def _variables(model):
    """Every variable that training changes, in a fixed order: weights, random seeds, optimizer; of no teacher."""
    return [*getattr(model, "changing_variables", model.variables), *model.optimizer.variables]


def values_of(model):
    """Copies of the values of every variable that training changes, as a list of NumPy arrays."""
    _sync(model)
    return [ops.convert_to_numpy(variable) for variable in _variables(model)]


def metrics_of(model):
    """Copies of the values of every variable of the model's metrics, as a list of NumPy arrays."""
    _sync(model)
    return [ops.convert_to_numpy(variable) for variable in model.metrics_variables]


def _sync(model):
    """On JAX the variables are elsewhere while `fit` runs."""
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()


def restore(path, model):
    """Fills a compiled model from a checkpoint.

    Args:
        path: of the `.npz` file.
        model: the same architecture and optimizer; under the same strategy's scope.

    Returns:
        The `state` that was saved with it, a dict.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if the file cannot be read or is of another model or optimizer.
    """
    saved = load(path)
    if saved is None:
        raise FileNotFoundError(f"there must be a checkpoint. Received: {str(path)!r}, which does not exist")
    fill(model, saved)
    return saved.state


def fill(model, saved):
    """Fills a compiled model from a `Saved`; see `restore`."""
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    _assign(_variables(model), saved.values, saved.path, "model and optimizer")


def fill_metrics(model, saved):
    """Fills the metrics of a compiled model from a `Saved`."""
    if len(model.metrics_variables) != len(saved.metrics):
        _build_metrics(model)
    _assign(model.metrics_variables, saved.metrics, saved.path, "metrics")


def _assign(variables, values, path, what):
    if [value.shape for value in values] != [tuple(variable.shape) for variable in variables]:
        raise ValueError(
            f"a checkpoint must be of the same {what}. "
            f"Received: {str(path)!r} with {len(values)} arrays for {len(variables)} variables, or other shapes"
        )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _build_metrics(model):
    """Makes the variables of compiled metrics, which Keras on TensorFlow only does in the first step."""
    images = keras.KerasTensor((1, *trained_model(model).input_shape[1:]))
    outputs = keras.tree.map_structure(lambda output: ops.zeros(output.shape), model.compute_output_spec(images))
    # Targets are rows of one number a class, as logits are.
    model.compute_metrics(None, keras.tree.flatten(outputs)[0], outputs)
    model.reset_metrics()
