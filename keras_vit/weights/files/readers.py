"""Opens checkpoint files of any format, recognized by their content; uncompressed arrays are memory-mapped.

A mapped array takes no memory of the process and may be read any number of times; the mapping is private, so that
nothing writes to the file through it. Arrays with a checksum are checked at the first read.
"""

import dataclasses
import json
import math
import mmap
import struct
import typing
import zipfile
import zlib

import ml_dtypes
import numpy as np
import safetensors

from keras_vit.weights.files.checksums import read_checksums
from keras_vit.weights.files.keras_files import WEIGHTS_MEMBER, open_hdf5, open_keras
from keras_vit.weights.files.torch_files import is_torch_archive, map_member, open_torch_archive, open_torch_stream

# Errors that a damaged file may raise.
BROKEN = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, KeyError),
    *(RuntimeError, NotImplementedError),
)
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": ml_dtypes.bfloat16, "I64": "<i8", "I32": "<i4"}
FORMATS = "safetensors, PyTorch, NumPy (.npz) and Keras (.keras, .weights.h5)"
_ZIP, _HDF5 = b"PK", b"\x89HDF\r\n\x1a\n"
# Files often mistaken for a checkpoint, by their first bytes.
_MISTAKEN = {
    b"version https://git-lfs": "it is a pointer of Git LFS, not the file itself; fetch that with `git lfs pull`",
    b"<": "it is a web page, perhaps that of the file; download the file itself",
    b"\x1f\x8b": "it is compressed with gzip; unpack it first",
}


@dataclasses.dataclass(frozen=True)
class Content:
    """Content of a file.

    Args:
        kind: str, `safetensors`, `npz`, `torch` or `keras`.
        shapes: dict from key to shape.
        read: callable that reads a key.
        metadata: dict of str to str that the file holds beside its arrays.
        containers: frozenset of prefixes that are nested containers in the file rather than parts of keys.
        refused: dict from the key of an object that is no plain array to a description of it.
        roots: dict from the prefix of every model in a file of Keras to its grid, as `open_hdf5` gives it.
        keras_config: dict, the `config.json` of a `.keras` file.
        architecture: dict, the name and the arguments of the model that a training program wrote beside the weights, as
            returned by `stated_architecture`.
    """

    kind: str
    shapes: dict
    read: typing.Callable
    metadata: dict = dataclasses.field(default_factory=dict)
    containers: frozenset = frozenset()
    refused: dict = dataclasses.field(default_factory=dict)
    roots: dict = dataclasses.field(default_factory=dict)
    keras_config: dict = dataclasses.field(default_factory=dict)
    architecture: dict = dataclasses.field(default_factory=dict)


def open_content(path):
    """Opens a file, whatever its name; returns a `Content`.

    Raises:
        ValueError, one of `BROKEN`: if the file is damaged or of an unknown format.
    """
    buffer = _map(path)
    start = buffer[:32]
    if start.startswith(_ZIP):
        return _open_zip(path, buffer)
    if start.startswith(_HDF5):
        return _keras_content(path, (*open_hdf5(path), {}))
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < len(buffer):
        return open_safetensors(path, buffer)
    if start[:1] == b"{":
        return _open_index(path, buffer)
    if start[:1] == b"\x80":
        return _torch_content(path, open_torch_stream(buffer))
    reason = next((reason for first, reason in _MISTAKEN.items() if start.startswith(first)), None)
    raise ValueError(reason or f"its content is none of {FORMATS}; it begins with {bytes(start[:8])!r}")


def _map(path):
    with open(path, "rb") as file:
        try:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except ValueError as error:
            raise ValueError("it is empty") from error


def _open_zip(path, buffer):
    archive = zipfile.ZipFile(path)
    names = archive.namelist()
    if not names:
        raise ValueError("it is an archive that holds no arrays")
    if is_torch_archive(names):
        return _torch_content(path, open_torch_archive(archive, buffer))
    if WEIGHTS_MEMBER in names:
        return _keras_content(path, open_keras(archive))
    return open_npz(path, archive, buffer)


def _torch_content(path, opened):
    tensors, refused, containers, architecture = opened
    read = _checked_read(path, lambda key: tensors[key].read())
    shapes = {key: tensor.shape for key, tensor in tensors.items()}
    return Content("torch", shapes, read, containers=frozenset(containers), refused=refused, architecture=architecture)


