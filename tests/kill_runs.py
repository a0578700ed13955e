"""Runs `keras_vit train` again and again, sends it signals at random moments, and prints how every part ended.

    python -m tests.kill_runs RECIPE DIRECTORY

One process imports everything and forks a child for every part of the run, which saves every second step. A line of the
output has the place of the last save and the exit code of the part, negative for a signal that it did not survive.
"""

import os
import pathlib
import random
import signal
import sys
import time

import keras

import keras_vit_cli
from keras_vit import cli, experiment  # noqa: F401 - before the fork
from keras_vit.training.saved_state import load

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGKILL)
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


def _child(recipe, directory, pipe):
    """A part of the run; never returns."""
    code = 1
    try:
        _tell_steps(pipe)
        arguments = ["train", recipe, "--out", directory, "--no-export", "--set", "training.save_steps=2"]
        code = keras_vit_cli.main(arguments)
    finally:
        os._exit(code)


def _part(recipe, directory, number, steps):
    """The exit code of a part that gets a signal in one of its first steps; `None`: no signal."""
    reads, writes = os.pipe()
    child = os.fork()
    if not child:
        _child(recipe, directory, writes)
    os.close(writes)
    signal.alarm(_SECONDS)  # Ends this program, and its child finds nobody to write to.
    seen = 0
    while number is not None and seen < steps and (got := os.read(reads, 1)):
        seen += len(got)
    if number is not None:
        time.sleep(random.uniform(0, 0.01))
        os.kill(child, number)
    while os.read(reads, 64):
        pass
    os.close(reads)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(recipe, directory):
    """Prints a line a part; the last part gets no signal."""
    random.seed(0)
    for number in (*SIGNALS, None):
        code = _part(recipe, directory, number, random.randint(2, 6))
        saved = load(pathlib.Path(directory) / "checkpoint.npz")
        place = (saved.state["epoch"], saved.state["step"]) if saved else (0, 0)
        print("part", *place, code, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
