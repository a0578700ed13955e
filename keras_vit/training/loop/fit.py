"""`model.fit` as a recipe has it: resumable, logged, with one progress bar."""

import contextlib
import os
import pathlib
import warnings

import keras

from keras_vit.backend.xla_kernels import fused_training
from keras_vit.config.recipe import upgrade_saved
from keras_vit.training.loop import callbacks, checkpoint
from keras_vit.training.loop.checkpoint import Saved, describe, load, previous
from keras_vit.training.loop.checkpoint_callback import CheckpointCallback, Writer
from keras_vit.training.loop.preemption import StopRequest
from keras_vit.training.loop.run_lock import locked
from keras_vit.training.loop.workers import SINGLE_WORKER
from keras_vit.training.optimizers.build import make_optimizer, make_schedule
from keras_vit.training.reports import run_record as record
from keras_vit.training.reports.progress_bar import ProgressBar
from keras_vit.training.tasks.distillation import trained_model
from keras_vit.training.tasks.losses import make_accuracy, make_loss

# What a run may go on with otherwise than it began.
_OF_NO_EFFECT = {"training.save_steps", "training.save_minutes", "distribution.name", "data.service"}
# What decides when it ends, which may be moved as long as that lies ahead.
_OF_THE_END = {"training.epochs", "training.early_stopping"}


