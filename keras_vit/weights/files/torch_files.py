"""Reads PyTorch's files without PyTorch: archives as written since version 1.6, the older files, and plain pickles.

Source: PyTorch `torch/serialization.py`, `torch/_utils.py`.
"""

import io
import struct
import zipfile
import zlib

from keras_vit.weights.files.pickles import BROKEN_PICKLE, Reader, Storage, check_structure, flatten, storage_dtype
from keras_vit.weights.files.training_files import stated_architecture

_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of a file from before version 1.6
_PROTOCOL = 1001
# A zip archive repeats a member's name in front of its data; the lengths of name and extra field stand at 26.
_LOCAL_HEADER, _LENGTHS_AT, _SIGNATURE = 30, 26, b"PK\x03\x04"


def is_torch_archive(names):
    """Returns whether a zip archive with these members is a file of PyTorch."""
    return any(name == "data.pkl" or name.endswith("/data.pkl") for name in names)


def open_torch_archive(archive, buffer):
    """Reads the arrays of a zip archive of PyTorch.

    Args:
        archive: `zipfile.ZipFile`.
        buffer: the whole file.

    Returns:
        The results of `flatten` and `stated_architecture`.

    Raises:
        ValueError: if it is damaged, or holds other objects than plain data.
    """
    pickled = next(name for name in archive.namelist() if name.split("/")[-1] == "data.pkl")
    root = pickled.removesuffix("data.pkl")
    names = set(archive.namelist())
    if f"{root}constants.pkl" in names and any(name.startswith(f"{root}code/") for name in names):
        raise ValueError("a TorchScript program must be saved as a state dict: torch.save(model.state_dict(), path)")
    order = archive.read(f"{root}byteorder") if f"{root}byteorder" in names else b"little"
    readers = {}

    def find_storage(parts):
        _, kind, key, *_ = parts
        member = archive.getinfo(f"{root}data/{key}")
        read = readers.setdefault(key, _member_reader(archive, member, buffer))
        return Storage(_ordered(storage_dtype(kind), order == b"big"), member.file_size, read)

    tree = _load(io.BytesIO(archive.read(pickled)), find_storage)
    return *flatten(tree), stated_architecture(tree)


def _member_reader(archive, member, buffer):
    """Returns a callable that reads the bytes of a member; the first call checks them."""
    checked = []

    def read():
        if not checked:
            stored = member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & 1
            checked.append(map_member(member, buffer) if stored else archive.read(member))
        return checked[0]

    return read


def map_member(member, buffer):
    """Returns the bytes of an uncompressed member as a view of the file.

    Raises:
        zipfile.BadZipFile: if they are damaged.
    """
    start = member.header_offset
    if buffer[start : start + 4] != _SIGNATURE:
        raise zipfile.BadZipFile(f"bad header of {member.filename!r}")
    start += _LOCAL_HEADER + sum(struct.unpack_from("<HH", buffer, start + _LENGTHS_AT))
    data = memoryview(buffer)[start : start + member.file_size]
    if zlib.crc32(data) != member.CRC:
        raise zipfile.BadZipFile(f"bad checksum of {member.filename!r}")
    return data


def open_torch_stream(buffer):
    """Reads the arrays of a file of PyTorch from before version 1.6, or of a pickle of NumPy arrays.

    Args:
        buffer: the whole file.

    Returns:
        As `open_torch_archive`.

    Raises:
        ValueError: as `open_torch_archive`.
    """
    tree = _load_stream(buffer)
    return *flatten(tree), stated_architecture(tree)


def _ordered(dtype, big):
    return dtype.newbyteorder(">") if big else dtype


def _load(file, find_storage=None):
    """Loads the next pickle of a file."""
    try:
        check_structure(file)
        # A tensor that was pickled without `torch.save` holds a file of its own.
        return Reader(file, find_storage, _load_stream).load()
    except BROKEN_PICKLE as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _load_stream(buffer):
    file = io.BytesIO(buffer) if isinstance(buffer, bytes) else buffer
    first = _load(file)
    if type(first) is not int or first != _MAGIC:
        return first
    if _load(file) != _PROTOCOL:
        raise ValueError("a file of PyTorch must have protocol 1001")
    system = _load(file)
    big = isinstance(system, dict) and not system.get("little_endian", True)
    storages, counts, content = {}, {}, {}

    def find_storage(parts):
        if parts[0] == "module":  # the class of a whole model, with its source text
            return parts[1]
        _, kind, key, _, count, *view = parts
        if key not in storages:
            dtype = _ordered(storage_dtype(kind), big)
            if type(count) is not int or count < 0:
                raise ValueError(f"a storage has a size. Received: {count!r}")
            counts[key] = count
            storages[key] = Storage(dtype, count * dtype.itemsize, lambda: content[key])
        if view and view[0] is not None:
            _, offset, size = view[0]
            return storages[key].view(offset, size)
        return storages[key]

    tree = _load(file, find_storage)
    keys, view_of_file, position = _load(file), memoryview(buffer), file.tell()
    if not isinstance(keys, list) or set(keys) != set(storages):
        raise ValueError("the file must hold the storages that its tensors lie in")
    for key in keys:
        (count,) = struct.unpack_from((">" if big else "<") + "q", view_of_file, position)
        start, size = position + 8, storages[key].size
        if count != counts[key] or start + size > len(view_of_file):
            raise ValueError(f"a storage must have the size that its tensors were written with. Received: {key!r}")
        content[key] = view_of_file[start : start + size]
        position = start + size
    return tree
