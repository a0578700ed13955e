"""How a run ends when the system or somebody at the keyboard asks it to: at the end of a step, saved."""

import contextlib
import os
import signal
import sys
import threading
import time

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: try again later.
_PATIENCE = 5.0  # seconds in which Python should have heard of SIGTERM

# When Python has last heard of SIGTERM, and the requests that are in force.
_heard, _requests = [float("-inf")], []


class Preempted(SystemExit):
    """Raised where a run was asked to end by SIGTERM, or lost a worker; a program that does not catch it ends with 75.

    That is `EXIT_CODE`: the same command resumes the run.
    """

    def __init__(self, message):
        super().__init__(EXIT_CODE)
        self.message = message

    def __str__(self):
        return self.message


class StopRequest:
    """A context in which SIGTERM and SIGINT (Ctrl-C) wait for somebody to ask `signal`, so that a step is finished.

    Only in the main thread, which alone gets signals, and only in place of Python's own handlers: who has set another
    one keeps it. Afterwards they are as before. A second Ctrl-C does not wait.

    Attributes:
        signal: `signal.SIGTERM`, `signal.SIGINT` or `None`.
        waits: bool. Whether there is something to be finished; without it a signal acts at once. Default False.
    """

    def __init__(self):
        self.signal, self.waits = None, False
        self._before = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            usual = {signal.SIGINT: [signal.default_int_handler], signal.SIGTERM: [signal.SIG_DFL, _end]}
            for number, handlers in usual.items():
                if signal.getsignal(number) in handlers:
                    self._before[number] = signal.signal(number, self._note)
        _requests.append(self)
        return self

    def __exit__(self, *error):
        _requests.remove(self)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number, frame):
        if number == signal.SIGTERM:
            _heard[0] = time.monotonic()
        if not self.waits or (number == signal.SIGINT and self.signal is not None):
            raise_for_signal(number)
        self.signal = number
        if number == signal.SIGINT:
            with contextlib.suppress(RuntimeError):  # It may come in the middle of another line.
                print(" Finishing the step to save it; once more to stop at once.", file=sys.stderr)


def raise_for_signal(number, message="the run was asked to end"):
    """Raises what a signal means: `KeyboardInterrupt`, or `Preempted` with a message."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise Preempted(message)


def _end(number, frame):
    _heard[0] = time.monotonic()
    raise_for_signal(number)


@contextlib.contextmanager
def raise_on_sigterm():
    """A context, or a decorator, in which SIGTERM raises `Preempted`, where it would kill the process otherwise.

    Python hears of a signal between two of its instructions, and so not while TensorFlow compiles a step, and never
    while it waits for a machine that does not answer. If it has not heard within five seconds, and no `StopRequest` has
    anything to finish, the process ends, with `EXIT_CODE` too.
    """
    usual = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if not usual:
        yield
        return
    signal.signal(signal.SIGTERM, _end)
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    before = signal.set_wakeup_fd(writes, warn_on_full_buffer=False)
    ended = threading.Event()
    threading.Thread(target=_watch, args=(reads, ended), daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        signal.set_wakeup_fd(before)
        os.close(writes)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _watch(reads, ended):
    """Ends a process that got SIGTERM and cannot hear of it. The C part of Python writes the numbers of signals."""
    while number := os.read(reads, 1):
        if number[0] != signal.SIGTERM or ended.wait(_PATIENCE):
            continue
        # What came while this thread waited for Python to hear of the one before is read that much later.
        is_heard = _heard[0] > time.monotonic() - 3 * _PATIENCE
        if not is_heard and not any(request.waits for request in _requests):
            os.write(2, _ended_deaf().encode())
            os._exit(EXIT_CODE)
    os.close(reads)


def _ended_deaf():
    """A line for the end of a process that could not hear of SIGTERM: why, and what to do."""
    # Several workers wait for each other; one alone is deaf while TensorFlow compiles or computes.
    work = "waited for another worker, or TensorFlow was at work" if os.environ.get("TF_CONFIG") else "computed"
    return f"keras_vit: ended by SIGTERM while it {work}; there was nothing to save. Run the same command to resume.\n"