def _keras_content(path, opened):
    shapes, read, roots, keras_config = opened
    return Content("keras", shapes, _checked_read(path, read), roots=roots, keras_config=keras_config)


def _read_index(text):
    """The name of the file of every key of a model in several files.

    Raises:
        ValueError: if it is no index, or names a file that does not lie beside it.
    """
    content = json.loads(text)
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise ValueError("a JSON file must be the index of a checkpoint, with a weight_map of its arrays")
    outside = [name for name in places.values() if "/" in name or "\\" in name]
    if outside:
        raise ValueError(f"the files of an index must lie beside it. Received: {outside[0]!r}")
    return places


def shard_names(path):
    """Lists the files of a sharded model by its index; an empty list for any other file.

    Raises:
        ValueError: if it is named as an index but is not one.
    """
    return sorted(set(_read_index(path.read_bytes()).values())) if path.name.endswith(".index.json") else []


def _open_index(path, buffer):
    """Opens a sharded model of Hugging Face by its index; returns a `Content`."""
    places, shards = _read_index(buffer[:]), {}
    for name in sorted(set(places.values())):
        file = path.with_name(name)
        if not file.is_file():
            raise FileNotFoundError(
                f"the files of an index must lie beside it. Received: {str(path)!r}, without {name!r}"
            )
        shards[name] = open_content(file)
    strays = [key for key, name in places.items() if key not in shards[name].shapes]
    strays += [key for name, shard in shards.items() for key in shard.shapes if places.get(key) != name]
    if strays:
        raise ValueError(f"the files of an index must hold what it says, and no more. Received: {strays[:3]}")
    kinds = {shard.kind for shard in shards.values()}
    refused = {key: kind for shard in shards.values() for key, kind in shard.refused.items()}
    shapes = {key: shards[name].shapes[key] for key, name in places.items()}
    return Content(min(kinds), shapes, lambda key: shards[places[key]].read(key), refused=refused)


def _checked_read(path, read):
    """Wraps a callable so that its errors name the unreadable file."""

    def checked(key):
        try:
            return read(key)
        except (*BROKEN, TypeError) as error:
            raise ValueError(f"a checkpoint must be readable. Received: {str(path)!r}, {key!r} ({error})") from error

    return checked


def _view(buffer, shape, dtype, offset, fortran=False):
    return np.ndarray(shape, np.dtype(dtype), buffer, offset, order="F" if fortran else "C")


def open_safetensors(path, buffer):
    """Opens a safetensors file; returns a `Content`."""
    # It checks that the header is sound and that the arrays fill the file without a gap.
    file = safetensors.safe_open(path, framework="numpy")
    (length,) = struct.unpack_from("<Q", buffer)
    header = json.loads(buffer[8 : 8 + length])
    checksums = read_checksums(header)
    metadata = header.pop("__metadata__", {})

    def read(key):
        entry = header[key]
        start, end = (8 + length + offset for offset in entry["data_offsets"])
        expected = checksums.get(key)  # Another thread may read the same array.
        if expected is not None:
            with memoryview(buffer)[start:end] as data:
                if not expected.matches(data):
                    raise ValueError("bad checksum")
            checksums.pop(key, None)
        if entry["dtype"] not in _DTYPES:
            return file.get_tensor(key)
        return _view(buffer, entry["shape"], _DTYPES[entry["dtype"]], start)

    shapes = {key: tuple(entry["shape"]) for key, entry in header.items()}
    return Content("safetensors", shapes, _checked_read(path, read), metadata)


class _Member:
    """Array of an `.npz` file: memory-mapped if stored uncompressed, else decompressed.

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
        self._mappable, self._data = plain and size == info.file_size, None

    def read(self, buffer):
        """The array; `buffer` is the whole file."""
        if not self._mappable:
            with self._archive.open(self._info) as file:
                array = np.lib.format.read_array(file, allow_pickle=False)
            return array.view(self._dtype)
        if self._data is None:
            self._data = map_member(self._info, buffer)
        return _view(self._data, self.shape, self._dtype, self._header, self._fortran)


def open_npz(path, archive, buffer):
    """Opens an `.npz` file; returns a `Content` without metadata, which other readers would take for an array."""
    members = {info.filename.removesuffix(".npy"): _Member(archive, info) for info in archive.infolist()}
    read = _checked_read(path, lambda key: members[key].read(buffer))
    return Content("npz", {key: member.shape for key, member in members.items()}, read)
