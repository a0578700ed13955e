"""Runs `keras_vit train` repeatedly, sends it signals at random moments, and prints the end of each part.

    python tests/helpers/kill_runs.py RECIPE FOLDER whole/2/- parts/2/1:KILL,0:KILL,01:KILL,1:TERM,-

This example has two runs of two workers each. In the first part of the second run, worker 1 gets SIGKILL; in the next
part the chief, then both, then worker 1 SIGTERM; in the last part no signal is sent. One process imports everything and
forks a child for each worker of a part. Each line of output is JSON: the run; the `position` of its last checkpoint and
as `saved` its number of steps; the steps before the chief started the part (`first`) and those that it had started at
the end (`started`); the exit codes, negative for a signal that killed the process; the seconds. `FOLDER/parts/0` is the
folder of the chief, `FOLDER/parts/1` that of the other worker. A single worker has two replicas.

The chief starts a step when every checkpoint is written, except that of the step before, which a signal may interrupt:
a killed part loses at most the steps between two checkpoints.
"""

import contextlib
import json
import os
import pathlib
import random
import signal
import struct
import sys
import time

import keras
import matplotlib.pyplot  # noqa: F401 - imported by a run, here before the fork
import sklearn.datasets  # noqa: F401
from distributed_runs import cluster

import keras_vit_cli
from keras_vit.cli import commands as cli  # noqa: F401
from keras_vit.training import CheckpointCallback
from keras_vit.training.loop.checkpoint import load_checkpoint

_SECONDS = 120
_RECORD = struct.Struct("ii")


def _report_steps(pipe):
    """Makes `fit` write a record at the start of each step: the steps of the run before it, and those of an epoch."""
    original = keras.Model.fit

    class Report(keras.callbacks.Callback):
        def __init__(self, saver):
            super().__init__()
            self.saver = saver

        def on_train_batch_begin(self, batch, logs=None):
            epoch, step = self.saver.position
            of_epoch = self.saver.steps_per_epoch
            os.write(pipe, _RECORD.pack(epoch * of_epoch + step, of_epoch))
            while self.saver.writer.is_busy():
                time.sleep(0.001)

    def fit(self, *arguments, **options):
        (saver,) = (callback for callback in options["callbacks"] if isinstance(callback, CheckpointCallback))
        return original(self, *arguments, **{**options, "callbacks": [Report(saver), *options["callbacks"]]})

    keras.Model.fit = fit


def _child(recipe, folder, pipe, variables, is_chief):
    """Runs one worker of a part, with the environment variables of its cluster; never returns."""
    code = 1
    try:
        if is_chief:
            _report_steps(pipe)
        os.environ.update(variables)
        strategy = "multi_worker" if variables else "cpu:2"
        arguments = ["train", recipe, "--out", folder, "--no-export"]
        arguments += ["--set", f"distribution.name={strategy}"]
        code = keras_vit_cli.main(arguments)
    finally:
        sys.stdout.flush()
        os._exit(code)


def _part(recipe, folder, count, victims, number):
    """Runs a part, some workers of which get a signal in one of its first steps; see `_wait`."""
    with cluster(count) if count > 1 else contextlib.nullcontext([{}]) as environments:
        children, reads = _children(recipe, folder, environments)
        return _wait(children, reads, victims, number)


def _children(recipe, folder, environments):
    """Starts the processes of the workers; returns them and a pipe with a record for each step of the chief."""
    reads, writes = os.pipe()
    children = []
    for index, variables in enumerate(environments):
        child = os.fork()
        if not child:
            os.close(reads)
            _child(recipe, os.path.join(folder, str(index)), writes, variables, index == 0)
        children.append(child)
    os.close(writes)
    return children, reads


def _wait(children, reads, victims, number):
    """Sends signals to some processes; returns the exit codes of all, and the records of the chief."""
    signal.alarm(_SECONDS)  # Ends this program; its caller ends the children.
    steps, records = random.randint(4, 6), []
    while len(records) < steps and (record := os.read(reads, _RECORD.size)):
        records.append(_RECORD.unpack(record))
    time.sleep(random.uniform(0, 0.01))
    for victim in victims:
        os.kill(children[victim], number)
    while record := os.read(reads, _RECORD.size):
        records.append(_RECORD.unpack(record))
    os.close(reads)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children], records


def main(recipe, folder, *runs):
    """Prints a line for each part."""
    random.seed(0)
    for run in runs:
        name, count, plan = run.split("/")
        for item in plan.split(","):
            victims, _, number = item.partition(":")
            victims, number = ([int(v) for v in victims], getattr(signal, f"SIG{number}")) if number else ([], None)
            start = time.perf_counter()
            codes, records = _part(recipe, os.path.join(folder, name), int(count), victims, number)
            saved = load_checkpoint(pathlib.Path(folder) / name / "0" / "checkpoint.npz")
            epoch, step = (saved.state["epoch"], saved.state["step"]) if saved else (0, 0)
            (first, of_epoch), (last, _) = records[0], records[-1]
            result = {"run": name, "position": (epoch, step), "saved": epoch * of_epoch + step, "first": first}
            result |= {"started": last + 1, "codes": codes, "seconds": round(time.perf_counter() - start, 1)}
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
