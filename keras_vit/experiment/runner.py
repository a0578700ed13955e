"""Runs a recipe from its data to a trained, evaluated and recorded model."""

import contextlib
import dataclasses
import pathlib

import keras

from keras_vit.config import Recipe
from keras_vit.data import close_iterators
from keras_vit.data.sources.synthetic import NAME as SYNTHETIC
from keras_vit.distribution import strategies as distribution
from keras_vit.distribution.tf_config import read_tf_config
from keras_vit.distribution.worker_errors import raise_on_lost_worker
from keras_vit.experiment.datasets import evaluation_data, load_splits, open_source, reading_errors, training_data
from keras_vit.experiment.segmentation import evaluate_masks, save_masks
from keras_vit.models import build_model, merge_lora
from keras_vit.training import compile_model, fit, initial_model, make_autoencoder, make_distiller, trained_model
from keras_vit.training.loop.hardware import choose_compiler, choose_precision
from keras_vit.training.loop.run_context import RunContext, discard
from keras_vit.training.loop.run_lock import clear_directory, locked
from keras_vit.training.reports import plot
from keras_vit.training.reports import run_record as record
from keras_vit.training.tasks.losses import make_accuracy, make_loss
from keras_vit.weights import save_lora
from keras_vit.zoo.create import MODEL_FILE, load_model

LORA_FILE = "lora.safetensors"


@dataclasses.dataclass
class RunResult:
    """The results of a run.

    Args:
        recipe: the `Recipe`, adapted to its weights and data.
        model: the trained `keras.Model`.
        evaluation: dict with `split`, `examples`, `loss`, and for classifiers `accuracy`; of a segmentation that of
            `keras_vit.evaluation.evaluate_segmentation`.
        record: dict, the run record.
        splits: tuple: the training split and the evaluation split.
        directory: path with `checkpoint.npz`, `log.csv`, `model.keras`, `curve.png`, `record.json`; with a validation
            split also `best.weights.h5`; of a segmentation `report.json` and `masks.png`. With several workers it is
            that of the chief.
        is_chief: bool. Whether this process reports and exports, of several workers.
    """

    recipe: Recipe
    model: keras.Model
    evaluation: dict
    record: dict
    splits: tuple
    directory: pathlib.Path
    is_chief: bool = True


@raise_on_lost_worker()
def run(recipe, directory, overwrite=False, log=print, source=None):
    """Trains a recipe to its end and evaluates the model; an interrupted run resumes.

    Args:
        recipe: `Recipe`.
        directory: folder of the run, which holds one run at a time.
        overwrite: bool. Whether to discard an existing run in that folder instead of resuming it. Default False.
        log: callable for lines of text.
        source: `keras_vit.data.Source`, or `None` for the one that `recipe.data` names.

    Returns:
        `RunResult`.

    Raises:
        ValueError: on bad data or settings, see `keras_vit.data` and `keras_vit.training`; if another run uses the
            directory.
        RuntimeError, OSError, KeyboardInterrupt, Preempted: as `keras_vit.training.fit`; `Preempted` also if another
            worker is lost.
    """
    with open_context(recipe, directory, overwrite, log) as context, close_iterators():
        return _run(recipe, source, context)


def _run(recipe, source, context):
    recipe, splits = load_splits(recipe, source, context)
    data = training_data(recipe, splits.train, context)
    task = make_task(recipe, splits.class_names, data, context)
    # Only a validation split may select the best epoch; the test split is evaluated once, after the last one.
    validation = evaluation_data(recipe, splits.evaluation, context.strategy) if recipe.data.has_validation else None
    with reading_errors(recipe):
        result = fit(task, recipe, data.dataset, data.steps_per_epoch, context, validation)
    evaluation = {"split": splits.evaluation_name, **evaluate(task, recipe, splits.evaluation, context)}
    if recipe.segmentation and context.workers.is_chief:
        save_masks(task, recipe, splits, evaluation, context)
    return save_run(trained_model(task), recipe, splits, result, evaluation, context)


@contextlib.contextmanager
def open_context(recipe, directory, overwrite, log):
    """Makes the `RunContext` of a recipe, and holds the lock of its directory.

    Args:
        recipe, directory, overwrite, log: as for `run`.
    """
    if distribution.resolve_name(recipe.distribution.name) == "multi_worker":
        log(f"waiting for all workers: {', '.join(read_tf_config().workers)}")
    strategy = distribution.strategy(recipe.distribution.name)
    workers, device = distribution.make_workers(strategy), distribution.device_kind()
    context = RunContext(
        directory=pathlib.Path(directory),
        strategy=strategy,
        workers=workers,
        precision=choose_precision(recipe, device),
        compiler=choose_compiler(recipe, device, strategy.num_replicas_in_sync),
        log=log if workers.is_chief else discard,
    )
    with locked(context.directory, workers):
        with workers.fail_together():
            if overwrite and workers.is_chief:
                clear_directory(context.directory)
        yield context


