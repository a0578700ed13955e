"""Runs a recipe from data to SavedModel: the glue of `training`, `data`, `distribution` and `export`."""

import contextlib
import dataclasses
import pathlib
import subprocess
import sys
import tempfile

import keras
from PIL import Image

from keras_vit.config import Recipe
from keras_vit.config.from_weights import follow_weights
from keras_vit.data import expected_end, iterators_end, load_source, plain_errors, train_and_evaluation
from keras_vit.data.sources.synthetic import NAME as INVENTED
from keras_vit.distribution import strategies as distribution
from keras_vit.distribution.tf_config import read_tf_config
from keras_vit.distribution.worker_errors import raise_on_lost_worker
from keras_vit.experiment.datasets import evaluation_data, training_data
from keras_vit.export import saved_model
from keras_vit.metadata import has_classifier, metadata, output_activation
from keras_vit.models import build_model
from keras_vit.training import compile_model, fit, initial_model, make_autoencoder, make_distiller, trained_model
from keras_vit.training.loop.hardware import choose_compiler, choose_precision
from keras_vit.training.loop.run_lock import empty, locked
from keras_vit.training.reports import plot
from keras_vit.training.reports import run_record as record
from keras_vit.training.tasks.losses import make_accuracy, make_loss
from keras_vit.zoo.create import MODEL_FILE, load_model


