"""The commands of `keras_vit`, one small function each; the arguments are in `keras_vit_cli`."""

import pathlib
import warnings

import keras
import tensorflow as tf
from rich.table import Table

from keras_vit.cli.check import check
from keras_vit.cli.console import CONSOLE, counted, say, warn
from keras_vit.cli.export import explain, export
from keras_vit.cli.finetune import finetune
from keras_vit.cli.list import list
from keras_vit.cli.predictor import check_head, check_no_limit, classifier, classify_files
from keras_vit.cli.publish import publish, rollback
from keras_vit.cli.recipes import show_recipe
from keras_vit.config import DataConfig, apply_overrides
from keras_vit.config.files import load_recipe_module
from keras_vit.data import evaluation_dataset, expected_end, iterators_end, load_source, plain_errors
from keras_vit.data.labels import check_not_empty
from keras_vit.data.sources.folder import ALL, find_image_folder
from keras_vit.data.unreadable import left_out
from keras_vit.distribution.strategies import check_device
from keras_vit.experiment import runner as experiment
from keras_vit.export.loaded_model import LoadedSavedModel
from keras_vit.export.saved_models import PREDICT_BATCH
from keras_vit.metadata import describe_front, metadata, output
from keras_vit.training.loop.preemption import raise_on_sigterm
from keras_vit.training.reports import run_record as record
from keras_vit.weights import save_weights
from keras_vit.weights.hub.catalog import imagenet_ids, read_labels
from keras_vit.zoo.create import is_saved_model, load_model
from keras_vit_client.image_files import find_images
from keras_vit_client.predictions import check_target, report

# Commands that are found here, and what `keras_vit_cli.main` asks beside them.
__all__ = [
    "check",
    "check_device",
    "convert",
    "evaluate",
    "explain",
    "export",
    "finetune",
    "list",
    "predict",
    "publish",
    "rollback",
    "show_recipe",
    "train",
]


@raise_on_sigterm()
def train(options):
    """Trains a recipe, evaluates it, exports it and asks the SavedModel."""
    if options.record and options.smoke:
        raise ValueError("a smoke run has no record. Received: --record --smoke")
    module = load_recipe_module(options.recipe)
    recipe = apply_overrides(module.recipe, options.overrides)
    if options.smoke:
        # A data set that somebody asked for must be there.
        asked_for = recipe.data != module.recipe.data
        recipe = recipe.smoke() if asked_for else experiment.with_synthetic_fallback(recipe.smoke(), say)
    record_path = record.record_path(recipe)
    if options.record and record_path.exists():
        raise ValueError(f"a run record is never overwritten. Received: {str(record_path)!r}, which exists")
    directory = pathlib.Path(options.out or f"runs/{recipe.name}/seed{recipe.training.seed}")
    finished = experiment.run(recipe, directory, options.fresh, say)
    if not finished.is_chief:
        return
    _report(finished, module)
    if options.record:
        record.write_json(record_path, record.without_folders(finished.record))
        say(f"record: {record_path}")
    if not options.no_export:
        smoke = directory / "saved_model"
        target = options.export or (smoke if options.smoke else f"saved_models/{recipe.name}")
        experiment.export_and_ask(finished, target, say)
    say(f"files of the run: {finished.directory}")


def _report(finished, module):
    """A table of the run's accuracy, or its loss, beside a baseline where the recipe has one."""
    evaluation = finished.evaluation
    measure = "accuracy" if "accuracy" in evaluation else "loss"
    rows = [(f"{finished.recipe.name}, seed {finished.recipe.training.seed}", evaluation[measure])]
    if measure == "accuracy" and hasattr(module, "baseline") and finished.recipe.data == module.recipe.data:
        name, accuracy = module.baseline(*finished.splits)
        rows.append((name, accuracy))
        finished.record["baseline"] = {"name": name, "accuracy": accuracy}
    table = Table(title=f"{evaluation['split']}: {evaluation['examples']:,} images")
    table.add_column("model")
    table.add_column(measure, justify="right")
    for name, value in rows:
        table.add_row(name, f"{value:.4f}")
    CONSOLE.print(table)
    say(f"trained in {finished.record['wall_seconds']:.0f} s")