def make_task(recipe, class_names, data, context):
    """Makes the compiled model that `fit` trains: a classifier, a `Distiller` of one, or a `MaskedAutoencoder`.

    Args:
        recipe: `Recipe`, adapted to its data.
        class_names: tuple of str.
        data: `TrainingData`.
        context: `RunContext`.
    """
    keras.utils.set_random_seed(recipe.training.seed)
    with context.scope():
        model = task = initial_model(recipe, class_names, context.precision)
        if recipe.distillation:
            task = make_distiller(model, _make_teacher(recipe), recipe.distillation)
        elif recipe.masking:
            task = make_autoencoder(model, recipe)
        compile_model(task, recipe, data.steps_per_epoch, context.compiler)
        if recipe.distillation:  # The student is saved with the optimizer that has trained it.
            compile_model(model, recipe, data.steps_per_epoch, context.compiler, optimizer=task.optimizer)
    distribution.prepare(task)
    replicas, workers = context.strategy.num_replicas_in_sync, context.workers.count
    context.log(
        f"model: {model.count_params():,} parameters, {context.precision}, compiler {context.compiler}, "
        f"{replicas} replica{'s' if replicas > 1 else ''} on {distribution.device_kind()}"
        + (f" of {workers} workers, data sharded by {data.sharding}" if workers > 1 else "")
    )
    return task


def _make_teacher(recipe):
    """The teacher that a recipe names; an untrained one in a smoke run."""
    if recipe.distillation.teacher is None:
        return build_model(recipe.model, recipe.input_spec, name="teacher")
    return load_model(recipe.distillation.teacher)


def evaluate(task, recipe, split, context):
    """Measures the loss, without label smoothing, and the accuracy over every example of a split.

    The last batch stays short instead of being padded, and Keras weights batches by their number of examples, so that
    every example counts once.

    Args:
        task: as `make_task` returns it, trained.
        recipe: `Recipe`.
        split: `Split`, `EncodedFiles` or `EncodedShards`.
        context: `RunContext`.

    Returns:
        A dict with `examples`, `loss`, and for classifiers `accuracy`; of a segmentation that of
        `keras_vit.experiment.segmentation.evaluate_masks`.
    """
    if recipe.segmentation:
        return evaluate_masks(task, recipe, split)
    workers, limit = context.workers, recipe.training.evaluation_steps
    evaluated, model = task, trained_model(task)
    if not recipe.masking:
        with context.scope():
            evaluated = keras.Model(model.inputs, model.outputs)  # Shares the weights; `model` stays compiled as it is.
            evaluated.compile(loss=make_loss(recipe.training.loss), metrics=[make_accuracy(recipe.data.multi_label)])
        distribution.prepare(evaluated)
    skipped = []
    with reading_errors(recipe):
        batches = evaluation_data(recipe, split, context.strategy, skipped)
        results = evaluated.evaluate(batches, return_dict=True, verbose=0)
    examples = len(split) - workers.all_reduce_sum(len(skipped))
    if limit:
        examples = min(examples, limit * -(-recipe.data.batch_size // workers.count) * workers.count)
    return {"examples": examples, **{name: float(value) for name, value in results.items()}}


def save_run(model, recipe, splits, result, evaluation, context):
    """Saves the model, the run record and the training curve.

    Args:
        model: the trained `keras.Model`.
        recipe: `Recipe`.
        splits: `Splits`.
        result: dict that `fit` has returned.
        evaluation: dict with `split`, `examples`, `loss` and `accuracy`.
        context: `RunContext`.

    Returns:
        `RunResult`.
    """
    directory, workers = context.directory, context.workers
    if recipe.lora:
        if workers.is_chief:
            save_lora(model, directory / LORA_FILE)
        model = merge_lora(model)
    with workers.replaced(directory / MODEL_FILE) as partial:
        model.save(partial)
    run_record = record.run_record(
        recipe,
        result,
        model,
        evaluation,
        precision=context.precision,
        compiler=context.compiler,
        strategy=distribution.resolve_name(recipe.distribution.name),
        **({"workers": workers.count} if workers.count > 1 else {}),
        data=splits.source,
        training_examples=len(splits.train),
        accelerators=distribution.accelerators(),
    )
    if workers.is_chief:
        record.write_json(directory / "record.json", run_record)
        plot.training_curve(run_record, directory / "curve.png", context.log)
    examples = splits.train, splits.evaluation
    return RunResult(recipe, model, evaluation, run_record, examples, directory, workers.is_chief)


def with_synthetic_fallback(recipe, log=print):
    """Replaces the data of a recipe by synthetic images if it is missing or would have to be downloaded.

    This lets every recipe have a smoke run on every machine.

    Args:
        recipe: `Recipe`.
        log: callable for lines of text.

    Returns:
        A `Recipe`.
    """
    data = dataclasses.replace(recipe.data, download=False)
    try:
        source = open_source(recipe.replace(data=data))
        if source.encoded is not None:
            source.encoded(data.train_split)
    except ValueError as error:
        log(f"using synthetic images: {error}")
        # A segmentation begins with a model without classes.
        names = recipe.segmentation.class_names if recipe.segmentation else None
        count = recipe.data.num_classes or len(names or "ab") if recipe.segmentation else recipe.model.num_classes
        synthetic = dict.fromkeys(data.exclusive) | {"name": SYNTHETIC, "num_classes": count}
        return recipe.replace(data=dataclasses.replace(recipe.data, **synthetic))
    return recipe
