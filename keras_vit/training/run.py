"""`model.fit` as a recipe has it: resumable, logged, with one progress bar."""

import contextlib
import pathlib

import keras

from keras_vit.fused import fused_training
from keras_vit.training import callbacks, checkpoint, record
from keras_vit.training.distillation import trained_model
from keras_vit.training.losses import make_accuracy, make_loss
from keras_vit.training.make_optimizer import make_optimizer
from keras_vit.training.progress import ProgressBar


def compile_model(model, recipe, steps_per_epoch, compiler, smoothed_targets=False, optimizer=None):
    """Compiles a model with the loss, optimizer and metric of a recipe.

    Args:
        model: from images to logits, or a `Distiller` of one.
        recipe: `Recipe`. Targets are rows of one number a class, so that mixed ones fit too.
        steps_per_epoch: int.
        compiler: `xla`, `fused` or `plain`, from `choose_compiler`. `fused` also wants `fit` to know it.
        smoothed_targets: bool. Whether the targets come with the label smoothing in them, so that the loss must not
            smooth them again. Default False.
        optimizer: the one of another model of the same weights, such as a `Distiller` of it. `None`: a new one.

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
    settings = recipe.training
    model.compile(
        optimizer=optimizer
        or make_optimizer(
            recipe.optimizer, steps_per_epoch, settings.epochs, recipe.data.batch_size, trained_model(model)
        ),
        loss=make_loss(settings.loss, 0.0 if smoothed_targets else settings.label_smoothing),
        metrics=[make_accuracy(recipe.data.multi_label)],
        jit_compile=compiler == "xla",
    )
    return model


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
        directory: where `checkpoint.npz` and `log.csv` live; with `validation_data` also `best.weights.h5`, the weights
            (their averages, where the recipe evaluates some) of the epoch with the best validation accuracy. Averages
            that the run does not end with are in `average.weights.h5`.
        scope: callable that gives the strategy's context manager.
        validation_data: data set for the end of every epoch, or `None`. Never the test set: it chooses.
        compiler: as for `compile_model`.

    Returns:
        A dict: `history` (one dict an epoch, `wall_seconds` counted from the begin of the run), `seconds` (of all calls
        together, up to each one's last finished epoch), `resumed_from` (epoch), `best_epoch` (or `None`), `code` (of
        every part of the run, see `record.code`).

    Raises:
        ValueError: if the directory holds a run of another recipe, or an unreadable checkpoint.
        RuntimeError: if the loss became something that is no number; the last good state is kept.
    """
    directory, code = pathlib.Path(directory), record.code()
    directory.mkdir(parents=True, exist_ok=True)
    state = _resume(model, recipe, directory, scope)
    first, history, patience = state["epoch"], state["history"], recipe.training.early_stopping
    code = [*(part for part in state.get("code", ()) if part != code), code]
    saver = checkpoint.CheckpointCallback(
        directory / checkpoint.FILE_NAME, recipe.to_dict(), history, state["seconds"], code
    )
    epochs = recipe.training.epochs
    bar = ProgressBar(epochs, steps_per_epoch, recipe.data.batch_size)
    try:
        with fused_training() if compiler == "fused" else contextlib.nullcontext():
            model.fit(
                dataset(first),
                # No more of a run that had stopped early: `fit` then only takes the averages over.
                epochs=first if callbacks.is_stalled(history, patience) else epochs,
                initial_epoch=first,
                steps_per_epoch=steps_per_epoch,
                validation_data=validation_data,
                verbose=0,
                shuffle=False,
                callbacks=[*_callbacks(recipe, directory, saver, validation_data is not None), bar],
            )
    finally:
        bar.close()
    if len(history) < epochs and not callbacks.is_stalled(history, patience):
        raise RuntimeError(
            f"training stopped in epoch {len(history) + 1}: the loss is not a number. "
            + (f"The state before it is in {str(saver.path)!r}" if history else "No epoch had ended before it")
        )
    callbacks.save_averages(model, directory / callbacks.AVERAGE_FILE)
    if patience is not None:
        trained_model(model).load_weights(directory / callbacks.BEST_FILE)
    best = callbacks.best_epoch(history)
    return {
        "history": history,
        "seconds": saver.seconds(),
        "resumed_from": first,
        "best_epoch": None if best is None else best + 1,
        "code": code,
    }


def _callbacks(recipe, directory, saver, validates):
    """In the order in which they must see the end of an epoch."""
    settings, history = recipe.training, saver.history
    wanted = [keras.callbacks.TerminateOnNaN()]
    if validates:
        wanted += [callbacks.EvaluateAverages(), callbacks.KeepBest(directory / callbacks.BEST_FILE, history)]
    wanted += [saver, callbacks.WriteLog(directory / callbacks.LOG_FILE, history)]
    wanted += [callbacks.StopEarly(settings.early_stopping, history)]
    return [*wanted, callbacks.tensorboard(directory)] if settings.tensorboard else wanted


def _resume(model, recipe, directory, scope):
    """The state that an earlier run left in a directory, with the model filled from it, or that of a new run."""
    path = directory / checkpoint.FILE_NAME
    state = checkpoint.load_state(path)
    if not state:
        return {"epoch": 0, "history": [], "seconds": 0.0}
    _check_same_recipe(state, recipe.to_dict(), directory)
    with scope():
        checkpoint.restore(path, model)
    return state


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
