"""Collective operations of several workers, with threads instead of processes."""

import concurrent.futures
import threading

import pytest

from keras_vit.training.loop.run_lock import locked
from keras_vit.training.loop.workers import StopSaveConsensus, Workers

LIMIT = 30.0  # seconds that a worker waits for another one


class _Meeting:
    """Sums the numbers of several threads."""

    def __init__(self, count):
        self.count, self.meetings = count, 0
        self._barrier = threading.Barrier(count, timeout=LIMIT)
        self._numbers = [0] * count

    def workers(self, index):
        """`Workers` for the thread with this index."""

        def all_reduce_sum(number):
            self._numbers[index] = number
            self._barrier.wait()
            total = sum(self._numbers)
            if self._barrier.wait() == 0:
                self.meetings += 1
            return total

        def broadcast(content):
            length = all_reduce_sum(len(content) if index == 0 else 0)
            return bytes(all_reduce_sum(content[i] if index == 0 else 0) for i in range(length))

        return Workers(index == 0, self.count, all_reduce_sum, broadcast)

    def run(self, function):
        """Runs a function of `Workers` in each thread; returns its results or exceptions."""
        with concurrent.futures.ThreadPoolExecutor(self.count) as pool:
            futures = [pool.submit(function, self.workers(index)) for index in range(self.count)]
            return [future.exception() or future.result() for future in futures]


class _Clock:
    """A clock that the test sets."""

    now = 0.0

    def __call__(self):
        return self.now


def _decisions(meeting, request, seconds_a_step, forced=()):
    """The decisions `(step, save, stop)` of every worker; `request(is_chief, step)` returns its `(save, stop)`."""

    def work(workers):
        clock, decisions = _Clock(), []
        consensus = StopSaveConsensus(workers, clock=clock)
        for step in range(1, 41):
            clock.now += seconds_a_step
            decisions.append((step, *consensus.after_steps(1, *request(workers.is_chief, step), force=step in forced)))
        return [(step, save, stop) for step, save, stop in decisions if save or stop]

    return meeting.run(work)


def test_workers_are_asked_once_a_second_and_all_do_the_same():
    meeting = _Meeting(3)
    decisions = _decisions(meeting, lambda is_chief, step: (is_chief and step >= 7, not is_chief and step >= 22), 0.1)
    # After the first step, when the chief knows the duration of a step, and then after every tenth.
    assert decisions == [[(11, True, False), (21, True, False), (31, True, True)]] * 3
    assert meeting.meetings == 4


def test_what_is_due_by_steps_does_not_wait():
    meeting = _Meeting(2)
    decisions = _decisions(meeting, lambda is_chief, step: (is_chief and step == 8, False), 0.1, forced={8})
    assert decisions == [[(8, True, False)]] * 2


@pytest.mark.parametrize("seconds", [2.0, 0.0])
def test_long_steps_ask_each_time_and_a_clock_that_stands_still_asks_too(seconds):
    meeting = _Meeting(2)
    decisions = _decisions(meeting, lambda is_chief, step: (False, step >= 20), seconds)
    assert decisions == ([[(step, False, True) for step in range(20, 41)]] * 2 if seconds else [[]] * 2)
    assert meeting.meetings == (40 if seconds else 1)


def test_alone_every_step_asks():
    consensus = StopSaveConsensus(Workers(), clock=_Clock())
    assert [consensus.after_steps(1, step == 1, step == 2) for step in range(3)] == [
        (False, False),
        (True, False),
        (False, True),
    ]
    assert (consensus.any_stops(None), consensus.any_stops(15)) == (False, True)


def test_all_fail_where_one_fails():
    def work(workers):
        with workers.fail_together():
            if workers.is_chief:
                raise KeyError("disk")

    chief, *others = _Meeting(3).run(work)
    assert isinstance(chief, KeyError)
    assert all("Received: 1 failed worker" in str(error) for error in others)


def test_the_chief_alone_locks_and_no_other_begins_without_it(tmp_path):
    def work(workers):
        with locked(tmp_path, workers):
            return workers.is_chief

    assert _Meeting(2).run(work) == [True, False]
    with locked(tmp_path):
        chief, other = _Meeting(2).run(work)
    assert isinstance(chief, ValueError)
    assert isinstance(other, RuntimeError)


def test_the_chief_s_file_is_there_for_all_and_only_the_chief_writes_it(tmp_path):
    def work(workers):
        folder = tmp_path / ("chief" if workers.is_chief else "other")
        folder.mkdir(exist_ok=True)
        with workers.replaced(folder / "run.npz") as path:
            path.write_bytes(b"abc" if workers.is_chief else b"xyz")
        with workers.broadcast_file(folder / "run.npz") as file, workers.broadcast_file(folder / "none") as none:
            return path.name.endswith("run.npz"), file.read_bytes() if file.exists() else None, none.exists()

    assert _Meeting(2).run(work) == [(True, b"abc", False)] * 2
    assert [path.name for path in tmp_path.rglob("*.npz")] == ["run.npz"]
