"""Pickles as data: nothing in a file runs, and what is no tensor does not stand in the way of one."""

import contextlib
import os
import pathlib
import pickle
import struct
import sys
import threading
import zipfile

import numpy as np
import pytest
import torch_pickles

from keras_vit.weights.files import pickles
from keras_vit.weights.files.checkpoint import open_checkpoint


class _Calls:
    """Pickled as the call of a function."""

    def __init__(self, function, *arguments, state=None):
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.parts


def _written(folder):
    """Pickles that would each write a file into a folder if anything of them ran, by name."""
    mark, code = folder / "ran", f"open({str(folder / 'ran')!r}, 'w')"

    def text(lines):
        return lines.encode() + b"."

    nested = f"c__builtin__\ngetattr\n(c__builtin__\n__import__\n(S'os'\ntRS'system'\ntR(S'touch {mark}'\ntR"
    return {
        "os.system": pickle.dumps(_Calls(os.system, f"touch {mark}"), 2),
        "posix.system, old names": text(f"cposix\nsystem\n(S'touch {mark}'\ntR"),
        "builtins.eval": pickle.dumps(_Calls(eval, code), 2),
        "builtins.exec": pickle.dumps(_Calls(exec, code), 4),
        "nested getattr": text(nested),
        "dotted name": b"\x80\x04\x8c\x02os\x8c\x0apath.os.ab\x93.",
        "inside a dict": pickle.dumps({"model": {"a": _Calls(os.system, f"touch {mark}")}}, 2),
        "as a state": pickle.dumps(_Calls(threading.Thread, state={"_target": _Calls(eval, code)}), 2),
        "in a tensor": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + text(nested)[:-1] + b"K\x00))\x89Ntq\x00R.",
        "in a wrapped tensor": b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n(cposix\nsystem\nN(S'touch "
        + str(mark).encode()
        + b"'\ntNtR.",
        "obj": text(f"(cposix\nsystem\nS'touch {mark}'\no"),
        "inst": text(f"(S'touch {mark}'\niposix\nsystem\n"),
        "newobj": b"\x80\x02cposix\nsystem\n(S'touch " + str(mark).encode() + b"'\nt\x81.",
        "persistent id": b"\x80\x02(S'storage'\ncposix\nsystem\nS'0'\nS'cpu'\nK\x01tQ.",
        "state of a function": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}S'__code__'\nK\x01sb.",
        "state of a class": b"\x80\x02cargparse\nNamespace\n}S'name'\nK\x01sb.",
        "extension": b"\x80\x02\x82\x01.",
        "numpy": b"\x80\x02cnumpy.testing._private.utils\nrunstring\n(S'" + code.encode() + b"'\n}tR.",
    }


NAMES = sorted(_written(pathlib.Path("x")))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("write", [torch_pickles.save_pickle, lambda path, content: path.write_bytes(content)])
def test_nothing_in_a_file_runs(name, write, tmp_path):
    content = _written(tmp_path)[name]
    if content[:1] != b"\x80":
        content = b"\x80\x02" + content
    write(tmp_path / "x.pth", content)
    before, modules = pickles._FUNCTIONS.copy(), set(sys.modules)
    with contextlib.suppress(ValueError):
        assert dict(open_checkpoint(tmp_path / "x.pth")) == {}
    assert not (tmp_path / "ran").exists()
    assert before == pickles._FUNCTIONS
    assert pickles._rebuild_tensor.__code__.co_name == "_rebuild_tensor"
    assert {name for name in set(sys.modules) - modules if not name.startswith("encodings")} == set()


def test_the_same_pickles_do_run_where_they_are_unpickled(tmp_path):
    pickle.loads(_written(tmp_path)["builtins.exec"])
    assert (tmp_path / "ran").exists()


def test_hostile_objects_beside_weights_do_not_keep_them_from_being_read(tmp_path):
    array, mark = np.arange(6, dtype="float32").reshape(2, 3), tmp_path / "ran"
    tree = {"a": array, "b": _Calls(os.system, f"touch {mark}"), "c": _Calls(eval, f"open({str(mark)!r}, 'w')")}
    for save in (torch_pickles.save, torch_pickles.save_legacy):
        save(tmp_path / "x", tree)
        checkpoint = open_checkpoint(tmp_path / "x")
        assert list(checkpoint) == ["a"]
        np.testing.assert_array_equal(checkpoint["a"], array)
    assert not mark.exists()


def _tensor(shape, strides, offset=0, count=6):
    """The pickle of one tensor in a storage of six numbers."""

    def ints(values):
        return b"(" + b"".join(b"J" + struct.pack("<i", value) for value in values) + b"t"

    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
    storage += b"J" + struct.pack("<i", count) + b"tQ"
    parts = storage + b"J" + struct.pack("<i", offset) + ints(shape) + ints(strides) + b"\x89}"
    return b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n(" + parts + b"tRs."


def _open_tensor(path, *arguments, **keywords):
    torch_pickles.save(path, {"x": np.arange(6, dtype="float32")})
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    content["archive/data.pkl"] = _tensor(*arguments, **keywords)
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in content.items():
            archive.writestr(name, value)
    return open_checkpoint(path)


def test_strides_and_offsets_are_read_and_stay_inside_the_storage(tmp_path):
    path = tmp_path / "x"
    numbers = np.arange(6, dtype="float32")
    np.testing.assert_array_equal(_open_tensor(path, (2, 3), (3, 1))["a"], numbers.reshape(2, 3))
    np.testing.assert_array_equal(_open_tensor(path, (3, 2), (1, 3))["a"], numbers.reshape(2, 3).T)
    np.testing.assert_array_equal(_open_tensor(path, (2, 2), (2, 1), offset=2)["a"], [[2, 3], [4, 5]])
    np.testing.assert_array_equal(_open_tensor(path, (), (), offset=5)["a"], 5)
    np.testing.assert_array_equal(_open_tensor(path, (2, 3), (0, 1))["a"], [[0, 1, 2]] * 2)
    assert _open_tensor(path, (0, 3), (3, 1))["a"].shape == (0, 3)
    for arguments, offset in (
        (((2, 4), (3, 1)), 0),
        (((6,), (1,)), 1),
        (((2, 3), (-3, 1)), 3),
        (((2,), (1,)), -1),
        (((2, 3), (1,)), 0),
        (((7,), (1,)), 0),
        (((2,), (2**30,)), 0),
    ):
        with pytest.raises(ValueError, match="a checkpoint must be readable"):
            _open_tensor(path, *arguments, offset=offset)


def test_a_pickle_does_not_fill_the_memory_with_numbers_of_objects(tmp_path):
    (tmp_path / "x").write_bytes(b"\x80\x02}r\xff\xff\xff\x7f.")
    with pytest.raises(ValueError, match=r"objects of a pickle are numbered in order. Received: number 2147483647"):
        open_checkpoint(tmp_path / "x")


def test_containers_that_hold_themselves_end(tmp_path):
    loop = {"a": np.ones(2, "float32")}
    loop["self"] = loop
    loop["deep"] = [loop, [[loop]]]
    torch_pickles.save(tmp_path / "x", loop)
    assert list(open_checkpoint(tmp_path / "x")) == ["a"]


@pytest.mark.parametrize("protocol", range(2, 6))
def test_pickles_of_arrays_are_read(protocol, tmp_path):
    arrays = {"a": np.arange(6.0).reshape(2, 3), "b": np.asfortranarray(np.ones((2, 3), "float16"))}
    arrays |= {"c": np.arange(3, dtype=">f4"), "d": np.array(2, "float32"), "e": np.zeros((0, 2))}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"model": arrays, "names": np.array([None])}, protocol))
    checkpoint = open_checkpoint(tmp_path / "x.pkl")
    for key, array in arrays.items():
        np.testing.assert_array_equal(checkpoint[f"model.{key}"], array)
        assert checkpoint.shapes[f"model.{key}"] == array.shape
    assert len(checkpoint) == len(arrays)


