"""Reads pickles as plain data: tensors become NumPy arrays, every other class an inert stand-in.

A pickle is a program that may call anything. Here it can call nothing: a name in the file is never imported, it is
looked up in a table of a few constructors of plain data, and whatever the table lacks becomes a class without behavior
that keeps what it is given. So files that hold `argparse.Namespace`, NumPy scalars or the settings of a trainer beside
the weights are read, and a hostile file gets nothing done.
"""

import collections
import math
import pickle
import pickletools

import ml_dtypes
import numpy as np

# Element types of PyTorch, by the name of the dtype and by that of the storage's class.
DTYPES = {
    "float64": "<f8",
    "float32": "<f4",
    "float16": "<f2",
    "bfloat16": ml_dtypes.bfloat16,
    "int64": "<i8",
    "int32": "<i4",
    "int16": "<i2",
    "int8": "i1",
    "uint8": "u1",
    "uint16": "<u2",
    "uint32": "<u4",
    "uint64": "<u8",
    "bool": "?",
    "complex64": "<c8",
    "complex128": "<c16",
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "float8_e5m2": ml_dtypes.float8_e5m2,
}
_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
    "QInt8Storage": "int8",
    "QInt32Storage": "int32",
    **dict.fromkeys(("QUInt8Storage", "QUInt4x2Storage", "QUInt2x4Storage"), "uint8"),
}
# What a damaged or hostile pickle may raise in the machine that runs it.
BROKEN_PICKLE = (
    *(pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError),
    *(OverflowError, MemoryError, RecursionError, ImportError),
)


class StandIn:
    """Keeps what a pickle gives to an object of an unknown class, and does nothing with it.

    Attributes:
        content: list of what the object was made of, in order: arguments, state, items.
    """

    name = "an unknown class"

    def __new__(cls, *arguments, **keywords):
        self = super().__new__(cls)
        self.content = [*arguments, keywords] if keywords else list(arguments)
        return self

    def __init__(self, *arguments, **keywords):
        pass

    def __setstate__(self, state):
        self.content.append(state)

    def __setitem__(self, key, value):
        self.content.append({key: value} if isinstance(key, str) else value)

    def append(self, item):
        """Takes an item of a list."""
        self.content.append(item)

    def extend(self, items):
        """Takes items of a list."""
        self.content.extend(items)

    def add(self, item):
        """Takes an item of a set."""
        self.content.append(item)

    def __call__(self, *arguments, **keywords):
        return StandIn(*arguments, **keywords)


class Refused:
    """A tensor that no array can stand for.

    Args:
        kind: str. What it is.
    """

    def __init__(self, kind):
        self.kind = kind


class Tensor:
    """An array in a storage, read when it is asked for.

    Args:
        storage: `Storage`.
        offset: int, in elements.
        shape, strides: sequences of ints; strides in elements.
        dtype: NumPy dtype, or `None`: the storage's.

    Raises:
        ValueError: if the array reaches beyond its storage.
    """

    def __init__(self, storage, offset, shape, strides, dtype=None):
        self.shape, self.storage = tuple(shape), storage
        self.dtype = storage.dtype if dtype is None else np.dtype(dtype)
        numbers = (offset, *self.shape, *strides)
        if len(strides) != len(self.shape) or any(type(n) is not int or n < 0 for n in numbers):
            raise ValueError(f"a tensor has a shape and strides. Received: {self.shape}, {strides}, offset={offset!r}")
        self.start = offset * self.dtype.itemsize
        self.strides = tuple(stride * self.dtype.itemsize for stride in strides)
        reach = sum((side - 1) * stride for side, stride in zip(self.shape, self.strides, strict=True))
        if math.prod(self.shape) and self.start + reach + self.dtype.itemsize > storage.size:
            raise ValueError(f"a tensor must lie in its storage of {storage.size} bytes. Received: {self.shape}")

    def read(self):
        """The array, a view of the file where the file is mapped."""
        if not math.prod(self.shape):
            return np.zeros(self.shape, self.dtype)
        return np.ndarray(self.shape, self.dtype, self.storage.read(), self.start, self.strides)


class Storage:
    """The bytes that tensors lie in.

    Args:
        dtype: NumPy dtype of its elements.
        size: int, in bytes.
        read: callable that gives the buffer.
    """

    def __init__(self, dtype, size, read):
        self.dtype, self.size, self.read = np.dtype(dtype), size, read

    def view(self, offset, count):
        """The storage of `count` elements from `offset` on, which shares the bytes."""
        start, size = offset * self.dtype.itemsize, count * self.dtype.itemsize
        if type(offset) is not int or type(count) is not int or offset < 0 or count < 0 or start + size > self.size:
            raise ValueError(f"a view must lie in its storage. Received: offset={offset!r}, count={count!r}")
        return Storage(self.dtype, size, lambda: memoryview(self.read())[start : start + size])


class _Constructor:
    """A function that a pickle may call, and nothing but call."""

    __slots__ = ("_function",)

    def __init__(self, function):
        self._function = function

    def __call__(self, *arguments):
        return self._function(*arguments)

    def __setstate__(self, state):
        raise pickle.UnpicklingError("a function has no state")


