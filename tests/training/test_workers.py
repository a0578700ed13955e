"""What several workers agree about, with threads in the place of processes."""

import concurrent.futures
import threading

import pytest

from keras_vit.training.loop.run_lock import locked
from keras_vit.training.loop.workers import StopSaveConsensus, Workers

LIMIT = 30.0  # seconds, after which a worker that waits for another one fails


class _Meeting:
    """Where threads meet for the sum of their numbers."""

    def __init__(self, count):
        self.count, self.meetings = count, 0
        self._barrier = threading.Barrier(count, timeout=LIMIT)
        self._numbers = [0] * count

    def workers(self, index):
        """`Workers` as the thread of this number sees them."""

        def all_reduce_sum(number):
            self._numbers[index] = number
            self._barrier.wait()
            found = sum(self._numbers)
            if self._barrier.wait() == 0:
                self.meetings += 1
            return found

        def broadcast(content):
            length = all_reduce_sum(len(content) if index == 0 else 0)
            return bytes(all_reduce_sum(content[i] if index == 0 else 0) for i in range(length))

        return Workers(index == 0, self.count, all_reduce_sum, broadcast)

    def run(self, function):
        """What a function of `Workers` returns or raises on each of them."""
        with concurrent.futures.ThreadPoolExecutor(self.count) as pool:
            futures = [pool.submit(function, self.workers(index)) for index in range(self.count)]
            return [future.exception() or future.result() for future in futures]


class _Clock:
    """Seconds that only the test moves."""

    now = 0.0

    def __call__(self):
        return self.now


def _votes(meeting, wishes, seconds_a_step, forced=()):
    """The steps behind which every worker is told to save and to end; `wishes(is_chief, step)` are what they want."""

    def work(workers):
        clock, told = _Clock(), []
        consensus = StopSaveConsensus(workers, clock=clock)
        for step in range(1, 41):
            clock.now += seconds_a_step
            told.append((step, *consensus.after_steps(1, *wishes(workers.is_chief, step), force=step in forced)))
        return [(step, save, end) for step, save, end in told if save or end]

    return meeting.run(work)


def test_workers_are_asked_once_a_second_and_all_do_the_same():
    meeting = _Meeting(3)
    told = _votes(meeting, lambda is_chief, step: (is_chief and step >= 7, not is_chief and step >= 22), 0.1)
    # Behind the first step, at whose end the chief knows how long steps take, and then behind every tenth.
    assert told == [[(11, True, False), (21, True, False), (31, True, True)]] * 3
    assert meeting.meetings == 4


def test_what_is_due_by_steps_does_not_wait():
    meeting = _Meeting(2)
    told = _votes(meeting, lambda is_chief, step: (is_chief and step == 8, False), 0.1, forced={8})
    assert told == [[(8, True, False)]] * 2


@pytest.mark.parametrize("seconds", [2.0, 0.0])
def test_long_steps_ask_each_time_and_a_clock_that_stands_still_asks_too(seconds):
    meeting = _Meeting(2)
    told = _votes(meeting, lambda is_chief, step: (False, step >= 20), seconds)
    assert told == ([[(step, False, True) for step in range(20, 41)]] * 2 if seconds else [[]] * 2)
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
