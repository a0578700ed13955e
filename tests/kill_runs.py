"""Runs `keras_vit train` again and again, sends it signals at random moments, and prints how every part ended.

    python -m tests.kill_runs RECIPE FOLDER whole/2/- parts/2/1:KILL,0:KILL,01:KILL,1:TERM,-

Two runs here, of two workers each on this machine. In the first part of the second one the worker of number 1 gets
SIGKILL, in the next one the chief, then both; nobody in the last. One process imports everything and forks a child for
every worker of a part, which saves every second step. A line of the output is JSON: the run, the place of the last
save, the exit codes of the part, negative for a signal that was not survived, and its seconds. `FOLDER/parts/0` is the
chief's folder, `FOLDER/parts/1` that of the other. A single worker has two replicas.
"""

import contextlib
import json
import os
import pathlib
import random
import signal
import sys
import time

import keras
import matplotlib.pyplot  # noqa: F401 - what a run imports, before the fork
import sklearn.datasets  # noqa: F401

import keras_vit_cli
from keras_vit import cli  # noqa: F401
from keras_vit.training.saved_state import load
from tests.distributed_runs import cluster

_SECONDS = 120


def _tell_steps(pipe):
    """Makes every `fit` write a byte when a step begins."""
    original = keras.Model.fit

    class Tell(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            os.write(pipe, b".")

    def fit(self, *arguments, **options):
        return original(self, *arguments, **{**options, "callbacks": [Tell(), *options["callbacks"]]})

    keras.Model.fit = fit


def _child(recipe, folder, pipe, variables):
    """A worker of a part of the run, with the environment of its cluster; never returns."""
    code = 1
    try:
        _tell_steps(pipe)
        os.environ.update(variables)
        strategy = "multi_worker" if variables else "cpu:2"
        arguments = ["train", recipe, "--out", folder, "--no-export"]
        arguments += ["--set", "training.save_steps=2", "--set", f"distribution.name={strategy}"]
        code = keras_vit_cli.main(arguments)
    finally:
        sys.stdout.flush()
        os._exit(code)


def _part(recipe, folder, count, victims, number):
    """The exit codes of a part, of whose workers some get a signal in one of its first steps."""
    with cluster(count) if count > 1 else contextlib.nullcontext([{}]) as environments:
        children, reads = _children(recipe, folder, environments)
        return _ended(children, reads, victims, number)


def _children(recipe, folder, environments):
    """The processes of the workers, and a pipe that gets a byte a step."""
    reads, writes = os.pipe()
    children = []
    for index, variables in enumerate(environments):
        child = os.fork()
        if not child:
            os.close(reads)
            _child(recipe, os.path.join(folder, str(index)), writes, variables)
        children.append(child)
    os.close(writes)
    return children, reads


def _ended(children, reads, victims, number):
    """The exit codes of processes, some of which get a signal."""
    signal.alarm(_SECONDS)  # Ends this program; who started it ends the children.
    steps = random.randint(2, 4) * len(children)
    while victims and steps and (got := os.read(reads, 1)):
        steps -= len(got)
    time.sleep(random.uniform(0, 0.01))
    for victim in victims:
        os.kill(children[victim], number)
    while os.read(reads, 64):
        pass
    os.close(reads)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def main(recipe, folder, *runs):
    """Prints a line a part."""
    random.seed(0)
    for run in runs:
        name, count, plan = run.split("/")
        for item in plan.split(","):
            victims, _, number = item.partition(":")
            victims, number = ([int(v) for v in victims], getattr(signal, f"SIG{number}")) if number else ([], None)
            begin = time.perf_counter()
            codes = _part(recipe, os.path.join(folder, name), int(count), victims, number)
            saved = load(pathlib.Path(folder) / name / "0" / "checkpoint.npz")
            place = (saved.state["epoch"], saved.state["step"]) if saved else (0, 0)
            told = {"run": name, "place": place, "codes": codes, "seconds": round(time.perf_counter() - begin, 1)}
            print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
