"""The agreement of the processes of one run: sums, broadcasts and common decisions.

Each process runs the same program and computes its shard of every step; one of them, the chief, writes the files. A
collective operation, such as a step, blocks until every process has started it. Therefore no process may stop, save or
fail alone.
"""

import contextlib
import dataclasses
import pathlib
import tempfile
import time

from keras_vit.atomic import replaced


def _identity(value):
    return value


@dataclasses.dataclass(frozen=True)
class Workers:
    """The processes of a run, as seen by one of them. The default is a single process.

    Args:
        is_chief: bool. Whether this process writes the files of the run.
        count: int. The number of processes.
        all_reduce_sum: callable from an int of each process to the sum of all. It waits for all of them.
        broadcast: callable from bytes, which matter on the chief only, to those of the chief. It waits for all of them.
    """

    is_chief: bool = True
    count: int = 1
    all_reduce_sum: object = _identity
    broadcast: object = _identity

    @contextlib.contextmanager
    def fail_together(self):
        """A context that raises on all processes, at its end, if it raises on one.

        Raises:
            RuntimeError: if another process failed; that process raises the cause.
        """
        try:
            yield
        except Exception:
            self.all_reduce_sum(1)
            raise
        if failed := self.all_reduce_sum(0):
            raise RuntimeError(
                "a run needs all of its workers; see the errors of the failed ones. "
                f"Received: {failed} failed worker{'s' if failed > 1 else ''}"
            )

    @contextlib.contextmanager
    def replaced(self, path):
        """Replaces a file atomically, as `keras_vit.atomic.replaced`, on the chief.

        Other workers write to a temporary file, because all of them must read distributed variables.
        """
        if self.is_chief:
            with replaced(path) as partial:
                yield partial
        else:
            with tempfile.TemporaryDirectory() as folder:
                yield pathlib.Path(folder) / pathlib.Path(path).name

    @contextlib.contextmanager
    def broadcast_file(self, path):
        """A context with a path to the content of the chief's file; without a file if the chief has none."""
        path = pathlib.Path(path)
        if self.count > 1:
            content = self.broadcast(path.read_bytes() if self.is_chief and path.exists() else b"")
        if self.is_chief:
            yield path
            return
        with tempfile.TemporaryDirectory() as folder:
            copy = pathlib.Path(folder) / path.name
            if content:
                copy.write_bytes(content)
            yield copy


SINGLE_WORKER = Workers()
# One int64 holds three sums over the workers: how many ask to save, how many ask to stop, and the interval in steps
# that the chief has chosen.
_SAVE, _STOP, _INTERVAL = 1, 2**20, 2**40
_MAX_INTERVAL = 1000


class StopSaveConsensus:
    """Decides after the same step on all workers whether to save or to stop, with one all-reduce about every second.

    Args:
        workers: `Workers`.
        seconds: float. The time between two all-reduces. Default 1.
        clock: callable that returns seconds.
    """

    def __init__(self, workers, seconds=1.0, clock=time.perf_counter):
        self.workers, self.seconds, self._clock = workers, seconds, clock
        self._steps, self._interval, self._last = 0, 1, clock()

    def after_steps(self, steps, save, stop, force=False):
        """Returns `(save, stop)`: whether any worker asks to. Both are `False` between two all-reduces.

        Args:
            steps: int. The steps since the last call.
            save, stop: whether this process asks to.
            force: bool. Whether to all-reduce now. It must be the same on all workers.
        """
        self._steps += steps
        if self.workers.count > 1 and self._steps < self._interval and not force:
            return False, False
        now, request = self._clock(), (_SAVE if save else 0) + (_STOP if stop else 0)
        if self.workers.is_chief:
            rate = self._steps / max(now - self._last, 1e-9)
            request += _INTERVAL * min(max(round(rate * self.seconds), 1), _MAX_INTERVAL)
        self._steps, self._last = 0, now
        self._interval, requests = divmod(self.workers.all_reduce_sum(request), _INTERVAL)
        return requests % _STOP > 0, requests >= _STOP

    def any_stops(self, stop):
        """Returns whether any worker asks to stop, always with an all-reduce."""
        return self.workers.all_reduce_sum(1 if stop else 0) > 0
