"""Runs `keras_vit train` again and again, sends it signals at random moments, and prints how every part ended.

    python tests/helpers/kill_runs.py RECIPE FOLDER whole/2/- parts/2/1:KILL,0:KILL,01:KILL,1:TERM,-

Two runs here, of two workers each on this machine. In the first part of the second one the worker of number 1 gets
SIGKILL, in the next one the chief, then both; nobody in the last. One process imports everything and forks a child for
every worker of a part, which saves as the recipe says. A line of the output is JSON: the run; the place of the
last save, and as `saved` the steps of the run up to there; the steps up to where the chief began the part (`first`) and
those that it had begun at its end (`begun`); the exit codes, negative for a signal that was not survived; the seconds.
`FOLDER/parts/0` is the chief's folder, `FOLDER/parts/1` that of the other. A single worker has two replicas.

The chief begins a step when every save is done but one that the step before asked for, which a signal may meet: so a
part that is killed loses as many of the steps that were done as lie between two saves, at most.
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
import matplotlib.pyplot  # noqa: F401 - what a run imports, before the fork
import sklearn.datasets  # noqa: F401
from distributed_runs import cluster

import keras_vit_cli
from keras_vit.cli import commands as cli  # noqa: F401
from keras_vit.training import CheckpointCallback
from keras_vit.training.loop.checkpoint import load_checkpoint

_SECONDS = 120
_RECORD = struct.Struct("ii")


def _tell_steps(pipe):
    """Makes every `fit` write a record when a step begins: the steps of the run before it, and those of an epoch."""
    original = keras.Model.fit

    class Tell(keras.callbacks.Callback):
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
        return original(self, *arguments, **{**options, "callbacks": [Tell(saver), *options["callbacks"]]})

    keras.Model.fit = fit


def _child(recipe, folder, pipe, variables, is_chief):
    """A worker of a part of the run, with the environment of its cluster; never returns."""
    code = 1
    try:
        if is_chief:
            _tell_steps(pipe)
        os.environ.update(variables)
        strategy = "multi_worker" if variables else "cpu:2"
        arguments = ["train", recipe, "--out", folder, "--no-export"]
        arguments += ["--set", f"distribution.name={strategy}"]
        code = keras_vit_cli.main(arguments)
    finally:
        sys.stdout.flush()
        os._exit(code)


def _part(recipe, folder, count, victims, number):
    """What became of a part, of whose workers some get a signal in one of its first steps: see `_ended`."""
    with cluster(count) if count > 1 else contextlib.nullcontext([{}]) as environments:
        children, reads = _children(recipe, folder, environments)
        return _ended(children, reads, victims, number)


def _children(recipe, folder, environments):
    """The processes of the workers, and a pipe that gets a record for every step of the chief."""
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


def _ended(children, reads, victims, number):
    """The exit codes of processes, some of which get a signal, and the records that the chief has written."""
    signal.alarm(_SECONDS)  # Ends this program; who started it ends the children.
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
    """Prints a line a part."""
    random.seed(0)
    for run in runs:
        name, count, plan = run.split("/")
        for item in plan.split(","):
            victims, _, number = item.partition(":")
            victims, number = ([int(v) for v in victims], getattr(signal, f"SIG{number}")) if number else ([], None)
            begin = time.perf_counter()
            codes, records = _part(recipe, os.path.join(folder, name), int(count), victims, number)
            saved = load_checkpoint(pathlib.Path(folder) / name / "0" / "checkpoint.npz")
            epoch, step = (saved.state["epoch"], saved.state["step"]) if saved else (0, 0)
            (first, of_epoch), (last, _) = records[0], records[-1]
            told = {"run": name, "place": (epoch, step), "saved": epoch * of_epoch + step, "first": first}
            told |= {"begun": last + 1, "codes": codes, "seconds": round(time.perf_counter() - begin, 1)}
            print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
