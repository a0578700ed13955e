"""The whole state of a run in one file, replaced atomically after every epoch.

More than Keras' `BackupAndRestore`: the state of dropout's random numbers and the history are in it, and a
run directory refuses to go on with another recipe.
"""

import json
import os
import pathlib
import time
import zipfile

import keras
import numpy as np

from keras_vit.training.distillation import trained_model

FILE_NAME = "checkpoint.npz"
_STATE = "state.json"


def _variables(model):
    """Every variable that training changes, in a fixed order: weights, random seeds, optimizer; of no teacher."""
    return [*trained_model(model).variables, *model.optimizer.variables]


def values_of(model):
    """The values of every variable that training changes, as a list of NumPy arrays."""
    return [keras.ops.convert_to_numpy(variable) for variable in _variables(model)]


def save(path, values, state):
    """Writes a run so that a reader finds either the old file or the new one.

    Args:
        path: of the `.npz` file.
        values: what `values_of` returned.
        state: JSON types, for example the epoch and the history.
    """
    path = pathlib.Path(path)
    # npz has no bfloat16; float32 holds its values exactly.
    arrays = {
        f"{i:05d}": value.astype("float32") if value.dtype.name == "bfloat16" else value
        for i, value in enumerate(values)
    }
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with open(partial, "wb") as file:
        np.savez(file, **{_STATE: np.frombuffer(json.dumps(state).encode(), "uint8")}, **arrays)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def load_state(path):
    """The `state` of a checkpoint, or `None` where there is no file.

    Raises:
        ValueError: if the file cannot be read.
    """
    if not pathlib.Path(path).exists():
        return None
    with _open(path) as file:
        return json.loads(file[_STATE].tobytes())


def restore(path, model):
    """Fills a compiled model from a checkpoint.

    Args:
        path: of the `.npz` file.
        model: the same architecture and optimizer; under the same strategy's scope.

    Returns:
        The `state` that was saved with it.

    Raises:
        ValueError: if the file cannot be read or is of another model or optimizer.
    """
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    variables = _variables(model)
    with _open(path) as file:
        values = [file[name] for name in sorted(set(file.files) - {_STATE})]
        state = json.loads(file[_STATE].tobytes())
    if [v.shape for v in values] != [tuple(v.shape) for v in variables]:
        raise ValueError(
            "a checkpoint must be of the same model and optimizer. "
            f"Received: {str(path)!r} with {len(values)} arrays for {len(variables)} variables, or other shapes"
        )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    return state


def _open(path):
    try:
        file = np.load(path)
        if _STATE not in file.files:
            raise KeyError(_STATE)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"a checkpoint must be a file of this library. Received: {str(path)!r} ({error})") from error
    return file


class CheckpointCallback(keras.callbacks.Callback):
    """Saves the run after every epoch that ended in numbers.

    Args:
        path: of the `.npz` file.
        recipe: dict, kept in the file so that another recipe is refused.
        history: list of dicts, one a finished epoch; appended to, with the seconds of the run so far.
        seconds: float. What earlier parts of the run took.
        code: list of dicts of JSON types, what ran in the parts of the run, this one last.
    """

    def __init__(self, path, recipe, history, seconds=0.0, code=()):
        super().__init__()
        self.path = path
        self.recipe = recipe
        self.history = history
        self.code = list(code)
        self._earlier = seconds
        self._start = time.perf_counter()

    def seconds(self):
        """What the run took so far, with its earlier parts."""
        return self._earlier + time.perf_counter() - self._start

    def on_epoch_end(self, epoch, logs=None):
        numbers = {name: float(value) for name, value in (logs or {}).items()}
        values = values_of(self.model)
        if not all(np.isfinite(value).all() for value in [*numbers.values(), *values]):
            self.model.stop_training = True  # The last good state stays.
            return
        self.history.append({**numbers, "wall_seconds": round(self.seconds(), 2)})
        state = {"epoch": epoch + 1, "recipe": self.recipe, "history": self.history, "seconds": self.seconds()}
        save(self.path, values, {**state, "code": self.code})
