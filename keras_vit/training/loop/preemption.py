"""SIGTERM and Ctrl-C while a model trains: the current step is finished and saved first."""

import contextlib
import os
import signal
import sys
import threading
import time

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: try again later.
_GRACE_SECONDS = 5.0  # the time that Python has to run its handler of SIGTERM

# The time at which Python last ran its handler of SIGTERM, and the active `StopRequest`s.
_handled_at, _requests = [float("-inf")], []


class Preempted(SystemExit):
    """A run was stopped by SIGTERM or has lost a worker. Run the same command to resume.

    A program that does not catch it exits with `EXIT_CODE`, 75.
    """

    def __init__(self, message):
        super().__init__(EXIT_CODE)
        self.message = message

    def __str__(self):
        return self.message


class StopRequest:
    """A context in which SIGTERM and SIGINT (Ctrl-C) are recorded instead of raised, so that a step can be finished.

    Signal handlers are installed in the main thread only, and only in place of Python's own: a handler of the program
    stays. They are restored at the end. A second Ctrl-C is raised at once.

    Attributes:
        signal: `signal.SIGTERM`, `signal.SIGINT` or `None`: the signal that was received.
        defers_signals: bool. Whether there is work to save first; if not, a signal is raised at once. Default False.
    """

    def __init__(self):
        self.signal, self.defers_signals = None, False
        self._previous_handlers = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            replaceable = {
                signal.SIGINT: [signal.default_int_handler],
                signal.SIGTERM: [signal.SIG_DFL, _raise_preempted],
            }
            for number, handlers in replaceable.items():
                if signal.getsignal(number) in handlers:
                    self._previous_handlers[number] = signal.signal(number, self._handle)
        _requests.append(self)
        return self

    def __exit__(self, *error):
        _requests.remove(self)
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)

    def _handle(self, number, frame):
        if number == signal.SIGTERM:
            _handled_at[0] = time.monotonic()
        if not self.defers_signals or (number == signal.SIGINT and self.signal is not None):
            raise_for_signal(number)
        self.signal = number
        if number == signal.SIGINT:
            with contextlib.suppress(RuntimeError):  # The signal may interrupt another `print`.
                print(" Saving a checkpoint after this step. Press Ctrl-C again to quit now.", file=sys.stderr)


def raise_for_signal(number, message="the run was asked to stop"):
    """Raises `KeyboardInterrupt` for SIGINT, `Preempted` with a message for SIGTERM."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise Preempted(message)


def _raise_preempted(number, frame):
    _handled_at[0] = time.monotonic()
    raise_for_signal(number)


@contextlib.contextmanager
def raise_on_sigterm():
    """A context, or a decorator, in which SIGTERM raises `Preempted` instead of killing the process.

    Python runs signal handlers between two bytecode instructions: not while TensorFlow compiles a step, and never while
    it waits for a machine that does not answer. If the handler has not run within five seconds, and no `StopRequest`
    has work to save, a thread ends the process, also with `EXIT_CODE`.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _raise_preempted)
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    previous = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    ended = threading.Event()
    threading.Thread(target=_watch, args=(read_end, ended), daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        signal.set_wakeup_fd(previous)
        os.close(write_end)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _watch(read_end, ended):
    """Ends a process whose Python handler of SIGTERM does not run. The C handler writes signal numbers to the pipe."""
    while number := os.read(read_end, 1):
        if number[0] != signal.SIGTERM or ended.wait(_GRACE_SECONDS):
            continue
        # A signal that arrives during this wait is read only after it; hence the margin.
        is_handled = _handled_at[0] > time.monotonic() - 3 * _GRACE_SECONDS
        if not is_handled and not any(request.defers_signals for request in _requests):
            os.write(2, _forced_exit_message().encode())
            os._exit(EXIT_CODE)
    os.close(read_end)


def _forced_exit_message():
    """The last line of a process that `_watch` ends: the reason and the next command."""
    # Workers wait for each other; a single process is blocked while TensorFlow compiles or computes.
    work = "waited for another worker, or TensorFlow was at work" if os.environ.get("TF_CONFIG") else "computed"
    return f"keras_vit: ended by SIGTERM while it {work}; there was nothing to save. Run the same command to resume.\n"
