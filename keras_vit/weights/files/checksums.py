"""Checksums in the `.safetensors` files that keras_vit writes, by which flipped bits are noticed.

CRC-32 of the header and of every array, as zip archives have it; an `.npz` file is such an archive and needs no more.
They stand in the file's metadata, which other readers pass over, eight hexadecimal digits each: that of the header,
then those of the arrays in the order of their sorted keys.
"""

import json
import mmap
import struct
import zlib

# Two entries, so that damage to the name of one of them does not make a file pass for one without checksums.
_KEY, _MARK = "keras_vit_crc32", "keras_vit_checked"
_METADATA = "__metadata__"


def reserve_checksums(count):
    """Metadata that keeps the place of checksums, as a dict of str to str.

    Args:
        count: int. How many arrays the file has.
    """
    return {_KEY: "0" * 8 * (count + 1), _MARK: _KEY}


def write_checksums(path):
    """Puts checksums in the place that was kept for them.

    Args:
        path: of a safetensors file that was written with the metadata of `reserve_checksums`.
    """
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as buffer:
        (length,) = struct.unpack_from("<Q", buffer)
        header = json.loads(buffer[8 : 8 + length])
        keys = sorted(set(header) - {_METADATA})
        with memoryview(buffer)[8 + length :] as data:
            found = [zlib.crc32(data[slice(*header[key]["data_offsets"])]) for key in keys]
        found.insert(0, _header_checksum(header, found))
        place = buffer.find(header[_METADATA][_KEY].encode(), 8, 8 + length)
        digits = "".join(f"{number:08x}" for number in found).encode()
        buffer[place : place + len(digits)] = digits


def read_checksums(header):
    """The checksum of every array by key; an empty dict where the file carries none.

    Args:
        header: dict, the header of a safetensors file.

    Raises:
        ValueError: if the header is not what was written.
    """
    metadata, keys = header.get(_METADATA, {}), sorted(set(header) - {_METADATA})
    if _KEY not in metadata and _MARK not in metadata:
        return {}
    digits = metadata.get(_KEY, "")
    if metadata.get(_MARK) != _KEY or len(digits) != 8 * (len(keys) + 1):
        raise ValueError("bad checksums of the header")
    found = [int(digits[start : start + 8], 16) for start in range(0, len(digits), 8)]
    if found[0] != _header_checksum(header, found[1:]):
        raise ValueError("bad checksum of the header")
    return dict(zip(keys, found[1:], strict=True))


def _header_checksum(header, arrays):
    metadata = {key: value for key, value in header[_METADATA].items() if key != _KEY}
    return zlib.crc32(json.dumps([{**header, _METADATA: metadata}, arrays], sort_keys=True).encode())
