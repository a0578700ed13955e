"""Checkpoint files as lazy mappings from key to array, and back."""

import collections.abc
import os
import pathlib
import tempfile

import numpy as np
import safetensors
import safetensors.numpy

from keras_vit.weights.readers import BROKEN, open_npz, open_safetensors, open_torch

_READERS = {".safetensors": open_safetensors, ".npz": open_npz}
_READERS |= dict.fromkeys((".pth", ".pt", ".bin"), open_torch)
SUFFIXES = tuple(_READERS)


class Checkpoint(collections.abc.Mapping):
    """The arrays of a file by key, read when they are asked for.

    Args:
        path: of the file, for messages.
        shapes: dict from key to shape.
        read: callable from key to array.
        metadata: dict of str to str that the file holds beside its arrays.
        packed: dict from key to the one that the file has instead, where several are stacked in one array.
    """

    def __init__(self, path, shapes, read, metadata=None, packed=None):
        self.path = pathlib.Path(path)
        self.shapes = shapes
        self.metadata = metadata or {}
        self.packed = packed or {}
        self._read = read

    def __getitem__(self, key):
        if key not in self.shapes:
            raise KeyError(key)
        return self._read(key)

    def __contains__(self, key):
        # The inherited one would read the array.
        return key in self.shapes

    def __iter__(self):
        return iter(self.shapes)

    def __len__(self):
        return len(self.shapes)


def open_checkpoint(path):
    """Opens a checkpoint.

    Args:
        path: of a `.safetensors`, `.npz`, `.pth`, `.pt` or `.bin` file.

    Returns:
        A `Checkpoint`. Arrays keep the file's dtype; bfloat16 is `ml_dtypes.bfloat16`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file cannot be read, or is of another kind.
        ImportError: for a PyTorch file where torch is not installed.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"a checkpoint must be a file. Received: {str(path)!r}")
    if path.suffix not in _READERS:
        raise ValueError(f"a checkpoint must end in one of {', '.join(SUFFIXES)}. Received: {str(path)!r}")
    try:
        return Checkpoint(path, *_READERS[path.suffix](path))
    except (safetensors.SafetensorError, *BROKEN) as error:
        raise ValueError(f"a checkpoint must be readable. Received: {str(path)!r} ({error})") from error


def write_checkpoint(path, tensors, metadata=None):
    """Writes arrays as `.safetensors` or `.npz`, whole or not at all.

    Args:
        path: where; an existing file is replaced.
        tensors: dict from key to array.
        metadata: dict of str to str for the header of `.safetensors`; an `.npz` file has no place for it.

    Raises:
        ValueError: for another suffix.
    """
    path = pathlib.Path(path)
    if path.suffix not in (".safetensors", ".npz"):
        raise ValueError(f"weights are written as '.safetensors' or '.npz'. Received: {str(path)!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {key: np.asarray(value, order="C") for key, value in tensors.items()}
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=path.suffix)
    os.close(handle)
    try:
        if path.suffix == ".npz":
            np.savez(name, **tensors)
        else:
            # PyTorch's loaders want to be told whose file it is.
            safetensors.numpy.save_file(tensors, name, metadata={"format": "pt", **(metadata or {})})
        with open(name, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(name, 0o644)  # a temporary file is its owner's alone
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
