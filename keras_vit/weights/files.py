"""Checkpoint files as lazy mappings from key to array, and back.

`.safetensors` is memory-mapped, `.npz` read member by member, PyTorch files are memory-mapped by torch.
"""

import collections.abc
import os
import pathlib
import tempfile
import zipfile
import zlib

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

# What a damaged zip archive may raise.
_BROKEN = (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, OSError, ValueError)
_TORCH_SUFFIXES = (".pth", ".pt", ".bin")
SUFFIXES = (".safetensors", ".npz", *_TORCH_SUFFIXES)


class Checkpoint(collections.abc.Mapping):
    """The arrays of a file by key, read when they are asked for.

    Args:
        path: of the file, for messages.
        shapes: dict from key to shape.
        read: callable from key to array.
    """

    def __init__(self, path, shapes, read):
        self.path = pathlib.Path(path)
        self.shapes = shapes
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
    readers = {".safetensors": _open_safetensors, ".npz": _open_npz}
    reader = _open_torch if path.suffix in _TORCH_SUFFIXES else readers.get(path.suffix)
    if reader is None:
        raise ValueError(f"a checkpoint must end in one of {', '.join(SUFFIXES)}. Received: {str(path)!r}")
    try:
        return reader(path)
    except (safetensors.SafetensorError, *_BROKEN) as error:
        raise ValueError(f"a checkpoint must be readable. Received: {str(path)!r} ({error})") from error


def _open_safetensors(path):
    file = safetensors.safe_open(path, framework="numpy")
    shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118, not a dict
    return Checkpoint(path, shapes, file.get_tensor)


def _open_npz(path):
    archive = zipfile.ZipFile(path)
    headers = {}
    for name in archive.namelist():
        with archive.open(name) as member:
            version = np.lib.format.read_magic(member)
            read_header = (
                np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            )
            headers[name.removesuffix(".npy")] = read_header(member)

    def read(key):
        try:
            with archive.open(f"{key}.npy") as member:
                array = np.lib.format.read_array(member, allow_pickle=False)
        except _BROKEN as error:
            raise ValueError(f"a checkpoint must be readable. Received: {str(path)!r}, {key!r} ({error})") from error
        # NumPy has no bfloat16 of its own and writes its two bytes as they are.
        return array.view(ml_dtypes.bfloat16) if array.dtype == np.dtype("V2") else array

    return Checkpoint(path, {key: header[0] for key, header in headers.items()}, read)


def _open_torch(path):
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"reading {str(path)!r} needs PyTorch (pip install torch). Most sources offer the same weights as "
            f"'.safetensors', for which it is not needed; look for {path.with_suffix('.safetensors').name!r}"
        ) from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch raises pickle, zip and runtime errors of many kinds
        raise ValueError(f"not a PyTorch file of plain tensors: {error}") from error
    for name in ("model", "state_dict", "model_state", "teacher"):
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
            break
    tensors = {key.removeprefix("module."): value for key, value in content.items() if isinstance(value, torch.Tensor)}

    def read(key):
        tensor = tensors[key].detach()
        if tensor.dtype == torch.bfloat16:
            return tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
        return tensor.numpy()

    return Checkpoint(path, {key: tuple(value.shape) for key, value in tensors.items()}, read)


def write_checkpoint(path, tensors):
    """Writes arrays as `.safetensors` or `.npz`, whole or not at all.

    Args:
        path: where; an existing file is replaced.
        tensors: dict from key to array.

    Raises:
        ValueError: for another suffix.
    """
    path = pathlib.Path(path)
    if path.suffix not in (".safetensors", ".npz"):
        raise ValueError(f"weights are written as '.safetensors' or '.npz'. Received: {str(path)!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {key: np.ascontiguousarray(value) for key, value in tensors.items()}
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=path.suffix)
    os.close(handle)
    try:
        if path.suffix == ".npz":
            np.savez(name, **tensors)
        else:
            # PyTorch's loaders want to be told whose file it is.
            safetensors.numpy.save_file(tensors, name, metadata={"format": "pt"})
        with open(name, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(name, 0o644)  # a temporary file is its owner's alone
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
