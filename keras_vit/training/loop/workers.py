"""What the processes of one run must agree about.

Each of them runs the same program and computes its part of every step; one, the chief, writes what the run leaves
behind. What all do together, such as a step, all must begin, or those who have wait for ever: so nobody ends, saves or
fails alone.
"""

import contextlib
import dataclasses
import pathlib
import tempfile
import time

from keras_vit.atomic import replaced


def _same(value):
    return value


@dataclasses.dataclass(frozen=True)
class Workers:
    """The processes of a run, as one of them sees them. By default it is alone.

    Args:
        is_chief: bool. Whether this is the one that writes.
        count: int. How many there are.
        all_reduce_sum: callable from an int of every process to the sum of all. It waits for all of them.
        broadcast: callable from bytes, of which only the chief's count, to those of the chief. It waits for all too.
    """

    is_chief: bool = True
    count: int = 1
    all_reduce_sum: object = _same
    broadcast: object = _same

    @contextlib.contextmanager
    def fail_together(self):
        """A context that fails on all where it fails on one, at its end.

        Raises:
            RuntimeError: where another process failed; that one raises what it was.
        """
        try:
            yield
        except Exception:
            self.all_reduce_sum(1)
            raise
        if failed := self.all_reduce_sum(0):
            raise RuntimeError(
                f"a run goes on with all of its workers or with none. Received: errors of {failed} others, "
                "which say why"
            )

    @contextlib.contextmanager
    def replaced(self, path):
        """`durable.replaced` of the chief. The others write too, as some variables are read by all; that is dropped."""
        if self.is_chief:
            with replaced(path) as partial:
                yield partial
        else:
            with tempfile.TemporaryDirectory() as folder:
                yield pathlib.Path(folder) / pathlib.Path(path).name

    @contextlib.contextmanager
    def broadcast_file(self, path):
        """A path with what the chief's file holds, for the time of the context; without a file where it has none."""
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
# Wishes as numbers whose sum over all workers tells how many want what, and the steps that the chief sets.
_SAVE, _END, _STEPS = 1, 2**20, 2**40
_MOST_STEPS = 1000


class StopSaveConsensus:
    """Asks all workers about once a second what they want, so that all do it behind the same step.

    Args:
        workers: `Workers`.
        seconds: float. The time between two questions. Default 1.
        clock: callable that gives seconds.
    """

    def __init__(self, workers, seconds=1.0, clock=time.perf_counter):
        self.workers, self.seconds, self._clock = workers, seconds, clock
        self._steps, self._pause, self._asked = 0, 1, clock()

    def after(self, steps, save, end, at_once=False):
        """`(whether any wants to save, whether any wants to end)`; nobody does where it is not asked.

        Args:
            steps: int. Those since the last call.
            save, end: what this process wants.
            at_once: bool. Whether to ask in any case. It must be the same on all workers.
        """
        self._steps += steps
        if self.workers.count > 1 and self._steps < self._pause and not at_once:
            return False, False
        now, wish = self._clock(), (_SAVE if save else 0) + (_END if end else 0)
        if self.workers.is_chief:
            rate = self._steps / max(now - self._asked, 1e-9)
            wish += _STEPS * min(max(round(rate * self.seconds), 1), _MOST_STEPS)
        self._steps, self._asked = 0, now
        self._pause, wishes = divmod(self.workers.all_reduce_sum(wish), _STEPS)
        return wishes % _END > 0, wishes >= _END

    def ends(self, end):
        """Whether any worker wants to end; it is asked in any case."""
        return self.workers.all_reduce_sum(1 if end else 0) > 0
