"""The commands of `keras_vit`, one small function each; the arguments are in `keras_vit_cli`."""

import datetime
import pathlib

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

from keras_vit import experiment
from keras_vit.data import evaluation_dataset, load_source
from keras_vit.export import predict as saved_model_predict
from keras_vit.export import saved_model
from keras_vit.metadata import metadata, output_activation
from keras_vit.training import DataConfig, apply_overrides, record
from keras_vit.weights import from_checkpoint, save_weights
from keras_vit.zoo import decode_predictions, list_models

_CONSOLE = Console(highlight=False, soft_wrap=True)


def _say(text):
    _CONSOLE.print(text, markup=False)


def train(options):
    """Trains a recipe, evaluates it, exports it and asks the SavedModel."""
    if options.record and options.smoke:
        raise ValueError("a smoke run has no record. Received: --record --smoke")
    module = experiment.load_recipe(options.recipe)
    seed = [] if options.seed is None else [f"training.seed={options.seed}"]
    recipe = apply_overrides(module.recipe, [*options.overrides, *seed])
    recipe = recipe.smoke() if options.smoke else recipe
    record_path = _record_path(recipe)
    if options.record and record_path.exists():
        raise ValueError(f"a run record is never overwritten. Received: {str(record_path)!r}, which exists")
    directory = pathlib.Path(options.out or f"runs/{recipe.name}/seed{recipe.training.seed}")
    finished = experiment.run(recipe, directory, options.fresh, _say)
    _report(finished, module)
    if options.record:
        record.write_json(record_path, finished.record)
        _say(f"record: {record_path}")
    if not options.no_export:
        smoke = directory / "saved_model"
        target = options.export or (smoke if options.smoke else f"saved_models/{recipe.name}")
        experiment.export_and_ask(finished, target, _say)
    _say(f"files of the run: {finished.directory}")


def _report(finished, module):
    """A table of the run's accuracy, beside a baseline where the recipe has one."""
    evaluation = finished.evaluation
    rows = [(f"{finished.recipe.name}, seed {finished.recipe.training.seed}", evaluation["accuracy"])]
    if hasattr(module, "baseline") and finished.recipe.data == module.recipe.data:
        name, accuracy = module.baseline(*finished.splits)
        rows.append((name, accuracy))
        finished.record["baseline"] = {"name": name, "accuracy": accuracy}
    table = Table(title=f"{evaluation['split']}: {evaluation['examples']:,} images")
    table.add_column("model")
    table.add_column("accuracy", justify="right")
    for name, accuracy in rows:
        table.add_row(name, f"{accuracy:.4f}")
    _CONSOLE.print(table)
    _say(f"trained in {finished.record['wall_seconds']:.0f} s")


def _record_path(recipe):
    folder = pathlib.Path("recipes/results") / recipe.name
    return folder / f"{datetime.date.today().isoformat()}-seed{recipe.training.seed}.json"


def _load_model(path):
    if not str(path).endswith(".keras") or not pathlib.Path(path).is_file():
        raise ValueError(f"a model must be an existing .keras file. Received: {str(path)!r}")
    return keras.models.load_model(path)


def evaluate(options):
    """Measures loss and accuracy of a `.keras` model on a split of a data set."""
    config = DataConfig(
        name=options.data, folder=options.folder, batch_size=options.batch_size, train_split=options.split
    )
    source = load_source(config)
    model = _load_model(options.model)
    content = metadata(model)
    if content.labels is not None and content.labels != source.class_names:
        raise ValueError(
            f"the data set must have the classes of the model. Received: {source.class_names} for {content.labels}"
        )
    if content.config.num_classes != len(source.class_names):
        raise ValueError(
            "the data set must have as many classes as the model. "
            f"Received: {len(source.class_names)} for num_classes={content.config.num_classes}"
        )
    split = source.split(options.split, content.input_spec)
    dataset = evaluation_dataset(split, content.config.num_classes, content.input_spec, options.batch_size)
    model.compile(
        loss=keras.losses.CategoricalCrossentropy(from_logits=output_activation(model) is None),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
    )
    results = model.evaluate(dataset, return_dict=True, verbose=0)
    _say(f"{source.name}, {options.split}: {len(split):,} images, " + _numbers(results))


def _numbers(results):
    return ", ".join(f"{name} {float(value):.4f}" for name, value in results.items())


def predict(options):
    """Prints the best classes of images, by a SavedModel or a `.keras` model."""
    if str(options.model).endswith(".keras"):
        model = _load_model(options.model)
        images = np.stack([metadata(model).input_spec.load(path) for path in options.images])
        logits = model.predict(images, verbose=0)
        scores = logits if output_activation(model) else keras.ops.convert_to_numpy(keras.ops.softmax(logits))
        decoded = decode_predictions(scores, top=options.top, model=model)
        answers = [[(name, score) for _, name, score in row] for row in decoded]
    else:
        answers = saved_model_predict(options.model, options.images)
    for path, answer in zip(options.images, answers, strict=True):
        _say(f"{path}: " + ", ".join(f"{name} {score:.3f}" for name, score in answer[: options.top]))


def export(options):
    """Writes a `.keras` model as a SavedModel."""
    path = saved_model(_load_model(options.model), options.to, top_k=options.top_k, version=options.number)
    _say(f"exported: {path}")


def convert(options):
    """Writes a checkpoint in the layout of another source."""
    overrides = {} if options.num_heads is None else {"num_heads": options.num_heads}
    model = from_checkpoint(options.source, **overrides)
    save_weights(model, options.target, options.layout)
    _say(f"{options.source} written to {options.target} with the keys of {options.layout}")


def list(options):
    """Prints the names of the models that match a pattern."""
    for name in list_models(options.pattern):
        _say(name)
