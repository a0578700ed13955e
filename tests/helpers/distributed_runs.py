"""Runs functions on one device, on logical devices, and on workers in separate processes of this machine.

    python tests/helpers/distributed_runs.py MODULE FOLDER one cpu:2 workers:3

MODULE defines `cases(kind, folder)`, a dict of functions from a strategy to a dict of arrays; all workers share
the folder. Results are saved as `FOLDER/<kind>-<worker>/<case>.npz`. All processes are forked from this one, which has
imported TensorFlow without using it; that saves the time of the imports.
"""

import contextlib
import importlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import traceback

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
LIMIT = 240.0  # seconds for the processes of a kind


def run_cases(module, folder, kinds, limit=600):
    """Starts this file as a program.

    Args:
        module: str. Beside this file.
        folder: path.
        kinds: sequence of str.
        limit: float. Seconds, after which all processes are killed.

    Returns:
        A dict from kind to a list, one a worker, of dicts from case to a dict of arrays.

    Raises:
        RuntimeError: if one of the processes failed, with its output.
    """
    import numpy as np

    command = [sys.executable, __file__, module, str(folder), *kinds]
    # In its own session, so that its children can be killed too.
    process = subprocess.Popen(
        command, cwd=pathlib.Path(__file__).parents[1], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=limit)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        raise RuntimeError(output[-6000:])
    results = {kind: [] for kind in kinds}
    for kind in kinds:
        for path in sorted(folder.glob(f"{kind}-*")):
            results[kind].append({file.stem: dict(np.load(file)) for file in path.glob("*.npz")})
    return results


@contextlib.contextmanager
def cluster(workers):
    """Environment variables for a number of workers, on ports that stay reserved inside the context."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(workers)]
        for sock in sockets:
            # Bound but not listening: no other program gets the port, and the server of TensorFlow can share it.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(("127.0.0.1", 0))
        machines = {"worker": [f"127.0.0.1:{sock.getsockname()[1]}" for sock in sockets]}
        tasks = [{"type": "worker", "index": index} for index in range(workers)]
        configs = [json.dumps({"cluster": machines, "task": task}) for task in tasks]
        yield [{"TF_CONFIG": config, "TF_GRPC_REUSE_PORT": "1"} for config in configs]


def _run(module, folder, kind, name):
    """Runs all cases of a kind in this process."""
    import numpy as np

    from keras_vit.distribution import strategies as distribution

    folder.mkdir(parents=True)
    strategy = distribution.strategy(name)
    for case, function in module.cases(kind, folder.parent / "shared" / kind).items():
        begin = time.perf_counter(), time.process_time()
        arrays = function(strategy)
        wall, cpu = time.perf_counter() - begin[0], time.process_time() - begin[1]
        print(f"{folder.name} {case}: {wall:.1f} s, {cpu:.1f} s of the CPU", flush=True)
        np.savez(folder / f"{case}.npz", **arrays)


def _fork(module, folder, kind, name, variables):
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.environ.update(variables)
        _run(module, folder, kind, name)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _main(name, folder, *kinds):
    sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
    module = importlib.import_module(name)
    for kind in kinds:
        count = int(kind.partition(":")[2]) if kind.startswith("workers:") else 0
        strategy = "multi_worker" if count else kind
        with cluster(count) if count else contextlib.nullcontext([{}]) as environments:
            pids = {
                _fork(module, pathlib.Path(folder) / f"{kind}-{i}", kind, strategy, variables)
                for i, variables in enumerate(environments)
            }
            _wait(pids, kind)


def _wait(pids, kind):
    """Waits until all processes have ended; kills the others when one fails, because they would wait for it."""
    end = time.monotonic() + LIMIT
    while pids:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            time.sleep(0.05)
        pids -= {pid}
        if status or time.monotonic() > end:
            for other in pids:
                os.kill(other, signal.SIGKILL)
            sys.exit(f"{kind}: " + (f"a process ended with {status}" if status else f"no end within {LIMIT:.0f} s"))


if __name__ == "__main__":
    _main(*sys.argv[1:])