@dataclasses.dataclass
class Run:
    """What `run` leaves behind.

    Args:
        recipe: the `Recipe` as it was resolved.
        model: the trained `keras.Model`.
        evaluation: dict with `split`, `examples`, `loss`, and `accuracy` where there are classes.
        record: dict, the run record.
        splits: the training and the evaluation `Split`.
        directory: path with `checkpoint.npz`, `log.csv`, `model.keras`, `curve.png`, `record.json`; with a validation
            part also `best.weights.h5`. Several workers of a run name the chief's.
        is_chief: bool. Whether this process is the one of several workers that reports and exports.
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
    """Trains a recipe to its end, or goes on with an interrupted run, and evaluates it.

    Args:
        recipe: `Recipe`.
        directory: folder of the run, which holds one run at a time.
        overwrite: bool. Delete an earlier run in that folder.
        log: callable for lines of text.
        source: `keras_vit.data.Source` or `None`: the one that `recipe.data` names.

    Returns:
        A `Run`.

    Raises:
        ValueError: on bad data or settings, see `keras_vit.data` and `keras_vit.training`; if another run is at work in
            the directory.
        RuntimeError, OSError, KeyboardInterrupt, Preempted: as `keras_vit.training.fit`; `Preempted` also where another
            worker is gone.
    """
    directory = pathlib.Path(directory)
    if distribution.resolved(recipe.distribution.name) == "multi_worker":
        log(f"waiting for all workers: {', '.join(read_tf_config().workers)}")
    strategy = distribution.strategy(recipe.distribution.name)
    workers = distribution.workers(strategy)
    with locked(directory, workers):
        with workers.fail_together():
            if overwrite and workers.is_chief:
                empty(directory)
        with iterators_end():
            return _run(recipe, directory, strategy, workers, log if workers.is_chief else _say_nothing, source)


def _say_nothing(text):
    """What the others of several workers log: the chief says the same."""


def _run(recipe, directory, strategy, workers, log, source):
    for turn in (True, False):  # The chief first: others find what it has downloaded or cached.
        with workers.fail_together():
            if workers.is_chief is turn:
                recipe = follow_weights(recipe)
                source = source or load_source(recipe.data)
                recipe = _for_data(recipe, source, log)
                train, test, split = train_and_evaluation(source, recipe.data, recipe.input_spec, recipe.augment)
    log(f"data: {source.name}, {len(train):,} training images, {len(test):,} images in {split!r}")

    trainer, dataset, steps, how = _prepare(recipe, source, train, strategy, workers, log)
    # The test set chooses nothing; a validation part may.
    judge = evaluation_data(recipe, test, strategy) if recipe.data.validates else None
    with plain_errors(), _ends_of(recipe):
        scope, compiler = strategy.scope, how["compiler"]
        result = fit(trainer, recipe, dataset, steps, directory, scope, judge, compiler, workers, log)
    model = trained_model(trainer)
    evaluation = {"split": split, **_evaluate(trainer, recipe, test, strategy, workers)}
    with workers.replaced(directory / MODEL_FILE) as partial:
        model.save(partial)
    how |= {"data": source.name, "training_examples": len(train)}
    how["accelerators"] = distribution.accelerators()
    run_record = record.run_record(recipe, result, model, evaluation, **how)
    if workers.is_chief:
        record.write_json(directory / "record.json", run_record)
        plot.training_curve(run_record, directory / "curve.png", log)
    return Run(recipe, model, evaluation, run_record, (train, test), directory, workers.is_chief)


def _for_data(recipe, source, log):
    """The recipe, its model fitted to a source."""
    source_classes = len(source.class_names)
    is_classifier = not recipe.masking and not recipe.data.multi_label
    if is_classifier and source_classes < 2:
        raise ValueError(
            "a classifier needs at least two classes: with one, every answer is right and nothing is learned. "
            f"Received: {source.name!r} with the classes {source.class_names}"
        )
    if source_classes != recipe.model.num_classes:
        log(f"the model gets the {source_classes} classes of {source.name} instead of {recipe.model.num_classes}")
    return recipe.for_data(source_classes, source.num_channels)


def with_synthetic_fallback(recipe, log=print):
    """The recipe itself, or with invented images where its data set would have to be downloaded or is missing.

    For smoke runs: every recipe can be tried on any machine.
    """
    data = dataclasses.replace(recipe.data, download=False)
    try:
        source = load_source(data)
        if source.encoded is not None:
            source.encoded(data.train_split)
    except ValueError as error:
        log(f"invented images instead of the data set: {error}")
        only = dict.fromkeys(data.exclusive) | {"name": INVENTED, "num_classes": recipe.model.num_classes}
        return recipe.replace(data=dataclasses.replace(recipe.data, **only))
    return recipe


def _prepare(recipe, source, train, strategy, workers, log):
    """The compiled model, the callable that gives its data, the steps in an epoch, and how they are computed."""
    replicas, device = strategy.num_replicas_in_sync, distribution.device_kind()
    precision = choose_precision(recipe, device)
    compiler = choose_compiler(recipe, device, replicas)
    keras.utils.set_random_seed(recipe.training.seed)
    dataset, steps, sharding = training_data(recipe, train, strategy, workers)
    with strategy.scope():
        model = initial_model(recipe, source.class_names, precision)
        teach, trainer = recipe.distillation, model
        if teach:
            trainer = make_distiller(model, _teacher(recipe), teach)
        elif recipe.masking:
            trainer = make_autoencoder(model, recipe)
        compile_model(trainer, recipe, steps, compiler)
        if teach:  # The student is evaluated on its own, and saved with the optimizer that has trained it.
            compile_model(model, recipe, steps, compiler, optimizer=trainer.optimizer)
    distribution.prepare(trainer)
    log(
        f"model: {model.count_params():,} parameters, {precision}, compiler {compiler}, "
        f"{replicas} replica{'s' if replicas > 1 else ''} on {device}"
        + (f" of {workers.count} workers, data divided by {sharding}" if workers.count > 1 else "")
    )
    how = {"precision": precision, "compiler": compiler, "strategy": distribution.resolved(recipe.distribution.name)}
    return trainer, dataset, steps, how | ({"workers": workers.count} if workers.count > 1 else {})


def _teacher(recipe):
    """The teacher that a recipe names; an untrained one in a smoke run."""
    if recipe.distillation.teacher is None:
        return build_model(recipe.model, recipe.input_spec, name="teacher")
    return load_model(recipe.distillation.teacher)


def _ends_of(recipe):
    """A context for data sets whose length nobody knows, as that of an evaluation that leaves unreadable images out."""
    return expected_end() if recipe.data.skip_unreadable else contextlib.nullcontext()


def _evaluate(trainer, recipe, split, strategy, workers):
    """Loss, without label smoothing, and accuracy over every example of a split, as a dict; loss alone without classes.

    The last batch stays short instead of being filled up, and Keras weighs batches by their examples: each counts once.
    """
    skipped, limit = [], recipe.training.evaluation_steps
    judged, model = trainer, trained_model(trainer)
    if not recipe.masking:
        with strategy.scope():
            judged = keras.Model(model.inputs, model.outputs)  # Of the same weights; `model` stays compiled as it was.
            judged.compile(loss=make_loss(recipe.training.loss), metrics=[make_accuracy(recipe.data.multi_label)])
        distribution.prepare(judged)
    with plain_errors(), _ends_of(recipe):
        batches = evaluation_data(recipe, split, strategy, skipped)
        results = judged.evaluate(batches, return_dict=True, verbose=0)
    count = len(split) - workers.all_reduce_sum(len(skipped))
    step = -(-recipe.data.batch_size // workers.count) * workers.count
    count = min(count, limit * step) if limit else count
    return {"examples": count, **{name: float(value) for name, value in results.items()}}


def export_and_ask(finished, directory, log=print):
    """Exports a run and lets the SavedModel classify a test image in a fresh process.

    Args:
        finished: `Run`.
        directory: folder of the versions.
        log: callable for lines of text.

    Returns:
        The path of the version.
    """
    # What was trained for several labels an image has no one best class.
    activation = "sigmoid" if finished.recipe.data.multi_label and output_activation(finished.model) is None else None
    path = saved_model(finished.model, directory, activation=activation)
    if not has_classifier(finished.model):
        log(f"exported: {path}, which gives embeddings")
        return path
    _, test = finished.splits
    pixels, number = test.example(finished.recipe.input_spec)
    label = metadata(finished.model).labels[int(number.argmax() if number.ndim else number)]
    log(f"exported: {path}. A fresh process asks it about a test image of class {label!r}:")
    with tempfile.TemporaryDirectory() as folder:
        image = pathlib.Path(folder) / "image.png"
        Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(image)
        command = [sys.executable, "-m", "keras_vit_cli", "predict", str(image), "--model", str(path), "--top", "3"]
        answer = subprocess.run(command, capture_output=True, text=True)
    if answer.returncode:
        raise RuntimeError(f"the SavedModel could not classify the image: {answer.stderr.strip()}")
    log(answer.stdout.rstrip())
    return path
