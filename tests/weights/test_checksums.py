"""Damage to files that keras_vit wrote is noticed: nothing is loaded that was not saved."""

import contextlib
import json
import struct
import zlib

import numpy as np
import pytest
import safetensors.numpy
import torch_pickles
from tiny import tiny_vit

import keras_vit
from keras_vit.weights import from_checkpoint, load_weights, save_weights
from keras_vit.weights.files import checksums
from keras_vit.weights.files.checkpoint import open_checkpoint, write_checkpoint


@pytest.fixture(scope="module")
def model():
    return tiny_vit(labels=["ant", "bee", "cat"])


@pytest.fixture(scope="module")
def blank():
    return tiny_vit()


def _damage(content, generator, kind):
    """A damaged copy of some bytes."""
    content, place = bytearray(content), int(generator.integers(len(content)))
    if kind == "bit":
        content[place] ^= 1 << int(generator.integers(8))
    elif kind == "bytes":
        for at in generator.integers(len(content), size=4):
            content[at] = int(generator.integers(256))
    elif kind == "hole":
        content[place : place + 64] = bytes(len(content[place : place + 64]))
    elif kind == "swap":
        other = int(generator.integers(len(content) - 8))
        place = min(place, len(content) - 8)
        content[place : place + 8], content[other : other + 8] = content[other : other + 8], content[place : place + 8]
    else:
        del content[place:]
    return bytes(content)


@pytest.mark.parametrize("kind", ["bit", "bytes", "hole", "swap", "cut"])
@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_no_damaged_file_is_loaded_silently(suffix, kind, model, blank, tmp_path):
    path, generator = tmp_path / f"x{suffix}", np.random.default_rng([len(suffix), len(kind)])
    save_weights(model, path, "timm" if suffix == ".safetensors" else "google")
    content, labels, silent = path.read_bytes(), keras_vit.metadata(model).labels, []
    expected = {key: np.array(value) for key, value in open_checkpoint(path).items()}
    for number in range(50):
        damaged = _damage(content, generator, kind)
        if damaged == content:
            continue
        path.write_bytes(damaged)
        with contextlib.suppress(ValueError):
            checkpoint = open_checkpoint(path)
            # What a file says of itself is read with it.
            found = {key: checkpoint[key] for key in checkpoint}
            told = json.loads(checkpoint.metadata["keras_vit"])["labels"] if suffix == ".safetensors" else labels
            same = found.keys() == expected.keys() and tuple(told) == labels
            if not same or any(not np.array_equal(found[key], expected[key]) for key in found):
                silent.append(number)
    assert silent == []


def test_every_flipped_bit_is_noticed(tmp_path):
    write_checkpoint(tmp_path / "x.safetensors", {"ab": np.ones(2, "float32"), "c": np.ones(2, "float16")}, {"k": "v"})
    content = (tmp_path / "x.safetensors").read_bytes()
    start = content.index(b"keras_vit_")
    for place in range(len(content)):
        for bit in range(8):
            damaged = bytearray(content)
            damaged[place] ^= 1 << bit
            (tmp_path / "y").write_bytes(damaged)
            if place >= start and chr(content[place]) in "abcdef" and bit == 5:
                continue  # the case of hexadecimal digits
            with pytest.raises(ValueError, match="a checkpoint must be readable"):
                dict(open_checkpoint(tmp_path / "y"))


def _fold_slowly(data, row=4072, rows=64):
    """The checksum of an array as its definition says, a row at a time."""
    folded, end = [], len(data) - len(data) % row
    for start in range(0, end, row * rows):
        block = [data[at : at + row] for at in range(start, min(start + row * rows, end), row)]
        combined = 0
        for line in block:
            combined ^= int.from_bytes(line, "little")
        folded.append(combined.to_bytes(row, "little"))
    return zlib.crc32(b"".join(folded) + data[end:])


@pytest.mark.parametrize("size", [0, 1, 4071, 4072, 4073, 3 * 4072 + 6, 64 * 4072, 64 * 4072 + 4, 131 * 4072 + 777])
def test_the_checksum_of_an_array_is_that_of_its_definition_wherever_it_lies(size):
    data = np.random.default_rng(size).integers(256, size=size, dtype="uint8").tobytes()
    expected = _fold_slowly(data)
    for offset in range(9):
        assert checksums.folded_crc32(memoryview(bytes(offset) + data)[offset:]) == expected


