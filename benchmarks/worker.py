"""The process of one contender. It reads one JSON request a line on stdin and answers one line a request.

Every contender has a process of its own: memory and thread pools are separate, and a crash costs one row.
"""

import dataclasses
import functools
import importlib
import json
import os
import sys
import time

from contenders import Contender, Task


def memory(field):
    """A field of `/proc/self/status` in MB (`VmHWM`: the peak, `VmRSS`: now), or `None` outside Linux."""
    try:
        with open("/proc/self/status") as file:
            lines = [line.split() for line in file if line.startswith(field + ":")]
    except OSError:
        return None
    return int(lines[0][1]) / 1024 if lines else None


def timed(function):
    """Seconds of one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


@dataclasses.dataclass
class Session:
    """A contender that is ready to step, and the memory before it was."""

    step: object
    memory_after_import: float | None


def find_factory(contender):
    """The function of a contender, with its packages imported in their order."""
    for package in contender.packages:
        importlib.import_module(package)
    module, name = contender.factory.split(":")
    return getattr(importlib.import_module(module), name)


def prepare(contender, task):
    """Imports, builds, and does the first step, which compiles, and two more, which settle.

    Returns:
        A `Session` and what to tell about it: the number of weights, seconds of the first and of a later step.
    """
    factory = find_factory(contender)
    before = memory("VmRSS")
    step, parameters = factory(task, **contender.options)
    first = timed(step)
    later = min(timed(step) for _ in range(2))
    return Session(step, before), {"parameters": parameters, "first_step": first, "step": later}


def answer(session, request):
    """Carries out one request.

    Returns:
        The session and the reply.
    """
    if "contender" in request:
        contender = Contender(**{**request["contender"], "packages": tuple(request["contender"]["packages"])})
        if request["do"] == "once":
            return session, find_factory(contender)(**contender.options, **request["arguments"])
        return prepare(contender, Task(**request["task"]))
    if request["do"] == "run":
        step = functools.partial(session.step, **request.get("arguments", {}))
        for _ in range(request["warm"]):
            step()
        return session, {"seconds": [timed(step) for _ in range(request["steps"])]}
    peak = memory("VmHWM")
    return session, {"memory": None if peak is None else peak - session.memory_after_import}


def main():
    """Answers requests from standard input until it ends."""
    # Replies go through a copy of stdout; whatever a framework prints there goes to stderr.
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    session = None
    for line in sys.stdin:
        try:
            session, reply = answer(session, json.loads(line))
        except Exception as error:  # a failing contender is a row of the table
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=replies)


if __name__ == "__main__":
    main()