class _Dtype:
    """A dtype as NumPy pickles it: its letters, then the order of its bytes as state."""

    def __init__(self, letters, *_):
        self.dtype = np.dtype(letters.decode("latin-1") if isinstance(letters, bytes) else letters)

    def __setstate__(self, state):
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """An array as NumPy pickles it: empty, then all of it as state."""

    array = None

    def __init__(self, *_):
        pass

    def __setstate__(self, state):
        _, shape, dtype, fortran, content = state
        self.fill(content, dtype, shape, "F" if fortran else "C")

    def fill(self, content, dtype, shape, order):
        """Takes the bytes; an array of objects stays without."""
        # Pickles of Python 2 hold bytes as text.
        content = content.encode("latin-1") if isinstance(content, str) else content
        if isinstance(dtype, _Dtype) and not dtype.dtype.hasobject and dtype.dtype.names is None:
            self.array = np.frombuffer(content, dtype.dtype).reshape(shape, order=order)

    @property
    def shape(self):
        """The shape."""
        return self.array.shape

    def read(self):
        """The array."""
        return self.array


def _array_from_buffer(content, dtype, shape, order):
    array = _Array()
    array.fill(content, dtype, shape, order)
    return array


class _Dict(dict):
    """A dict of whatever class, whose attributes are left out."""

    def __setstate__(self, state):
        pass


def _default_dict(factory=None, items=()):
    return _Dict(items)


def _rebuild_tensor(storage, offset, shape, strides, requires_grad=False, hooks=None, marks=None):
    if isinstance(marks, dict) and any(marks.get(name) for name in ("neg", "conj")):
        return Refused("a tensor whose values are to be negated or conjugated")
    return Tensor(storage, offset, shape, strides)


def _rebuild_with_dtype(storage, offset, shape, strides, requires_grad, hooks, dtype, *_):
    return Tensor(storage, offset, shape, strides, dtype.dtype)


def _rebuild_parameter(tensor, *_):
    return tensor


def _rebuild_from_type(function, kind, arguments, state=None):
    return function(*arguments) if isinstance(function, _Constructor) else StandIn(arguments, state)


class _TorchDtype:
    """A dtype of PyTorch."""

    def __init__(self, name):
        self.dtype = np.dtype(DTYPES[name])


def _encode(text, encoding="latin-1", *_):
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"bytes are pickled as latin-1, not as {encoding!r}")
    return text.encode("latin-1")


def _bytes(*arguments):
    # Before protocol 3 this is how no bytes at all are pickled.
    if arguments:
        raise pickle.UnpicklingError("bytes are pickled as text")
    return b""


def _refuse(kind):
    return lambda *arguments: Refused(kind)


_TORCH = {
    "_rebuild_tensor": _rebuild_tensor,
    "_rebuild_tensor_v2": _rebuild_tensor,
    "_rebuild_tensor_v3": _rebuild_with_dtype,
    "_rebuild_parameter": _rebuild_parameter,
    "_rebuild_parameter_with_state": _rebuild_parameter,
    "_rebuild_device_tensor_from_numpy": _rebuild_parameter,
    "_rebuild_device_tensor_from_cpu_tensor": _rebuild_parameter,
    "_rebuild_qtensor": _refuse("a quantized tensor"),
    "_rebuild_sparse_tensor": _refuse("a sparse tensor"),
    "_rebuild_sparse_csr_tensor": _refuse("a sparse tensor"),
    "_rebuild_nested_tensor": _refuse("a nested tensor"),
    "_rebuild_meta_tensor_no_storage": _refuse("a tensor without values"),
    "_rebuild_wrapper_subclass": _refuse("a tensor of a class of its own"),
}
_FUNCTIONS = {
    ("collections", "OrderedDict"): _Dict,
    ("collections", "Counter"): _Dict,
    ("collections", "defaultdict"): _default_dict,
    ("builtins", "dict"): _Dict,
    ("__builtin__", "dict"): _Dict,
    ("builtins", "bytes"): _bytes,
    ("__builtin__", "bytes"): _bytes,
    ("_codecs", "encode"): _encode,
    ("torch._tensor", "_rebuild_from_type_v2"): _rebuild_from_type,
    ("torch._tensor", "_rebuild_from_type"): _rebuild_from_type,
    **{("torch._utils", name): function for name, function in _TORCH.items()},
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Array for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _array_from_buffer for core in ("core", "_core")},
    ("numpy", "dtype"): _Dtype,
}


# Tuples in tuples: hashing such a key takes C stack for each. What PyTorch writes has a handful.
_DEEPEST = 200
_TUPLES = ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET")
_ADDS = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD")
_MARK = -1


