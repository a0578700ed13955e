"""Files as PyTorch writes them, made without PyTorch: for tests of what training programs leave."""

import collections
import io
import pickle
import struct
import sys
import types
import zipfile

import numpy as np

_STORAGES = {"float32": "FloatStorage", "float16": "HalfStorage", "float64": "DoubleStorage", "int64": "LongStorage"}
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


class Unknown:
    """An object of a class that only the training program has."""

    def __init__(self, **attributes):
        self.__dict__ |= attributes


class _Storage:
    def __init__(self, array):
        self.array = array


class _Pickler(pickle.Pickler):
    def __init__(self, file, names):
        super().__init__(file, protocol=2)
        self.names, self.storages = names, {}

    def reducer_override(self, obj):
        if isinstance(obj, np.ndarray) and obj.dtype.name in _STORAGES:
            array = np.asarray(obj, order="C")
            strides = tuple(stride // array.itemsize for stride in array.strides)
            arguments = (_Storage(array), 0, array.shape, strides, False, collections.OrderedDict())
            return self.names["_rebuild_tensor_v2"], arguments
        return NotImplemented

    def persistent_id(self, obj):
        if not isinstance(obj, _Storage):
            return None
        key = str(len(self.storages))
        self.storages[key] = obj.array
        return "storage", self.names[_STORAGES[obj.array.dtype.name]], key, "cpu", obj.array.size


def _pickled(tree):
    """The pickle of a tree, and the arrays of its storages by key."""

    def _rebuild_tensor_v2(*arguments):
        raise AssertionError("this is never called")

    modules = {"torch": types.ModuleType("torch"), "torch._utils": types.ModuleType("torch._utils")}
    names = {name: type(name, (), {"__module__": "torch"}) for name in _STORAGES.values()}
    names["_rebuild_tensor_v2"] = _rebuild_tensor_v2
    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    for name, value in names.items():
        setattr(modules[value.__module__], name, value)
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        file = io.BytesIO()
        pickler = _Pickler(file, names)
        pickler.dump(tree)
    finally:
        for name, module in before.items():
            sys.modules.pop(name)
            if module is not None:
                sys.modules[name] = module
    return file.getvalue(), pickler.storages


def save(path, tree):
    """Writes nested containers of NumPy arrays as `torch.save` writes those of tensors."""
    content, storages = _pickled(tree)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/byteorder", "little")
        for key, array in storages.items():
            archive.writestr(f"archive/data/{key}", array.tobytes())
        archive.writestr("archive/version", "3\n")


def save_legacy(path, tree):
    """Writes them as PyTorch did before version 1.6."""
    content, storages = _pickled(tree)
    system = {"protocol_version": _PROTOCOL, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    head = [pickle.dumps(part, protocol=2) for part in (_MAGIC, _PROTOCOL, system)]
    tail = [pickle.dumps(list(storages), protocol=2)]
    tail += [struct.pack("<q", array.size) + array.tobytes() for array in storages.values()]
    path.write_bytes(b"".join([*head, content, *tail]))


def save_pickle(path, content):
    """Writes a pickle, as bytes, into the place of that of a file of PyTorch."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