_NESTED = {
    "key of a dict": b"\x80\x02})" + b"\x85" * 300_000 + b"K\x01s.",
    "memoized": b"\x80\x02}" + b")q\x00" + b"h\x00\x85q\x00" * 30_000 + b"K\x01s.",
    "marked": b"\x80\x02}" + b"(" * 30_000 + b"t" * 30_000 + b"K\x01s.",
    "frozen sets": b"\x80\x04}" + b"(" * 30_000 + b"\x91" * 30_000 + b"K\x01s.",
    "arguments": b"\x80\x02ccollections\nOrderedDict\n)" + b"\x85" * 300_000 + b"R.",
    "lists": b"\x80\x02" + b"]" * 5000 + b"a" * 4999 + b".",
    "dicts": b"\x80\x02}" + b"X\x01\x00\x00\x00a}" * 5000 + b"s" * 5000 + b".",
}


@pytest.mark.parametrize("name", _NESTED)
def test_deep_nesting_is_refused_before_it_exhausts_stack_or_memory(name, tmp_path):
    (tmp_path / "x.pth").write_bytes(_NESTED[name])
    with pytest.raises(ValueError, match=r"nested at most 200 deep|at most 1000 characters"):
        open_checkpoint(tmp_path / "x.pth")


def test_nesting_of_ordinary_files_is_read(tmp_path):
    tree, key = {"weight": np.ones(2, "float32")}, ((1, 2), "a", frozenset({3}))
    for number in range(40):
        tree = {f"block_{number}": tree, "settings": {key: [number, (number, (number,))]}}
    torch_pickles.save(tmp_path / "x.pth", tree)
    (found,) = open_checkpoint(tmp_path / "x.pth")
    assert found.endswith("block_0.weight")
    # Counted for each object: many tuples beside one another, and a list that grows, are no nesting.
    torch_pickles.save(tmp_path / "y.pth", {"w": np.ones(2, "float32"), "order": [(n, (n,)) for n in range(5000)]})
    assert list(open_checkpoint(tmp_path / "y.pth")) == ["w"]
