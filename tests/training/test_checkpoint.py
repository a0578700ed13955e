"""The checkpoint file: complete or detected as damaged after a kill, a full disk and a changed byte."""

import errno
import multiprocessing
import os
import resource
import time
import warnings

import ml_dtypes
import numpy as np
import pytest

from keras_vit.atomic import remove_partial, replaced
from keras_vit.training.loop.checkpoint import load_checkpoint, previous_path, save_checkpoint
from keras_vit.training.loop.checkpoint_callback import CheckpointWriter

VALUES = [np.arange(6, dtype="float32").reshape(2, 3), np.array(7, "int64"), np.array([1, 2], "uint32")]
# A process that is forked has imported all this already.
FORK = multiprocessing.get_context("fork")


def _state(step, epoch=0):
    return {"epoch": epoch, "step": step, "history": [{"loss": 0.1}]}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint.npz"


def test_what_is_saved_is_loaded(path):
    assert load_checkpoint(path) is None
    small = np.array([0.1, -3e38], ml_dtypes.bfloat16)
    save_checkpoint(path, [*VALUES, small], _state(3), [np.float32(1 / 3)])
    saved = load_checkpoint(path)
    assert (saved.state, saved.path, saved.position) == (_state(3), path, (0, 3))
    for actual, value in zip(saved.values, [*VALUES, small.astype("float32")], strict=True):
        assert actual.dtype == value.dtype
        np.testing.assert_array_equal(actual, value)
    assert saved.metrics == [np.float32(1 / 3)]
    with np.load(path) as arrays:
        np.testing.assert_array_equal(arrays["00000"], VALUES[0])


def test_every_damaged_byte_is_found(path):
    save_checkpoint(path, VALUES[:1], _state(1))
    whole = path.read_bytes()
    for position in range(0, len(whole), 3):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ (1 << position % 8)]) + whole[position + 1 :])
        with pytest.raises(ValueError, match=r"Received: .*checkpoint.npz"):
            load_checkpoint(path)


def test_every_file_that_is_cut_short_or_too_long_is_found(path):
    save_checkpoint(path, VALUES[:1], _state(1))
    whole = path.read_bytes()
    for content in [*(whole[:size] for size in range(0, len(whole), 5)), whole + b"\0", whole[:64] + bytes(len(whole))]:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"Received: .*checkpoint.npz"):
            load_checkpoint(path)


def test_the_previous_checkpoint_replaces_a_damaged_one(path):
    for step in (1, 2):
        save_checkpoint(path, VALUES, _state(step))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.warns(UserWarning, match=r"checkpoint.npz'.* epoch 0 and 1 step.*previous.npz'"):
        saved = load_checkpoint(path)
    assert (saved.state["step"], saved.path) == (1, previous_path(path))


def test_a_kill_between_the_two_names_leaves_the_one_before(path):
    save_checkpoint(path, VALUES, _state(1))
    os.replace(path, previous_path(path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_checkpoint(path).state["step"] == 1


def _save_for_ever(path, step):
    while True:
        step += 1
        save_checkpoint(path, [np.full(50_000, step, "float32")] * 2, _state(step))


def test_kills_at_any_moment_leave_a_whole_state_that_never_goes_back(path):
    """Files of 400 kB; a process that saves in a loop is killed 40 times, while another one reads."""
    random, last = np.random.default_rng(0), 0
    for _ in range(40):
        process = FORK.Process(target=_save_for_ever, args=(path, last), daemon=True)
        process.start()
        begin, limit, end = last, time.monotonic() + 60, None
        while end is None or time.monotonic() < end:
            saved = load_checkpoint(path)
            if saved is not None:
                step = saved.state["step"]
                assert step >= last
                assert all((value == step).all() for value in saved.values)
                last = step
            if end is None and last > begin:
                end = time.monotonic() + random.uniform(0, 0.03)
            assert process.is_alive(), "the writer ended on its own"
            assert time.monotonic() < limit, "no save in a minute"
        process.kill()
        process.join()
        step = load_checkpoint(path).state["step"]
        assert step >= last
        last = step
    remove_partial(path.parent)
    assert {file.name for file in path.parent.iterdir()} <= {path.name, previous_path(path).name}


def _full(*arguments):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_leaves_what_was_saved(path, monkeypatch):
    save_checkpoint(path, VALUES, _state(1))
    monkeypatch.setattr(os, "fsync", _full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(path, VALUES, _state(2))
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert load_checkpoint(path).state["step"] == 1


def _save_too_much(path):
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    try:
        save_checkpoint(path, [np.zeros(50_000, "float32")], _state(2))
    except OSError as error:
        os._exit(error.errno)
    os._exit(0)


def test_a_file_that_may_not_grow_leaves_what_was_saved(path):
    save_checkpoint(path, VALUES, _state(1))
    process = FORK.Process(target=_save_too_much, args=(path,))
    process.start()
    process.join(30)
    assert process.exitcode == errno.EFBIG
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert load_checkpoint(path).state["step"] == 1


def test_an_error_within_leaves_the_old_file(path):
    path.write_text("old")

    def write():
        with replaced(path) as partial:
            partial.write_text("new")
            raise KeyError

    with pytest.raises(KeyError):
        write()
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_the_writer_warns_of_a_full_disk_and_finds_room_later(path, monkeypatch):
    writer = CheckpointWriter(path)
    writer.write(VALUES, _state(1))
    writer.flush()
    with monkeypatch.context() as full:
        full.setattr(os, "fsync", _full)
        writer.write(VALUES, _state(2))
        with pytest.warns(UserWarning, match=r"2 steps .* 1 step .*No space left"):
            writer.write(VALUES, _state(3))
        with pytest.raises(OSError, match="epoch 0 and 3 steps"):
            writer.flush()
        assert load_checkpoint(path).state["step"] == 1
        writer.write(VALUES, _state(4))
    writer.flush()
    assert load_checkpoint(path).state["step"] == 4
    writer.close()


def test_the_writer_saves_numbers_alone(path):
    writer = CheckpointWriter(path)
    writer.write([np.array([1.0, np.nan])], _state(1))
    writer.flush()
    assert load_checkpoint(path) is None
    assert not path.exists()
    writer.close()