def compile_model(model, recipe, steps_per_epoch, compiler, smoothed_targets=False, optimizer=None):
    """Compiles a model with the loss, optimizer and metric of a recipe.

    Args:
        model: from images to logits, a `Distiller` of one, or a `MaskedAutoencoder`, which has a loss of its own.
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
    judged = {}
    if not recipe.masking:
        judged["loss"] = make_loss(settings.loss, 0.0 if smoothed_targets else settings.label_smoothing)
        judged["metrics"] = [make_accuracy(recipe.data.multi_label)]
    model.compile(
        optimizer=optimizer
        or make_optimizer(
            recipe.optimizer, steps_per_epoch, settings.epochs, recipe.data.batch_size, trained_model(model)
        ),
        jit_compile=compiler == "xla",
        **judged,
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
    workers=SINGLE_WORKER,
    log=None,
):
    """Trains to the end of the recipe, going on at the step where an interrupted run was saved.

    A run, also one that has ended, may go on with other `training.epochs`, at least as many as it has trained, and
    another `training.early_stopping`. From there on the learning rate is that of a run of the new length at this step,
    so where a cosine had ended near 0 it rises again.

    Args:
        model: compiled.
        recipe: `Recipe`.
        dataset: callable from the first epoch, and the steps of it that are left out, to a data set that yields all
            the rest, so that the order of the data is that of an uninterrupted run.
        steps_per_epoch: int.
        directory: where `checkpoint.npz` and `log.csv` live; with `validation_data` also `best.weights.h5`, the weights
            (their averages, where the recipe evaluates some) of the epoch with the best validation accuracy. Averages
            that the run does not end with are in `average.weights.h5`.
        scope: callable that gives the strategy's context manager.
        validation_data: data set for the end of every epoch, or `None`. Never the test set: it chooses.
        compiler: as for `compile_model`.
        workers: `Workers`, where several processes make the run: the directory is the chief's alone.
        log: callable for lines of text, or `None`.

    Returns:
        A dict: `history` (one dict an epoch, `wall_seconds` counted from the begin of the run), `seconds` (of all calls
        together, up to each one's last save), `resumed_from` (epoch), `resumed_step` (steps of the next epoch),
        `best_epoch` (or `None`), `code` (of every part of the run, see `record.code`), `earlier_epochs` (a list: the
        lengths that the run had before it got this one).

    Raises:
        ValueError: if the directory holds a run of another recipe or one that is running, or no readable checkpoint.
        RuntimeError: if the loss became something that is no number; the last good state is kept. If another worker
            failed.
        OSError: if the end of the run cannot be saved. Before, a save that fails is a warning.
        KeyboardInterrupt, Preempted: where a signal asked the run to end; it is saved at the end of the step.
    """
    directory = pathlib.Path(directory)
    with locked(directory, workers), StopRequest() as stop, contextlib.ExitStack() as stack:
        saved = _resume(model, recipe, directory, scope, workers)
        begin = saved.state["epoch"], saved.state["step"]
        if log is not None:
            for line in _resumed(recipe, saved.state, steps_per_epoch, directory):
                log(line)
        writer = stack.enter_context(contextlib.closing(Writer(directory / checkpoint.FILE_NAME)))
        settings, validates = recipe.training, validation_data is not None
        every = settings.save_steps, settings.save_minutes
        saver = CheckpointCallback(writer, saved, steps_per_epoch, stop, workers, every, validates)
        bar = ProgressBar(settings.epochs, steps_per_epoch, recipe.data.batch_size, first_step=begin[1])
        wanted = [*_callbacks(recipe, directory, saver, validates), *([bar] if workers.is_chief else [])]
        for callback in wanted:
            stack.callback(getattr(callback, "close", lambda: None))
        stack.enter_context(fused_training() if compiler == "fused" else contextlib.nullcontext())
        if saver.place[1] == steps_per_epoch:
            _validate(model, saver.place[0], validation_data, wanted)
        if saver.place[1] < steps_per_epoch:
            _train(model, recipe, dataset, steps_per_epoch, saver, validation_data, wanted)
        return _finished(model, recipe, directory, saver, begin)


def _train(model, recipe, dataset, steps_per_epoch, saver, validation_data, wanted):
    """All epochs that are left."""
    epoch, _ = saver.place
    # No more of a run that had stopped early: `fit` then only takes the averages over.
    is_stalled = callbacks.is_stalled(saver.history, recipe.training.early_stopping)
    model.fit(
        dataset(*saver.place),
        epochs=epoch if is_stalled else recipe.training.epochs,
        initial_epoch=epoch,
        steps_per_epoch=steps_per_epoch,
        validation_data=validation_data,
        verbose=0,
        shuffle=False,
        callbacks=wanted,
    )


def _validate(model, epoch, validation_data, wanted):
    """The end of an epoch that an earlier part of the run has trained, but not validated."""
    listed = keras.callbacks.CallbackList(wanted, model=model)
    listed.on_epoch_begin(epoch)
    logs = {name: float(value) for name, value in model.get_metrics_result().items()}
    found = model.evaluate(validation_data, callbacks=listed, return_dict=True, verbose=0)
    listed.on_epoch_end(epoch, {**logs, **{f"val_{name}": value for name, value in found.items()}})


def _finished(model, recipe, directory, saver, begin):
    """What `fit` returns, after everything is where it belongs."""
    settings, history = recipe.training, saver.history
    if len(history) < settings.epochs and not callbacks.is_stalled(history, settings.early_stopping):
        saver.writer.insist()
        path = saver.writer.path
        raise RuntimeError(
            f"training stopped in epoch {len(history) + 1}: the loss is not a number. "
            + (f"The state before it is in {str(path)!r}" if path.exists() else "Nothing had been saved before it")
        )
    saver.finish()
    _leave_files(model, directory, saver, settings.early_stopping is not None)
    best = callbacks.best_epoch(history)
    return {
        "history": history,
        "seconds": saver.seconds(),
        "resumed_from": begin[0],
        "resumed_step": begin[1],
        "best_epoch": None if best is None else best + 1,
        "code": saver.code,
        "earlier_epochs": saver.earlier_epochs,
    }


def _leave_files(model, directory, saver, ends_with_best):
    """What a run that has ended leaves beside its state; the model gets the weights that it ends with."""
    workers, best = saver.workers, directory / callbacks.BEST_FILE
    if workers.is_chief:
        callbacks.write_log(directory / callbacks.LOG_FILE, saver.history)
        previous(saver.writer.path).unlink(missing_ok=True)
    callbacks.save_averages(model, directory / callbacks.AVERAGE_FILE, workers)
    if ends_with_best:
        with workers.broadcast_file(best) as path:
            trained_model(model).load_weights(path)


def _callbacks(recipe, directory, saver, validates):
    """In the order in which they must see the end of an epoch."""
    settings, history, workers = recipe.training, saver.history, saver.workers
    wanted = [keras.callbacks.TerminateOnNaN()]
    if validates:
        best = directory / callbacks.BEST_FILE
        wanted += [callbacks.EvaluateAverages(), callbacks.SaveBestWeights(best, history, workers)]
    wanted += [saver, *([callbacks.CSVLogger(directory / callbacks.LOG_FILE, history)] if workers.is_chief else [])]
    wanted += [callbacks.EarlyStopping(settings.early_stopping, history)]
    if settings.tensorboard and workers.is_chief:
        wanted += [callbacks.tensorboard(directory)]
    return wanted


def _resume(model, recipe, directory, scope, workers):
    """What an earlier run left in the chief's directory, with the model filled from it, or the state of a new run."""
    path, saved = directory / checkpoint.FILE_NAME, None
    with workers.fail_together():
        if workers.is_chief and (saved := load(path)):
            _check_same_recipe(saved.state, recipe, directory)
            if saved.path != path:  # The next save must not push the only good one out.
                os.replace(saved.path, path)
    code = record.code()
    with workers.broadcast_file(path) as file:
        saved = saved or load(file)
    if saved is None:
        new = {"epoch": 0, "step": 0, "history": [], "seconds": 0.0, "earlier_epochs": []}
        return Saved({**new, "recipe": recipe.to_dict(), "code": [code]})
    with scope():
        checkpoint.fill(model, saved)
    saved.values = []  # They are large.
    saved.state["code"] = [*(part for part in saved.state["code"] if part != code), code]
    before, now = (content["training"]["epochs"] for content in (saved.state["recipe"], recipe.to_dict()))
    earlier = saved.state.get("earlier_epochs", [])
    saved.state["earlier_epochs"] = [*earlier, before] if before != now else earlier
    saved.state["recipe"] = recipe.to_dict()
    return saved


def _resumed(recipe, state, steps_per_epoch, directory):
    """Lines that tell where a run goes on, and what becomes of one that had another end."""
    settings, (epoch, step) = recipe.training, (state["epoch"], state["step"])
    if not epoch and not step:
        return
    yield f"going on {describe(epoch, step)} of an earlier run in {directory}"
    is_stalled = callbacks.is_stalled(state["history"], settings.early_stopping)
    if is_stalled and epoch < settings.epochs:
        yield (
            f"the run has stopped early, after epoch {epoch}: the validation accuracy had not risen for "
            f"{settings.early_stopping} epochs. To train on, set training.early_stopping to None or a larger number"
        )
    earlier = state["earlier_epochs"]
    if earlier and earlier[-1] != settings.epochs and not is_stalled:
        done = epoch * steps_per_epoch + step
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # `compile_model` has told them.
            schedules = [
                make_schedule(recipe.optimizer, steps_per_epoch, epochs, recipe.data.batch_size)[0]
                for epochs in (earlier[-1], settings.epochs)
            ]
        old, new = (float(keras.ops.convert_to_numpy(schedule(done))) for schedule in schedules)
        yield (
            f"a run of {earlier[-1]} epochs becomes one of {settings.epochs}: {describe(epoch, step)} the learning "
            f"rate is that of {settings.epochs} epochs, {new:.2g} where it was {old:.2g}"
        )


def _check_same_recipe(state, recipe, directory):
    saved, wanted = _flatten(upgrade_saved(state["recipe"], recipe)), _flatten(recipe.to_dict())
    free = _OF_NO_EFFECT | _OF_THE_END
    changed = sorted(key for key in {*saved, *wanted} - free if saved.get(key) != wanted.get(key))
    trained = state["epoch"] + (1 if state["step"] else 0)
    if not changed and wanted["training.epochs"] < trained:
        raise ValueError(
            f"a run can get more epochs, not fewer than it has begun; give at least --epochs {trained}, choose another "
            "directory (--out) or pass --overwrite. "
            f"Received: epochs={wanted['training.epochs']}, {str(directory)!r} with {trained} epochs"
        )
    if changed:
        lines = "\n".join(f"  {key}: was {saved.get(key)!r}, is {wanted.get(key)!r}" for key in changed)
        raise ValueError(
            "a run can only go on with the recipe it began with, of which only training.epochs and "
            "training.early_stopping may change; choose another directory (--out) or pass --overwrite. "
            f"Received: {str(directory)!r} with\n{lines}"
        )


def _flatten(nested, prefix=""):
    flat = {}
    for key, value in nested.items():
        flat.update(_flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat
