"""Runs contenders side by side: one process each, or a team, in turns, so that a busy moment hits all of them."""

import concurrent.futures
import contextlib
import dataclasses
import json
import os
import pathlib
import random
import select
import socket
import subprocess
import sys
import tempfile

from contenders import PEAKS, missing_packages

TIME_LIMIT = 1800.0  # seconds for one answer; XLA needs minutes for a large model
GRACE = 10.0  # seconds for a process to end by itself
_WORKER = pathlib.Path(__file__).with_name("worker.py")


class WorkerError(Exception):
    """A contender that cannot go on, with the reason in one line."""


class Worker:
    """The process of one contender, driven over pipes; `variables` are added to its environment."""

    def __init__(self, contender, threads=None, variables=None):
        self.contender = contender
        self._log = tempfile.TemporaryFile()  # noqa: SIM115, closed with the worker
        self._process = subprocess.Popen(
            [sys.executable, str(_WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            bufsize=1,
            env={**os.environ, **_environment(threads), **(variables or {})},
        )

    def ask(self, do, **arguments):
        """Sends a request and waits for its reply, a dict.

        Raises:
            WorkerError: if the contender fails, dies or needs longer than `TIME_LIMIT`.
        """
        try:
            print(json.dumps({"do": do, **arguments}), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            raise WorkerError(self._last_words()) from None
        if not select.select([self._process.stdout], [], [], TIME_LIMIT)[0]:
            raise WorkerError(f"no answer within {TIME_LIMIT:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise WorkerError(self._last_words())
        reply = json.loads(line)
        if "error" in reply:
            raise WorkerError(reply["error"])
        return reply

    def _last_words(self):
        code = self._process.wait()
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f"ended with code {code}: {last}"

    def close(self):
        """Ends the process: asks by closing its input, then insists."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()


class Team:
    """The processes of one contender, asked together as if they were one: it is as slow as its slowest."""

    def __init__(self, contender, threads=None):
        self.contender = contender
        self._ports = [_reserved_port() for _ in range(contender.processes)]
        machines = {"worker": [f"127.0.0.1:{sock.getsockname()[1]}" for sock in self._ports]}
        tasks = [{"type": "worker", "index": index} for index in range(contender.processes)]
        configs = [json.dumps({"cluster": machines, "task": task}) for task in tasks]
        variables = [{"TF_CONFIG": config, "TF_GRPC_REUSE_PORT": "1"} for config in configs]
        self._workers = [Worker(contender, threads, own) for own in variables]

    def ask(self, do, **arguments):
        """As `Worker.ask`; seconds and sizes are the largest."""
        with concurrent.futures.ThreadPoolExecutor(len(self._workers)) as pool:
            replies = list(pool.map(lambda worker: worker.ask(do, **arguments), self._workers))
        if do == "run":
            return {"seconds": [max(times) for times in zip(*(reply["seconds"] for reply in replies), strict=True)]}
        return {name: max(reply[name] for reply in replies) for name in replies[0] if replies[0][name] is not None}

    def close(self):
        """Ends all processes."""
        for part in (*self._workers, *self._ports):
            part.close()


def _reserved_port():
    """A socket on a free port: bound, not listening, so that it goes to none but programs that are told to share it."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", 0))
    return sock


def _environment(threads):
    """CPU only, the TensorFlow backend of Keras, no cache of compiled code, and a number of threads if wished."""
    variables = {
        "CUDA_VISIBLE_DEVICES": "-1",
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "TF_ENABLE_ONEDNN_OPTS": "1",  # for all of TensorFlow's contenders also where it is off by default
        "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1",
        "CI": "true",  # OpenVINO then tells no server that it was imported
    }
    if threads:
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
        variables.update(dict.fromkeys(names, str(threads)))
    return variables


def measure(contenders, task, rounds=10, seconds=2.0, threads=None, log=print):
    """Measures contenders at one task, in turns of about `seconds` or one step, in a new order every round.

    Args:
        contenders: list of `Contender`.
        task: `Task`.
        rounds: int. Turns of each contender.
        seconds: float. Length of a turn.
        threads: int or `None`: the frameworks' defaults.
        log: callable for lines of progress.

    Returns:
        A pair: a dict from the name of each contender to its raw results (`note`, or `rates` in images/s, one a
        round, with `first_step`, `memory`, `parameters`), and a dict from framework to its GEMM peak in FLOP/s.
    """
    results = take_turns((*contenders, *PEAKS), task, rounds, seconds, threads, log)
    peaks = {peak.name: _gemm_rate(peak, results.pop(peak.name)) for peak in PEAKS}
    return results, peaks


def take_turns(contenders, task, rounds, seconds, threads, log):
    """The raw results of `measure` by contender, without the peaks."""
    results, workers = {}, {}
    try:
        for contender in contenders:
            worker, results[contender.name] = _start(contender, task, threads, log)
            if worker:
                workers[contender.name] = worker
        order = random.Random(0)
        for number in range(rounds):
            log(f"round {number + 1} of {rounds}")
            for name in order.sample(list(workers), len(workers)):
                if not _turn(workers[name], results[name], task, seconds):
                    workers.pop(name).close()
        for name, worker in workers.items():
            with contextlib.suppress(WorkerError):
                results[name].update(worker.ask("memory"))
    finally:
        for worker in workers.values():
            worker.close()
    return results


def _start(contender, task, threads, log):
    """A worker that has done its first steps and its results so far, or `None` and the reason."""
    log(f"{task.label}, {task.precision}: starting {contender.name}")
    missing = missing_packages(contender)
    if missing:
        return None, {"note": f"not installed: {', '.join(missing)}"}
    worker = Team(contender, threads) if contender.processes > 1 else Worker(contender, threads)
    try:
        reply = worker.ask("prepare", contender=dataclasses.asdict(contender), task=dataclasses.asdict(task))
    except WorkerError as error:
        worker.close()
        return None, {"note": _one_line(error)}
    except BaseException:
        worker.close()
        raise
    return worker, {**reply, "rates": [], "best_step": reply["step"]}


def _turn(worker, result, task, seconds):
    """One turn: a quarter of the steps to warm up the caches, then the timed ones. Whether it succeeded."""
    steps = max(1, min(1000, round(seconds / result["step"])))
    try:
        times = worker.ask("run", warm=steps // 4, steps=steps)["seconds"]
    except WorkerError as error:
        result["note"] = _one_line(error)
        return False
    result["rates"].append(task.batch * len(times) / sum(times))
    result["best_step"] = min(result["best_step"], *times)
    return True


def _gemm_rate(peak, result):
    if "note" in result:
        return None
    return 2 * peak.options["size"] ** 3 / result["best_step"]


def _one_line(error, length=160):
    text = " ".join(str(error).split())
    return text if len(text) <= length else text[: length - 1] + "…"
