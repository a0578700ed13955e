"""Checksums in the `.safetensors` files that keras_vit writes, which detect damaged files.

They are stored in the file's metadata, which other readers ignore, eight hexadecimal digits each: that of the header,
then those of the arrays in the order of their sorted keys. The first is a plain CRC-32. Those of the arrays are
CRC-32 of folded bytes, see `folded_crc32`, which runs at the speed of memory; older files hold plain CRC-32 under
other names and are checked by it. An `.npz` file is a zip archive, which has checksums of its own.
"""

import dataclasses
import json
import mmap
import struct
import typing
import zlib

import numpy as np

_METADATA = "__metadata__"
# Bytes in a row, and rows that are folded into one. A row is a prime number of words of 8 bytes, so that swapped disk
# blocks or memory pages do not fall on the same columns.
_ROW, _ROWS = 8 * 509, 64
_WORDS = ("u8", "u4", "u2", "u1")


def folded_crc32(data):
    """Computes the CRC-32 of bytes whose rows are combined first: 64 rows of 4072 bytes each by exclusive or.

    Combining runs at the speed of memory, many times faster than CRC-32 itself, which is left with a 64th of the bytes.
    Every single flipped bit changes the result; other damage goes undetected with a probability of about 1 in 2**32,
    unless it repeats at distances of exactly one row.

    Args:
        data: buffer of bytes.

    Returns:
        int of 32 bits.
    """
    with memoryview(data).cast("B") as view:
        end = len(view) - len(view) % _ROW
        result = 0
        if end:
            # The result does not depend on the word size; unaligned words are slow.
            words = next(w for w in (np.frombuffer(view[:end], kind) for kind in _WORDS) if w.flags.aligned)
            rows = words.reshape(-1, _ROW // words.itemsize)
            whole = len(rows) - len(rows) % _ROWS
            blocks = rows[:whole].reshape(-1, _ROWS, rows.shape[1])
            result = zlib.crc32(np.bitwise_xor.reduce(blocks, axis=1), result)
            if whole < len(rows):
                result = zlib.crc32(np.bitwise_xor.reduce(rows[whole:], axis=0), result)
        return zlib.crc32(view[end:], result)


@dataclasses.dataclass(frozen=True)
class _Scheme:
    """Kind of the checksums in a file, and the names of their metadata.

    Args:
        key: str. Name of the metadata that hold the digits.
        mark: str. Name of the metadata that hold `key`: a file with one damaged name is not mistaken for one without
            checksums.
        checksum: callable from the bytes of an array to int.
    """

    key: str
    mark: str
    checksum: typing.Callable


_FOLDED = _Scheme("keras_vit_folded_crc32", "keras_vit_checksums", folded_crc32)
_PLAIN = _Scheme("keras_vit_crc32", "keras_vit_checked", zlib.crc32)  # of older files


@dataclasses.dataclass(frozen=True)
class Checksum:
    """Checksum of an array, as stored in a file.

    Args:
        value: int.
        function: callable from bytes to int.
    """

    value: int
    function: typing.Callable

    def matches(self, data):
        """Returns whether bytes are unchanged."""
        return self.function(data) == self.value


def reserve_checksums(count):
    """Returns placeholders for the checksums as metadata, a dict of str to str.

    Args:
        count: int. How many arrays the file has.
    """
    return {_FOLDED.key: "0" * 8 * (count + 1), _FOLDED.mark: _FOLDED.key}


def write_checksums(path):
    """Writes checksums over their placeholders.

    Args:
        path: of a safetensors file written with the metadata of `reserve_checksums`.
    """
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as buffer:
        (length,) = struct.unpack_from("<Q", buffer)
        header = json.loads(buffer[8 : 8 + length])
        keys = sorted(set(header) - {_METADATA})
        with memoryview(buffer)[8 + length :] as data:
            values = [_FOLDED.checksum(data[slice(*header[key]["data_offsets"])]) for key in keys]
        values.insert(0, _header_checksum(header, values, _FOLDED))
        start = buffer.find(header[_METADATA][_FOLDED.key].encode(), 8, 8 + length)
        digits = "".join(f"{number:08x}" for number in values).encode()
        buffer[start : start + len(digits)] = digits


def read_checksums(header):
    """Reads the `Checksum` of every array by key; an empty dict for a file without checksums.

    Args:
        header: dict, the header of a safetensors file.

    Raises:
        ValueError: if the header is damaged.
    """
    metadata, keys = header.get(_METADATA, {}), sorted(set(header) - {_METADATA})
    schemes = [scheme for scheme in (_FOLDED, _PLAIN) if {scheme.key, scheme.mark} & set(metadata)]
    if not schemes:
        return {}
    scheme = schemes[0]
    digits = metadata.get(scheme.key, "")
    if len(schemes) > 1 or metadata.get(scheme.mark) != scheme.key or len(digits) != 8 * (len(keys) + 1):
        raise ValueError("bad checksums of the header")
    values = [int(digits[start : start + 8], 16) for start in range(0, len(digits), 8)]
    if values[0] != _header_checksum(header, values[1:], scheme):
        raise ValueError("bad checksum of the header")
    return {key: Checksum(value, scheme.checksum) for key, value in zip(keys, values[1:], strict=True)}


def _header_checksum(header, arrays, scheme):
    metadata = {key: value for key, value in header[_METADATA].items() if key != scheme.key}
    return zlib.crc32(json.dumps([{**header, _METADATA: metadata}, arrays], sort_keys=True).encode())