def check_structure(file):
    """Raises a `ValueError` for a pickle that exhausts the memory or the stack of whoever runs it.

    That are numbers of objects beyond the pickle's own length, and tuples nested deeper than `_DEEPEST`.

    Args:
        file: of bytes; its position stays.
    """
    start, highest, stack, memo = file.tell(), 0, [], {}
    for opcode, argument, position in pickletools.genops(file):
        if opcode.name in ("PUT", "LONG_BINPUT"):
            highest = max(highest, argument)
        if opcode.name == "STOP" and highest > position + 1:
            raise ValueError(f"objects of a pickle are numbered in order. Received: number {highest}")
        if _follow(opcode, argument, stack, memo) > _DEEPEST:
            raise ValueError(f"tuples of a pickle are nested at most {_DEEPEST} deep. Received: more")
    file.seek(start)


def _follow(opcode, argument, stack, memo):
    """Applies one opcode to a stack that holds, instead of objects, how deeply tuples are nested in them.

    Returns:
        int. The depth of what is now on top.
    """
    name, before, after = opcode.name, opcode.stack_before, opcode.stack_after
    if name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
        memo[len(memo) if argument is None else argument] = stack[-1] if stack else 0
        return 0
    if name in ("GET", "BINGET", "LONG_BINGET"):
        stack.append(memo.get(argument, 0))
        return stack[-1]
    taken = []
    if pickletools.markobject in before:
        while stack and (item := stack.pop()) != _MARK:
            taken.append(item)
        before = before[: before.index(pickletools.markobject)]
    for _ in before:
        taken.append(stack.pop() if stack else 0)
    if pickletools.markobject in after:
        stack.append(_MARK)
        return 0
    # The last one taken is what a list, a dict or an object was before it was added to.
    depth = taken[-1] if name in _ADDS and taken else max(taken, default=0) + (name in _TUPLES)
    stack.extend([depth] * len(after))
    return depth


class Reader(pickle.Unpickler):
    """Reads one pickle.

    Args:
        file: of bytes.
        find_storage: callable of the parts of a persistent id, which gives a `Storage`.
        load_bytes: callable that reads a pickle inside this one, or `None`.
    """

    def __init__(self, file, find_storage=None, load_bytes=None):
        super().__init__(file, encoding="latin-1")
        self._find_storage, self._load_bytes, self._classes = find_storage, load_bytes, {}

    def find_class(self, module, name):
        """Looks a name up; nothing is imported."""
        function = _FUNCTIONS.get((module, name))
        if (module, name) == ("torch.storage", "_load_from_bytes") and self._load_bytes is not None:
            function = self._load_bytes
        if function is not None:
            return _Constructor(function)
        if module == "torch" and name in DTYPES:
            return _TorchDtype(name)
        full = f"{module}.{name}"
        if full not in self._classes:
            # One class for this file alone, so that nothing of it outlives the file.
            self._classes[full] = type("StandIn", (StandIn,), {"name": full})
        return self._classes[full]

    def persistent_load(self, parts):
        """The storage that a tensor lies in."""
        if self._find_storage is None:
            raise pickle.UnpicklingError("this pickle holds no storages")
        return self._find_storage(parts)


def storage_dtype(kind):
    """The NumPy dtype of a storage's class, a `StandIn` class or a dtype of PyTorch.

    Raises:
        ValueError: if it is of no plain elements.
    """
    if isinstance(kind, _TorchDtype):
        return kind.dtype
    name = getattr(kind, "name", "").rpartition(".")[2]
    if name not in _STORAGES:
        raise ValueError(f"a storage must hold plain numbers. Received: {getattr(kind, 'name', kind)!r}")
    return np.dtype(DTYPES[_STORAGES[name]])


# Every container inside another one makes keys longer, which would take memory by the square of the nesting.
_LONGEST_KEY = 1000


def flatten(tree):
    """Arrays of nested containers by key: names joined by dots.

    Whole models that were pickled are containers too: what a stand-in holds counts as its own.

    Args:
        tree: what `Reader` gave.

    Returns:
        `(tensors, refused, containers)`: dicts from key to `Tensor` and to the kind of what cannot be read, and the set
        of prefixes that are containers of their own rather than parts of keys.

    Raises:
        ValueError: if containers are nested so deeply that a key would be longer than `_LONGEST_KEY`.
    """
    tensors, refused, containers, seen = {}, {}, set(), set()
    waiting = collections.deque([("", tree)])
    while waiting:
        prefix, item = waiting.popleft()
        if isinstance(item, Tensor) or (isinstance(item, _Array) and item.array is not None):
            tensors.setdefault(prefix.removesuffix("."), item)
        elif isinstance(item, Refused):
            refused[prefix.removesuffix(".")] = item.kind
        elif isinstance(item, dict | list | tuple | StandIn):
            if id(item) in seen:
                continue
            if len(prefix) > _LONGEST_KEY:
                raise ValueError(f"keys must have at most {_LONGEST_KEY} characters. Received: {prefix[:40]!r}...")
            seen.add(id(item))
            containers.add(prefix)
            waiting.extend(_children(prefix, item))
    return tensors, refused, containers


def _children(prefix, item):
    if isinstance(item, dict):
        return [(f"{prefix}{key}.", value) for key, value in item.items() if isinstance(key, str | int)]
    if isinstance(item, StandIn):
        # The state is not a name of its own.
        return [(prefix, value) for value in item.content]
    return [(f"{prefix}{number}.", value) for number, value in enumerate(item)]
