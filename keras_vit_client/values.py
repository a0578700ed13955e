"""Values sent to a server and received from it: errors, states, signatures, arrays."""

import os
from typing import NamedTuple

import numpy as np


class ServerError(RuntimeError):
    """Error that a server returned instead of a result.

    Attributes:
        code: str, the name of the gRPC status: `INVALID_ARGUMENT`, `NOT_FOUND`, `UNAVAILABLE`, `DEADLINE_EXCEEDED`,
            ...; `HTTP <number>` for an HTTP status without one.
        message: str, the server's own words.
        asked: str, the request.
    """

    def __init__(self, code, message, asked):
        super().__init__(f"{asked}: {code}: {message}")
        self.code, self.message, self.asked = code, message, asked

    def __reduce__(self):
        # Errors cross processes by pickle, which would call the class with the text alone.
        return type(self), (self.code, self.message, self.asked)


class VersionStatus(NamedTuple):
    """One version of the model: its number, `START`, `LOADING`, `AVAILABLE`, `UNLOADING` or `END`, and its error."""

    version: int
    state: str
    error: str


class Signature(NamedTuple):
    """Names of a signature's inputs and outputs to their NumPy types; strings have the type `object`."""

    inputs: dict
    outputs: dict


_RULE = "a string input must be a list of bytes or str"


def column(value, dtype, name):
    """An input in the signature's type: a list for strings, else an array."""
    if dtype is object:
        # An array of NumPy's own bytes has lost trailing zeros, which encoded images may end with.
        if isinstance(value, str | bytes | os.PathLike) or (isinstance(value, np.ndarray) and value.dtype.kind == "S"):
            raise ValueError(f"{_RULE}. Received: {name} of {type(value)}")
        return _strings(value, name)
    array = np.asarray(value)
    if array.ndim == 0:
        raise ValueError(f"an input must have a leading dimension. Received: {name}={value!r}")
    if array.dtype.kind not in "biuf":
        raise ValueError(f"input {name!r} must hold numbers. Received: dtype {array.dtype}")
    if not np.isfinite(array).all():
        raise ValueError(f"inputs must be finite. Received: {name} with NaN or infinity")
    cast = array.astype(dtype)
    if not np.can_cast(array.dtype, dtype, "same_kind") and not np.array_equal(cast, array):
        raise ValueError(f"input {name!r} must hold values of {np.dtype(dtype)}. Received: dtype {array.dtype}")
    return cast


def _strings(values, name):
    """The items as `str` and `bytes`, in lists that may be nested; a `ValueError` where one is something else."""
    values = values.tolist() if isinstance(values, np.ndarray) else list(values)
    for row, item in enumerate(values):
        if isinstance(item, bytearray | memoryview):
            values[row] = bytes(item)
        elif isinstance(item, list | tuple | np.ndarray):
            values[row] = _strings(item, f"{name}[{row}]")
        elif not isinstance(item, str | bytes):
            hint = "; classify takes paths" if isinstance(item, os.PathLike) else ""
            raise ValueError(f"{_RULE}. Received: {name}[{row}] of {type(item)}{hint}")
    return values
