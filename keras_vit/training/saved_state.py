"""The file that holds the whole state of a run: arrays and JSON, with a checksum, and the save before it beside it.

It is an `.npz` file, which `numpy.load` opens. The comment of the archive is the SHA-256 of all bytes before it.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import warnings
import zipfile

import numpy as np

from keras_vit.training.durable import replaced

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
        raise ValueError(f"{problems[0]}.{both} Put a copy in its place, or begin anew (--fresh)") from problems[0]
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
