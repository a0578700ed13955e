"""Trains a model as its recipe says: `compile_model` defines the step, `fit` loads, trains, saves and resumes."""

import contextlib

import keras

from keras_vit.backend.xla_kernels import fused_training
from keras_vit.training.loop import callbacks
from keras_vit.training.loop.checkpoint import CHECKPOINT_FILE, previous_path
from keras_vit.training.loop.checkpoint_callback import CheckpointCallback, CheckpointWriter
from keras_vit.training.loop.preemption import StopRequest
from keras_vit.training.loop.resume import describe_resumption, resume
from keras_vit.training.loop.run_lock import locked
from keras_vit.training.optimizers.build import make_optimizer
from keras_vit.training.reports.progress_bar import ProgressBar
from keras_vit.training.tasks.distillation import trained_model
from keras_vit.training.tasks.losses import make_accuracy, make_loss
from keras_vit.training.tasks.segmentation import segmentation_objective


def compile_model(model, recipe, steps_per_epoch, compiler, smoothed_targets=False, optimizer=None):
    """Compiles a model with the loss, optimizer and metric of a recipe.

    This defines the training step, which `keras.Model.train_step` computes for every batch: the logits, the loss, its
    gradients, and `optimizer.apply`, which clips the gradients, accumulates them, updates the weights, decays them and
    updates their moving averages.

    Args:
        model: from images to logits; or a `Distiller` of one, or a `MaskedAutoencoder`, which has its own loss.
        recipe: `Recipe`. Targets have one column a class, so that mixed targets fit too.
        steps_per_epoch: int. Warmup and schedule count epochs.
        compiler: `xla`, `fused` or `plain`, from `choose_compiler`. `fused` must be passed to `fit` too.
        smoothed_targets: bool. Whether the dataset has already smoothed the labels, so that the loss must not. Default
            False.
        optimizer: that of another model with the same weights, such as a `Distiller` of it; `None` for a new one.

    Returns:
        `model`.

    Raises:
        ValueError: if the model ends in an activation: the loss needs logits.
    """
    if recipe.model.classifier_activation not in (None, "linear"):
        raise ValueError(
            "a recipe trains on logits; classifier_activation must be None. "
            f"Received: classifier_activation={recipe.model.classifier_activation!r}"
        )
    settings, objective = recipe.training, {}
    if recipe.segmentation:
        objective = segmentation_objective(recipe.model.num_classes, recipe.segmentation)
    elif not recipe.masking:
        objective["loss"] = make_loss(settings.loss, 0.0 if smoothed_targets else settings.label_smoothing)
        objective["metrics"] = [make_accuracy(recipe.data.multi_label)]
    if optimizer is None:
        optimizer = make_optimizer(
            recipe.optimizer, steps_per_epoch, settings.epochs, recipe.data.batch_size, trained_model(model)
        )
    model.compile(optimizer=optimizer, jit_compile=compiler == "xla", **objective)
    return model


