"""`model.fit` as a recipe has it: compiled by the hardware, resumable, with one progress bar."""

import contextlib
import pathlib

import keras

from keras_vit.backend import fused_training
from keras_vit.training import checkpoint
from keras_vit.training.optimizers import adamw
from keras_vit.training.progress import ProgressBar


def choose_precision(recipe, device):
    """The dtype policy's name for a recipe on a kind of device, `cpu`, `gpu` or `tpu`.

    `auto` is float32 on CPUs and bfloat16 on accelerators.
    """
    wanted = recipe.training.precision
    if wanted != "auto":
        return wanted
    return "float32" if device == "cpu" else "mixed_bfloat16"


def choose_compiler(recipe, device, replicas):
    """How a recipe's training step is compiled: `xla`, `fused` or `plain`.

    On one replica, accelerators get all of the step as one XLA program, and CPUs the mixture of
    `keras_vit.backend.fused_training`, which is faster there (`benchmarks/results`). Several replicas get neither.
    """
    if recipe.training.compiler != "auto":
        return recipe.training.compiler
    if replicas > 1:
        return "plain"
    return "fused" if device == "cpu" else "xla"


def compile_model(model, recipe, steps_per_epoch, compiler):
    """Compiles a model with the loss, optimizer and metric of a recipe.

    Args:
        model: from images to logits.
        recipe: `Recipe`. Targets are one-hot rows, so that mixed ones fit too.
        steps_per_epoch: int.
        compiler: `xla`, `fused` or `plain`, from `choose_compiler`. `fused` also wants `fit` to know it.

    Returns:
        `model`.

    Raises:
        ValueError: if the model ends in an activation: the loss wants logits.
    """
    if recipe.model.classifier_activation not in (None, "linear"):
        raise ValueError(
            "a recipe trains on logits; classifier_activation must be None. "
            f"Received: classifier_activation={recipe.model.classifier_activation!r}"
        )
    model.compile(
        optimizer=adamw(recipe.optimizer, steps_per_epoch, recipe.training.epochs),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=recipe.training.label_smoothing),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
        jit_compile=compiler == "xla",
    )
    return model


def _check_same_recipe(state, recipe, directory):
    saved, wanted = _flatten(state["recipe"]), _flatten(recipe)
    changed = sorted(key for key in {*saved, *wanted} if saved.get(key) != wanted.get(key))
    if changed:
        lines = "\n".join(f"  {key}: was {saved.get(key)!r}, is {wanted.get(key)!r}" for key in changed)
        raise ValueError(
            "a run can only go on with the recipe it began with; choose another directory (--out) or start afresh "
            "(--fresh). "
            f"Received: {str(directory)!r} with\n{lines}"
        )


def _flatten(nested, prefix=""):
    flat = {}
    for key, value in nested.items():
        flat.update(_flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat


def fit(
    model,
    recipe,
    dataset,
    steps_per_epoch,
    directory,
    scope=contextlib.nullcontext,
    validation_data=None,
    compiler="plain",
):
    """Trains to the end of the recipe, going on where an interrupted run stopped.

    Args:
        model: compiled.
        recipe: `Recipe`.
        dataset: callable from the first epoch to a data set that yields all remaining ones, so that the order
            of the data is that of an uninterrupted run.
        steps_per_epoch: int.
        directory: where `checkpoint.npz` lives.
        scope: callable that gives the strategy's context manager.
        validation_data: data set for the end of every epoch, or `None`.
        compiler: as for `compile_model`.

    Returns:
        A dict: `history` (one dict an epoch), `seconds` (of all calls together, up to each one's last finished
        epoch), `resumed_from` (epoch).

    Raises:
        ValueError: if the directory holds a run of another recipe, or an unreadable checkpoint.
    """
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / checkpoint.FILE_NAME
    plain = recipe.to_dict()
    state = checkpoint.load_state(path)
    if state:
        _check_same_recipe(state, plain, directory)
        with scope():
            checkpoint.restore(path, model)
    state = state or {"epoch": 0, "history": [], "seconds": 0.0}
    first, history = state["epoch"], state["history"]
    saver = checkpoint.CheckpointCallback(path, plain, history, state["seconds"])
    epochs = recipe.training.epochs
    bar = ProgressBar(epochs, steps_per_epoch * recipe.data.batch_size)
    try:
        with fused_training() if compiler == "fused" else contextlib.nullcontext():
            model.fit(
                dataset(first),
                epochs=epochs,
                initial_epoch=first,
                steps_per_epoch=steps_per_epoch,
                validation_data=validation_data,
                verbose=0,
                shuffle=False,
                callbacks=[keras.callbacks.TerminateOnNaN(), saver, bar],
            )
    finally:
        bar.close()
    if len(history) < epochs:
        raise RuntimeError(
            f"training stopped in epoch {len(history) + 1}: the loss is not a number. "
            f"The state before it is in {str(path)!r}"
        )
    return {"history": history, "seconds": saver.seconds(), "resumed_from": first}