def test_the_checksum_of_a_large_array_tells_damage_of_every_size():
    generator = np.random.default_rng(0)
    values = generator.normal(size=(3, 100_000)).astype("float32")
    content, expected = values.tobytes(), checksums.folded_crc32(values)
    for kind in ("bit", "bytes", "hole", "swap", "cut"):
        for _ in range(20):
            damaged = _damage(content, generator, kind)
            assert damaged == content or checksums.folded_crc32(damaged) != expected
    pages = np.frombuffer(content[: len(content) // 4096 * 4096], "uint8").reshape(-1, 4096)
    for distance in (1, 2, 64, 200):  # pages that changed places
        moved = pages.copy()
        moved[[5, 5 + distance]] = moved[[5 + distance, 5]]
        assert checksums.folded_crc32(moved.tobytes() + content[pages.size :]) != expected


def _write_with_plain_checksums(path, tensors):
    """A file as keras_vit wrote it before it folded the arrays."""
    keys, metadata = sorted(tensors), {"format": "pt", "keras_vit_checked": "keras_vit_crc32"}
    digits = "0" * 8 * (len(keys) + 1)
    safetensors.numpy.save_file(tensors, path, {**metadata, "keras_vit_crc32": digits})
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    found = [zlib.crc32(tensors[key].tobytes()) for key in keys]
    header["__metadata__"].pop("keras_vit_crc32")
    found.insert(0, zlib.crc32(json.dumps([header, found], sort_keys=True).encode()))
    path.write_bytes(content.replace(digits.encode(), "".join(f"{number:08x}" for number in found).encode()))


def test_files_with_checksums_of_before_are_verified(model, blank, tmp_path):
    path = tmp_path / "x.safetensors"
    save_weights(model, path)
    tensors = {key: np.array(value) for key, value in open_checkpoint(path).items()}
    _write_with_plain_checksums(path, tensors)
    content = path.read_bytes()
    load_weights(blank, path)
    for weight, expected in zip(blank.weights, model.weights, strict=True):
        np.testing.assert_array_equal(weight, expected)
    generator = np.random.default_rng(1)
    for kind in ("bit", "bytes", "hole", "swap", "cut"):
        for _ in range(10):
            damaged = _damage(content, generator, kind)
            path.write_bytes(damaged)
            if damaged != content:
                with pytest.raises(ValueError, match="a checkpoint must be readable"):
                    dict(open_checkpoint(path))


def test_a_flipped_bit_leaves_the_model_as_it_was(model, blank, tmp_path):
    path = tmp_path / "x.safetensors"
    save_weights(model, path)
    content = bytearray(path.read_bytes())
    content[-5] ^= 4
    path.write_bytes(content)
    before = [np.array(weight) for weight in blank.weights]
    with pytest.raises(
        ValueError, match=r"a checkpoint must be readable. Received: .*x.safetensors', '.*' \(bad checksum"
    ):
        load_weights(blank, path)
    for weight, value in zip(blank.weights, before, strict=True):
        np.testing.assert_array_equal(weight, value)
    with pytest.raises(ValueError, match="bad checksum"):
        from_checkpoint(path)


def test_files_without_checksums_and_other_readers_go_on(model, tmp_path):
    path = tmp_path / "x.safetensors"
    save_weights(model, path)
    tensors = safetensors.numpy.load_file(path)
    assert open_checkpoint(path).metadata["format"] == "pt"
    safetensors.numpy.save_file(tensors, tmp_path / "y.safetensors")
    load_weights(model, tmp_path / "y.safetensors")
    (length,) = struct.unpack("<Q", path.read_bytes()[:8])
    header = json.loads(path.read_bytes()[8 : 8 + length])
    assert set(checksums.read_checksums(header)) == set(tensors)


def test_a_damaged_archive_of_pytorch_is_noticed(tmp_path):
    path, generator = tmp_path / "x.pth", np.random.default_rng(0)
    arrays = {f"a{i}": generator.normal(size=(5, 7)).astype("float32") for i in range(4)}
    torch_pickles.save(path, arrays)
    content = path.read_bytes()
    for number in range(100):
        path.write_bytes(_damage(content, generator, ("bit", "bytes", "hole", "cut")[number % 4]))
        with contextlib.suppress(ValueError):
            found = dict(open_checkpoint(path))
            assert found.keys() == arrays.keys()
            for key, array in arrays.items():
                np.testing.assert_array_equal(found[key], array)


def test_an_encrypted_archive_is_unreadable(model, tmp_path):
    save_weights(model, tmp_path / "x.npz", "google")
    content = bytearray((tmp_path / "x.npz").read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flags of the first member in the directory
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"a checkpoint must be readable.*encrypted"):
        from_checkpoint(tmp_path / "x.npz")
