"""How each kind of checkpoint file is read: mapped into memory where its arrays lie in it as they are.

An array that is mapped costs no memory of the process and may be read any number of times; the mapping is private, so
that nobody writes to the file through it.
"""

import json
import math
import mmap
import struct
import zipfile
import zlib

import ml_dtypes
import numpy as np
import safetensors

# What a damaged zip archive may raise.
BROKEN = (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, OSError, ValueError, struct.error)
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": ml_dtypes.bfloat16, "I64": "<i8", "I32": "<i4"}
# A zip archive repeats a member's name in front of its data; the lengths of name and extra field stand at 26.
_LOCAL_HEADER, _LENGTHS_AT = 30, 26


def _map(path):
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


def _view(buffer, shape, dtype, offset, fortran=False):
    return np.ndarray(shape, np.dtype(dtype), buffer, offset, order="F" if fortran else "C")


def open_safetensors(path):
    """Shapes by key, a callable that reads a key, and the file's metadata."""
    # It checks that the header is sound and that the arrays fill the file without a gap.
    file = safetensors.safe_open(path, framework="numpy")
    buffer = _map(path)
    (length,) = struct.unpack_from("<Q", buffer)
    entries = json.loads(buffer[8 : 8 + length])
    metadata = entries.pop("__metadata__", {})

    def read(key):
        entry = entries[key]
        if entry["dtype"] not in _DTYPES:
            return file.get_tensor(key)
        return _view(buffer, entry["shape"], _DTYPES[entry["dtype"]], 8 + length + entry["data_offsets"][0])

    return {key: tuple(entry["shape"]) for key, entry in entries.items()}, read, metadata


class _Member:
    """An array of an `.npz` file: mapped where it is stored as it is, else unpacked.

    Args:
        archive: `zipfile.ZipFile`.
        info: `zipfile.ZipInfo` of the member.
    """

    def __init__(self, archive, info):
        self._archive, self._info = archive, info
        with archive.open(info) as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            self.shape, self._fortran, dtype = read(file)
            self._header = file.tell()
        # NumPy has no bfloat16 of its own and writes its two bytes as they are.
        self._dtype = np.dtype(ml_dtypes.bfloat16) if dtype == np.dtype("V2") else dtype
        size = self._header + math.prod(self.shape) * dtype.itemsize
        encrypted = info.flag_bits & 1
        plain = info.compress_type == zipfile.ZIP_STORED and not encrypted and not dtype.hasobject
        self._mappable, self._checked = plain and size == info.file_size, False

    def read(self, buffer):
        """The array; `buffer` is the whole file."""
        if not self._mappable:
            with self._archive.open(self._info) as file:
                array = np.lib.format.read_array(file, allow_pickle=False)
            return array.view(self._dtype)
        start = self._info.header_offset
        start += _LOCAL_HEADER + sum(struct.unpack_from("<HH", buffer, start + _LENGTHS_AT))
        if not self._checked:
            with memoryview(buffer)[start : start + self._info.file_size] as data:
                if zlib.crc32(data) != self._info.CRC:
                    raise zipfile.BadZipFile(f"bad checksum of {self._info.filename!r}")
            self._checked = True
        return _view(buffer, self.shape, self._dtype, start + self._header, self._fortran)


def open_npz(path):
    """Shapes by key, a callable that reads a key, and no metadata: other readers would take them for an array."""
    archive = zipfile.ZipFile(path)
    members = {info.filename.removesuffix(".npy"): _Member(archive, info) for info in archive.infolist()}
    buffer = _map(path)

    def read(key):
        try:
            return members[key].read(buffer)
        except (*BROKEN, TypeError) as error:
            raise ValueError(f"a checkpoint must be readable. Received: {str(path)!r}, {key!r} ({error})") from error

    return {key: member.shape for key, member in members.items()}, read, {}


def open_torch(path):
    """Shapes by key, a callable that reads a key, and no metadata."""
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"reading {str(path)!r} needs PyTorch (pip install torch). Most sources offer the same weights as "
            f"'.safetensors', for which it is not needed; look for {path.with_suffix('.safetensors').name!r}"
        ) from error
    try:
        # Files from before PyTorch 1.6 are no archives and cannot be mapped.
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # torch raises pickle, zip and runtime errors of many kinds
        raise ValueError(f"not a PyTorch file of plain tensors: {error}") from error
    if isinstance(content, dict):
        names = ("model", "state_dict", "model_state", "teacher")
        content = next((content[name] for name in names if isinstance(content.get(name), dict)), content)
    if not isinstance(content, dict):
        raise ValueError(f"a PyTorch file must hold a dict of tensors, not a {type(content).__name__}")
    tensors = {
        key.removeprefix("module."): value
        for key, value in content.items()
        if isinstance(key, str) and isinstance(value, torch.Tensor)
    }

    def read(key):
        tensor = tensors[key].detach()
        if tensor.dtype == torch.bfloat16:
            return tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
        return tensor.numpy()

    return {key: tuple(value.shape) for key, value in tensors.items()}, read, {}
