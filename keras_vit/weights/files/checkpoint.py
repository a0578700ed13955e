"""Opens checkpoint files as lazy mappings from key to array, and writes them."""

import collections.abc
import os
import pathlib
import tempfile

import numpy as np
import safetensors
import safetensors.numpy

from keras_vit.weights.files.checksums import reserve_checksums, write_checksums
from keras_vit.weights.files.readers import BROKEN, open_content

# Usual suffixes of checkpoints; the format of a file is recognized by its content.
SUFFIXES = (".safetensors", ".npz", ".pth", ".pt", ".bin", ".ckpt", ".tar", ".h5", ".keras")


class Checkpoint(collections.abc.Mapping):
    """Mapping from the keys of a file to its arrays, which are read on access.

    Args:
        path: of the file, for messages.
        shapes: dict from key to shape.
        read: callable from key to array.
        metadata: dict of str to str that the file holds beside its arrays.
        packed: dict from key to the file's own key, for blocks that are stacked in one array.
        content: `Content` of the file, or `None`.
        subtree: `Subtree` of the file with these arrays, or `None`: the whole file.
    """

    def __init__(self, path, shapes, read, metadata=None, packed=None, content=None, subtree=None):
        self.path = pathlib.Path(path)
        self.shapes = shapes
        self.metadata = metadata or {}
        self.packed = packed or {}
        self.content, self.subtree = content, subtree
        self._read = read

    def derive(self, shapes, read, packed=None, subtree=None):
        """Returns a checkpoint of the same file with other keys."""
        packed, subtree = packed or self.packed, subtree or self.subtree
        return Checkpoint(self.path, shapes, read, self.metadata, packed, self.content, subtree)

    def without(self, keys):
        """Returns the checkpoint without some of its keys."""
        return self.derive({key: shape for key, shape in self.shapes.items() if key not in keys}, self._read)

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
        path: of a file of safetensors, PyTorch, NumPy (`.npz`) or Keras (`.keras`, `.weights.h5`), by whatever name, or
            of the index of a model in several such files.

    Returns:
        A `Checkpoint`. Arrays keep the file's dtype; bfloat16 is `ml_dtypes.bfloat16`. The keys of nested
        containers, as in files of PyTorch, are joined by dots.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file cannot be read, or is of another format.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"a checkpoint must be a file. Received: {str(path)!r}")
    try:
        content = open_content(path)
    except FileNotFoundError:  # a missing shard, which the error names
        raise
    except (safetensors.SafetensorError, RecursionError, *BROKEN) as error:
        raise ValueError(f"a checkpoint must be readable. Received: {str(path)!r} ({error})") from error
    return Checkpoint(path, content.shapes, content.read, content.metadata, content=content)


def is_checkpoint(path):
    """Returns whether a file is a checkpoint by its content, whatever its name."""
    try:
        open_checkpoint(path)
    except (ValueError, OSError):
        return False
    return True


def write_checkpoint(path, tensors, metadata=None):
    """Writes arrays as `.safetensors` or `.npz`, atomically.

    Args:
        path: where; an existing file is replaced.
        tensors: dict from key to array. Their checksums are written with them, see `checksums`.
        metadata: dict of str to str for the header of `.safetensors`; ignored for `.npz`.

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
            # transformers requires the format in the metadata.
            metadata = {"format": "pt", **(metadata or {}), **reserve_checksums(len(tensors))}
            safetensors.numpy.save_file(tensors, name, metadata=metadata)
            write_checksums(name)
        with open(name, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(name, 0o644)  # a temporary file is its owner's alone
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
