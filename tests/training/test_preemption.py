"""The lock of a directory, and signals during a run."""

import concurrent.futures
import ctypes
import multiprocessing
import os
import signal
import threading
import time

import pytest

from keras_vit.training.loop import preemption
from keras_vit.training.loop.preemption import EXIT_CODE, Preempted, StopRequest, raise_on_sigterm
from keras_vit.training.loop.run_lock import LOCK_FILE, OWNER_FILE, clear_directory, locked

FORK = multiprocessing.get_context("fork")


def _hold(directory, pipe):
    with locked(directory):
        pipe.send("locked")
        time.sleep(60)


def _enter(directory):
    with locked(directory):
        return True


def test_a_directory_in_use_is_refused_until_its_process_is_gone(tmp_path):
    ours, theirs = FORK.Pipe()
    process = FORK.Process(target=_hold, args=(tmp_path / "run", theirs), daemon=True)
    process.start()
    assert ours.poll(30)
    message = (
        rf"one run at a time.*--out\). Received: '{tmp_path / 'run'}', in use by process {process.pid} on .+ since"
    )
    with pytest.raises(ValueError, match=message):
        _enter(tmp_path / "run")
    (tmp_path / "run" / OWNER_FILE).unlink()
    with pytest.raises(ValueError, match="in use by a process that has just started"):
        _enter(tmp_path / "run")
    process.kill()
    process.join()
    assert _enter(tmp_path / "run")


def test_a_thread_is_refused_and_what_the_owner_calls_is_not(tmp_path):
    with locked(tmp_path):
        assert _enter(tmp_path / "." / ".." / tmp_path.name)
        with concurrent.futures.ThreadPoolExecutor(1) as pool, pytest.raises(ValueError, match=f"{os.getpid()} on"):
            pool.submit(_enter, tmp_path).result()
        with pytest.raises(KeyError), locked(tmp_path):
            raise KeyError
        with concurrent.futures.ThreadPoolExecutor(1) as pool, pytest.raises(ValueError, match="one run at a time"):
            pool.submit(_enter, tmp_path).result()
    assert _enter(tmp_path)


def test_an_emptied_directory_keeps_its_lock(tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "kept").touch()
    run = tmp_path / "run"
    with locked(run):
        (run / "sub" / "folder").mkdir(parents=True)
        (run / "file").touch()
        (run / "link").symlink_to(tmp_path / "target")
        clear_directory(run)
        assert {path.name for path in run.iterdir()} == {LOCK_FILE, OWNER_FILE}
    assert (tmp_path / "target" / "kept").exists()


def test_what_a_killed_run_left_half_written_is_removed(tmp_path):
    (tmp_path / "partial.checkpoint.npz").touch()
    (tmp_path / "checkpoint.npz").touch()
    _enter(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {LOCK_FILE, OWNER_FILE, "checkpoint.npz"}


def _send(number):
    os.kill(os.getpid(), number)
    time.sleep(0)  # Python's handler runs between two of its instructions.


def test_a_signal_acts_at_once_where_there_is_nothing_to_finish():
    with StopRequest(), pytest.raises(KeyboardInterrupt):
        _send(signal.SIGINT)
    with StopRequest(), pytest.raises(Preempted) as raised:
        _send(signal.SIGTERM)
    assert raised.value.code == EXIT_CODE == 75


def test_a_signal_is_noted_where_there_is_and_a_second_ctrl_c_acts(capsys):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        stop.defers_signals = True
        for _ in range(2):  # Some schedulers send it more than once.
            _send(signal.SIGTERM)
            assert stop.signal == signal.SIGTERM
    with StopRequest() as stop:
        stop.defers_signals = True
        _send(signal.SIGINT)
        assert stop.signal == signal.SIGINT
        assert "Ctrl-C" in capsys.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            _send(signal.SIGINT)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_handlers_of_others_stay_and_threads_have_none():
    calls = []
    before = signal.signal(signal.SIGTERM, lambda *_: calls.append(1))
    try:
        with StopRequest() as stop, raise_on_sigterm():
            _send(signal.SIGTERM)
        assert (stop.signal, calls) == (None, [1])
    finally:
        signal.signal(signal.SIGTERM, before)

    def enter():
        with StopRequest() as stop, raise_on_sigterm():
            return stop.signal, signal.getsignal(signal.SIGTERM)

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert pool.submit(enter).result() == (None, before)


def test_sigterm_is_an_exit_within_a_command():
    before = signal.getsignal(signal.SIGTERM)

    @raise_on_sigterm()
    def command():
        with StopRequest() as stop:
            stop.defers_signals = True
            _send(signal.SIGTERM)
            assert stop.signal == signal.SIGTERM
        _send(signal.SIGTERM)

    for _ in range(2):
        with pytest.raises(Preempted, match="asked to stop"):
            command()
        assert signal.getsignal(signal.SIGTERM) is before


@raise_on_sigterm()
def _wait_deaf(pipe, waits):
    """Waits in C for what will never come, and hears of no signal."""
    preemption._GRACE_SECONDS, preemption._handled_at[0] = 0.3, float("-inf")
    with StopRequest() as stop:
        stop.defers_signals = waits
        mutex = ctypes.create_string_buffer(128)  # zeros are an open one
        lock = ctypes.CDLL(None).pthread_mutex_lock
        lock(mutex)
        threading.Timer(0.5, pipe.send, ["waits"]).start()  # by then it does
        lock(mutex)


@pytest.mark.parametrize("waits", [False, True])
def test_sigterm_ends_a_process_that_cannot_hear_of_it_unless_it_has_something_to_save(waits, capfd):
    ours, theirs = FORK.Pipe()
    process = FORK.Process(target=_wait_deaf, args=(theirs, waits), daemon=True)
    process.start()
    try:
        assert ours.poll(30)
        process.terminate()
        process.join(2 if waits else 30)
        assert process.exitcode == (None if waits else EXIT_CODE)
        error = capfd.readouterr().err
        assert ("there was nothing to save. Run the same command to resume." in error) is not waits
        assert "another" not in error
    finally:
        process.kill()
        process.join()


@pytest.mark.parametrize("cluster", ["", '{"cluster": {"worker": ["a:1", "b:1"]}}'])
def test_only_one_of_several_workers_speaks_of_another(cluster, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", cluster)
    assert ("another worker" in preemption._forced_exit_message()) is bool(cluster)