def fit(model, recipe, dataset, steps_per_epoch, context, validation_data=None):
    """Trains to the end of the recipe; an interrupted run resumes at the step where it was saved.

    A run, also a finished one, may be resumed with another `training.epochs`, at least as many as it has started, and
    another `training.early_stopping`. The learning rate is then that of a run of the new length at this step: a cosine
    that had ended near 0 rises again.

    Args:
        model: compiled by `compile_model`; under a strategy with several replicas also prepared by
            `keras_vit.distribution.prepare`, which sums the gradients over the replicas before `optimizer.apply`.
        recipe: `Recipe`.
        dataset: callable from `(epoch, step)`, finished epochs and finished steps of the next one, to a dataset of all
            remaining batches, so that their order is that of an uninterrupted run.
        steps_per_epoch: int.
        context: `RunContext`. Its directory gets `checkpoint.npz` and `log.csv`; with `validation_data` also
            `best.weights.h5`, the weights (their averages, if the recipe evaluates those) of the epoch with the best
            validation accuracy. Averages that the run does not end with are saved in `average.weights.h5`.
        validation_data: dataset for the end of every epoch, or `None`. Never the test set, because early stopping
            selects by it.

    Returns:
        A dict: `history` (one dict for each epoch, `wall_seconds` since the start of the run), `seconds` (of all parts
        of the run, each up to its last save), `resumed_from` (epoch), `resumed_step` (step of the next epoch),
        `best_epoch` (or `None`), `code` (of every part of the run, see `record.code`), `earlier_epochs` (list of
        earlier values of `training.epochs`).

    Raises:
        ValueError: if the directory holds a run of another recipe, one that is running, or no readable checkpoint.
        RuntimeError: if the loss is not a number; the last finite checkpoint is kept. If another worker failed.
        OSError: if the last checkpoint cannot be saved. Earlier failures to save are warnings.
        KeyboardInterrupt, Preempted: if a signal asked the run to stop; the step is finished and saved first.
    """
    settings, workers = recipe.training, context.workers
    with locked(context.directory, workers), StopRequest() as stop, contextlib.ExitStack() as stack:
        # Load: weights, optimizer, random seeds, history, and the metrics of an unfinished epoch.
        checkpoint = resume(model, recipe, context)
        start = checkpoint.position
        for line in describe_resumption(recipe, checkpoint.state, steps_per_epoch, context.directory):
            context.log(line)

        # Save: a checkpoint after every epoch, within epochs as often as the recipe says, and when asked to stop.
        writer = stack.enter_context(contextlib.closing(CheckpointWriter(context.directory / CHECKPOINT_FILE)))
        saver = CheckpointCallback(
            writer,
            checkpoint,
            steps_per_epoch,
            stop,
            workers,
            save_every=(settings.save_steps, settings.save_minutes),
            validates=validation_data is not None,
        )
        active = _callbacks(recipe, context, saver)
        if workers.is_chief:
            active.append(ProgressBar(settings.epochs, steps_per_epoch, recipe.data.batch_size, first_step=start[1]))
        for callback in active:
            stack.callback(getattr(callback, "close", lambda: None))

        # Train: `compile_model` describes the step that Keras computes for every batch.
        stack.enter_context(fused_training() if context.compiler == "fused" else contextlib.nullcontext())
        if saver.position[1] == steps_per_epoch:
            _finish_epoch(model, saver.position[0], validation_data, active)
        if saver.position[1] < steps_per_epoch:
            epoch = saver.position[0]
            # After early stopping no epoch is left; `fit` then only assigns the averages.
            has_stalled = callbacks.is_stalled(saver.history, settings.early_stopping)
            model.fit(
                dataset(*saver.position),
                epochs=epoch if has_stalled else settings.epochs,
                initial_epoch=epoch,
                steps_per_epoch=steps_per_epoch,
                validation_data=validation_data,
                verbose=0,
                shuffle=False,
                callbacks=active,
            )
        return _finish(model, recipe, context, saver, start)


def _callbacks(recipe, context, saver):
    """The callbacks of a run, in the order in which they must see the end of an epoch."""
    settings, history, workers, directory = recipe.training, saver.history, context.workers, context.directory
    active = [keras.callbacks.TerminateOnNaN()]
    if saver.validates:
        active += [callbacks.EvaluateAverages()]
        active += [callbacks.SaveBestWeights(directory / callbacks.BEST_FILE, history, workers)]
    active += [saver]  # Adds the epoch to the history that the callbacks below read.
    if workers.is_chief:
        active += [callbacks.CSVLogger(directory / callbacks.LOG_FILE, history)]
    active += [callbacks.EarlyStopping(settings.early_stopping, history)]
    if settings.tensorboard and workers.is_chief:
        active += [callbacks.tensorboard(directory)]
    return active


def _finish_epoch(model, epoch, validation_data, active):
    """Validates an epoch whose steps an earlier part of the run has finished, and ends it."""
    callback_list = keras.callbacks.CallbackList(active, model=model)
    callback_list.on_epoch_begin(epoch)
    logs = {name: float(value) for name, value in model.get_metrics_result().items()}
    results = model.evaluate(validation_data, callbacks=callback_list, return_dict=True, verbose=0)
    callback_list.on_epoch_end(epoch, {**logs, **{f"val_{name}": value for name, value in results.items()}})


def _finish(model, recipe, context, saver, start):
    """Saves what is left to save, assigns the final weights, and returns the results of `fit`."""
    settings, history = recipe.training, saver.history
    if len(history) < settings.epochs and not callbacks.is_stalled(history, settings.early_stopping):
        saver.writer.flush()
        path = saver.writer.path
        raise RuntimeError(
            f"training stopped in epoch {len(history) + 1}: the loss is not a number. "
            + (f"The last finite checkpoint is {str(path)!r}" if path.exists() else "No checkpoint was saved before")
        )
    saver.finish()
    directory, workers = context.directory, context.workers
    if workers.is_chief:
        callbacks.write_log(directory / callbacks.LOG_FILE, history)
        previous_path(saver.writer.path).unlink(missing_ok=True)
    callbacks.save_averages(model, directory / callbacks.AVERAGE_FILE, workers)
    if settings.early_stopping is not None:
        with workers.broadcast_file(directory / callbacks.BEST_FILE) as path:
            trained_model(model).load_weights(path)
    best = callbacks.best_epoch(history)
    return {
        "history": history,
        "seconds": saver.seconds(),
        "resumed_from": start[0],
        "resumed_step": start[1],
        "best_epoch": None if best is None else best + 1,
        "code": saver.code,
        "earlier_epochs": saver.earlier_epochs,
    }
