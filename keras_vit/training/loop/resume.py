"""Resumes a run: restores its checkpoint, compares the recipes and describes what happens."""

import os
import warnings

import keras

from keras_vit.config.recipe import upgrade_saved
from keras_vit.training.loop.callbacks import is_stalled
from keras_vit.training.loop.checkpoint import (
    CHECKPOINT_FILE,
    Checkpoint,
    describe_position,
    load_checkpoint,
    restore_variables,
)
from keras_vit.training.optimizers.build import make_schedule
from keras_vit.training.reports import run_record as record

# Recipe fields that a resumed run may change because they do not change its result.
_WITHOUT_EFFECT = {"training.save_steps", "training.save_minutes", "distribution.name", "data.service"}
# Recipe fields that decide when a run ends. They may change if that end is still ahead.
_LENGTH = {"training.epochs", "training.early_stopping"}


def resume(model, recipe, context):
    """Restores a model from the checkpoint in the directory of a run, if there is one.

    Args:
        model: compiled.
        recipe: `Recipe`.
        context: `RunContext`.

    Returns:
        The `Checkpoint` that the run starts from, its `state` updated for this part of the run; of a new run without a
        path.

    Raises:
        ValueError: if the checkpoint is of another recipe or model, or cannot be read.
    """
    workers, path, checkpoint = context.workers, context.directory / CHECKPOINT_FILE, None
    with workers.fail_together():
        if workers.is_chief and (checkpoint := load_checkpoint(path)):
            _check_same_recipe(checkpoint.state, recipe, context.directory)
            if checkpoint.path != path:  # The next save must not replace the only good file.
                os.replace(checkpoint.path, path)
    code = record.code()
    with workers.broadcast_file(path) as file:
        checkpoint = checkpoint or load_checkpoint(file)
    if checkpoint is None:
        new = {"epoch": 0, "step": 0, "history": [], "seconds": 0.0, "earlier_epochs": []}
        return Checkpoint({**new, "recipe": recipe.to_dict(), "code": [code]})
    with context.scope():
        restore_variables(model, checkpoint)
    checkpoint.values = []  # Frees their memory.
    state = checkpoint.state
    state["code"] = [*(version for version in state["code"] if version != code), code]
    old, new = (config["training"]["epochs"] for config in (state["recipe"], recipe.to_dict()))
    state["earlier_epochs"] = [*state.get("earlier_epochs", []), *([old] if old != new else [])]
    state["recipe"] = recipe.to_dict()
    return checkpoint


def describe_resumption(recipe, state, steps_per_epoch, directory):
    """Yields lines of text: the position that a run resumes at, and the effects of another length.

    Args:
        recipe: `Recipe`.
        state: dict, of the `Checkpoint` that `resume` returns.
        steps_per_epoch: int.
        directory: path.
    """
    settings, (epoch, step) = recipe.training, (state["epoch"], state["step"])
    if not epoch and not step:
        return
    yield f"resuming {directory} {describe_position(epoch, step)}"
    has_stalled = is_stalled(state["history"], settings.early_stopping)
    if has_stalled and epoch < settings.epochs:
        yield (
            f"the run has stopped early, after epoch {epoch}: the validation accuracy had not risen for "
            f"{settings.early_stopping} epochs. To continue, set training.early_stopping to None or a larger number"
        )
    earlier = state["earlier_epochs"]
    if earlier and earlier[-1] != settings.epochs and not has_stalled:
        finished_steps = epoch * steps_per_epoch + step
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # `compile_model` has already shown them.
            schedules = [
                make_schedule(recipe.optimizer, steps_per_epoch, epochs, recipe.data.batch_size)[0]
                for epochs in (earlier[-1], settings.epochs)
            ]
        old, new = (float(keras.ops.convert_to_numpy(schedule(finished_steps))) for schedule in schedules)
        yield (
            f"the length of the run changes from {earlier[-1]} to {settings.epochs} epochs: "
            f"{describe_position(epoch, step)} the learning rate changes from {old:.2g} to {new:.2g}"
        )


def _check_same_recipe(state, recipe, directory):
    saved, requested = _flatten(upgrade_saved(state["recipe"], recipe)), _flatten(recipe.to_dict())
    compared = {*saved, *requested} - _WITHOUT_EFFECT - _LENGTH
    changed = sorted(key for key in compared if saved.get(key) != requested.get(key))
    trained = state["epoch"] + (1 if state["step"] else 0)
    if not changed and requested["training.epochs"] < trained:
        raise ValueError(
            f"a resumed run needs at least as many epochs as it has started: pass --epochs {trained} or more, choose "
            "another directory (--out), or pass --overwrite. "
            f"Received: epochs={requested['training.epochs']}, {str(directory)!r} with {trained} epochs"
        )
    if changed:
        lines = "\n".join(f"  {key}: was {saved.get(key)!r}, is {requested.get(key)!r}" for key in changed)
        raise ValueError(
            "a resumed run must have the recipe of its checkpoint, except for training.epochs and "
            "training.early_stopping; choose another directory (--out), or pass --overwrite. "
            f"Received: {str(directory)!r} with\n{lines}"
        )


def _flatten(nested, prefix=""):
    flat = {}
    for key, value in nested.items():
        flat.update(_flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat
