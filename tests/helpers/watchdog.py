"""A time limit for calls that may hang inside a library, where no signal and no exception gets them out."""

import functools
import queue
import threading


class Worker:
    """A thread that makes one call after the other; TensorFlow starts slowly in each new thread."""

    def __init__(self):
        self.calls, self.results = queue.Queue(), queue.Queue()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        while True:
            try:
                self.results.put((self.calls.get()(), None))
            except BaseException as error:
                self.results.put((None, error))


@functools.cache
def _worker():
    return Worker()


def within(seconds, call):
    """What a call returns or raises; fails where it has done neither in time."""
    worker = _worker()
    worker.calls.put(call)
    try:
        result, error = worker.results.get(timeout=seconds)
    except queue.Empty:
        _worker.cache_clear()  # It is lost.
        raise AssertionError(f"there must be an answer within {seconds} seconds") from None
    if error is not None:
        raise error
    return result