def evaluate(options):
    """Measures loss and accuracy of a model on a split of a data set."""
    split_name = _split_name(options)
    config = DataConfig(
        name=options.data,
        folder=options.folder,
        batch_size=options.batch_size,
        train_split=split_name,
        data_dir=options.data_dir,
        skip_unreadable=options.skip_unreadable,
    )
    given = LoadedSavedModel(options.model) if is_saved_model(options.model) else load_model(options.model)
    content = given.metadata if isinstance(given, LoadedSavedModel) else metadata(given)
    names = [] if content.labels is None else [content.labels]
    source = load_source(config, [*names, imagenet_ids()] if names == [read_labels("imagenet1k")] else names)
    model, num_classes, gives_logits = _evaluated(given, source.class_names)
    _check_classes(content, num_classes, source)
    spec, skipped = content.input_spec, []
    # Arrays are in memory anyway.
    load = source.split if source.encoded is None else lambda name, spec: source.encoded(name)
    split, skip = load(split_name, spec), options.skip_unreadable and source.encoded is not None
    check_not_empty(len(split), source.name, split_name)
    batches = evaluation_dataset(split, num_classes, spec, options.batch_size, skip_unreadable=skip, skipped=skipped)
    model.compile(
        loss=keras.losses.CategoricalCrossentropy(from_logits=gives_logits),
        metrics=[
            keras.metrics.CategoricalAccuracy(name="accuracy"),
            # Of five classes one of the best five is always right.
            *([keras.metrics.TopKCategoricalAccuracy(5, name="top-5")] if num_classes > 5 else []),
            _Count(name="images"),
        ],
    )
    with iterators_end(), plain_errors(), expected_end(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* left out: ")  # they are listed below
        try:
            results = model.evaluate(batches, return_dict=True, verbose="auto" if CONSOLE.is_terminal else 0)
        except (ValueError, tf.errors.OpError):
            check_not_empty(len(split) - len(skipped), source.name, split_name)
            raise
    count = int(results.pop("images"))
    say(f"{source.name}, {split_name}: {count:,} images, " + _numbers(results))
    if skipped:
        warn(left_out(skipped, limit=None))


def _split_name(options):
    """The part of the data set to evaluate on: `--split`, else `test`; all of a folder whose images have no splits.

    Raises:
        ValueError: if no `--split` is given and the folder has splits, but no `test`.
    """
    if options.split or not options.folder:
        return options.split or "test"
    try:
        names = [*find_image_folder(options.folder, min_classes=1).splits]
    except ValueError:  # What is wrong with the folder is told where it is read.
        return "test"
    if names == [ALL]:
        return ALL
    if "test" not in names:
        raise ValueError(
            f"--split must name a part of the folder without a test split: --split {names[-1]}. "
            f"Received: no --split for {str(options.folder)!r}, which has {', '.join(names)}"
        )
    return "test"


def _evaluated(given, class_names):
    """The model that `evaluate` asks: of what a name or a file holds, or of a SavedModel.

    Returns:
        `(model with an output for every class, how many, whether it gives logits)`.
    """
    if isinstance(given, LoadedSavedModel):
        return given.keras_model(), given.num_classes, given.has_logits
    model, gives_probabilities = classifier(given, class_names)
    return model, max(output(given).units, 2), not gives_probabilities


class _Count(keras.metrics.Sum):
    """How many examples there were."""

    def update_state(self, y_true, y_pred, sample_weight=None):
        super().update_state(keras.ops.ones(keras.ops.shape(y_true)[0]))


def _check_classes(content, num_classes, source):
    """Raises a `ValueError` unless a data set has the classes of the model, by name or as WordNet ids."""
    names, labels = source.class_names, content.labels
    if labels is not None and labels != names and not (names == imagenet_ids() and labels == read_labels("imagenet1k")):
        raise ValueError(
            f"the data set must have the classes of the model. Received: {_some(names)} for {_some(labels)}"
        )
    if num_classes != len(names):
        raise ValueError(
            f"the data set must have as many classes as the model. Received: {len(names)} for num_classes={num_classes}"
        )


def _some(names):
    return f"{len(names)} classes, {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"


def _numbers(results):
    return ", ".join(f"{name} {float(value):.4f}" for name, value in results.items())


def predict(options):
    """Prints or writes the best classes of images, by a SavedModel or any model that `evaluate` takes."""
    check_target(options.to)
    images = find_images(options.images)
    if is_saved_model(options.model):
        check_no_limit(options.max_pixels)
        loaded = LoadedSavedModel(options.model)
        loaded.check_signature("strict", "classify encoded images")
        _warn_of_few_classes(loaded, options.top)

        def classify(files):
            starts = range(0, len(files), PREDICT_BATCH)
            return (loaded.classify(files[start : start + PREDICT_BATCH]) for start in starts)

    else:
        model = load_model(options.model)
        check_head(model)
        if front := describe_front(model):
            say(front)

        def classify(files):
            return classify_files(model, files, options.top, options.activation, max_pixels=options.max_pixels)

    with counted("images", len(images)) as advance:
        report(images, _counted(classify(images), advance), options.top, options.to, say)


def _counted(batches, advance):
    """The answers of batches one by one."""
    for answers in batches:
        yield from answers
        advance(len(answers))


def _warn_of_few_classes(loaded, top):
    """Says that a SavedModel has fewer classes in an answer than are asked for, and not because it knows no more."""
    scores = loaded.signatures["serving_default"].structured_outputs.get("scores")
    count = None if scores is None else scores.shape[-1]
    if count is not None and count < min(top, loaded.num_classes):
        warn(f"the SavedModel answers with its {count} best classes; one exported with --top-k {top} has more")


def convert(options):
    """Writes a model's weights in the layout of a source."""
    overrides = {} if options.num_heads is None else {"num_heads": options.num_heads}
    choice = {"skip": options.skip, "new": options.new, "prefix": options.prefix}
    model = load_model(options.source, **overrides, **{name: value for name, value in choice.items() if value})
    save_weights(model, options.target, options.layout)
    say(f"{options.source} written to {options.target} with the keys of {options.layout}")
