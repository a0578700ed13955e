"""Runs a recipe from data to SavedModel: the glue of `training`, `data`, `distribution` and `export`."""

import dataclasses
import importlib.util
import pathlib
import shutil
import subprocess
import sys
import tempfile

import keras
from PIL import Image

from keras_vit import distribution
from keras_vit.data import evaluation_dataset, load_source, training_dataset
from keras_vit.data.sources import train_and_evaluation
from keras_vit.export import saved_model
from keras_vit.metadata import metadata
from keras_vit.models import build_model
from keras_vit.training import Recipe, compile_model, fit, plot, record
from keras_vit.training.run import choose_compiler, choose_precision
from keras_vit.validation import nearest

PACKAGE = pathlib.Path(__file__).parent
# Beside the package in a checkout, inside it when installed from a wheel.
RECIPES = PACKAGE.parent / "recipes" if (PACKAGE.parent / "setup.cfg").exists() else PACKAGE / "recipes"


def list_recipes():
    """Names of the recipes that come with the library."""
    return sorted(f.stem for f in RECIPES.glob("*.py"))


def load_recipe(name):
    """The module of a recipe.

    Args:
        name: path of a Python file, or the name of one of the library's recipes.

    Returns:
        The module; its `recipe` is a `Recipe`, and `baseline(train, test)`, where there is one, returns the name
        and the accuracy of something to compare with.

    Raises:
        ValueError: if there is no such file or it holds no recipe.
    """
    paths = [pathlib.Path(name), RECIPES / f"{name}.py"]
    path = next((p for p in paths if p.is_file()), None)
    if path is None:
        raise ValueError(
            f"unknown recipe{nearest(name, list_recipes())} Received: {name!r}, which is neither a file nor one of "
            f"{list_recipes()}"
        )
    spec = importlib.util.spec_from_file_location(f"keras_vit_recipe_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not isinstance(getattr(module, "recipe", None), Recipe):
        raise ValueError(f"a recipe file must define 'recipe', a keras_vit.training.Recipe. Received: {str(path)!r}")
    return module


@dataclasses.dataclass
class Run:
    """What `run` leaves behind.

    Args:
        recipe: the `Recipe` as it was resolved.
        model: the trained `keras.Model`.
        evaluation: dict with `split`, `examples`, `loss`, `accuracy`.
        record: dict, the run record.
        splits: the training and the evaluation `Split`.
        directory: path with `checkpoint.npz`, `model.keras`, `curve.png`, `record.json`.
    """

    recipe: Recipe
    model: keras.Model
    evaluation: dict
    record: dict
    splits: tuple
    directory: pathlib.Path


def run(recipe, directory, fresh=False, log=print):
    """Trains a recipe to its end, or goes on with an interrupted run, and evaluates it.

    Args:
        recipe: `Recipe`.
        directory: folder of the run.
        fresh: bool. Delete an earlier run in that folder.
        log: callable for lines of text.

    Returns:
        A `Run`.

    Raises:
        ValueError: on bad data or settings, see `keras_vit.data` and `keras_vit.training`.
    """
    directory = pathlib.Path(directory)
    if fresh and directory.exists():
        shutil.rmtree(directory)
    strategy = distribution.strategy(recipe.distribution.name)
    source = load_source(recipe.data)
    if (source_classes := len(source.class_names)) != recipe.model.num_classes:
        log(f"the model gets the {source_classes} classes of {source.name} instead of {recipe.model.num_classes}")
    recipe = recipe.for_data(source_classes, source.num_channels)
    train, test, split = train_and_evaluation(source, recipe.data, recipe.input_spec)
    log(f"data: {source.name}, {len(train):,} training images, {len(test):,} images in {split!r}")

    model, dataset, steps, compiler = _prepare(recipe, source, train, strategy, log)
    result = fit(model, recipe, dataset, steps, directory, strategy.scope, compiler=compiler)
    if result["resumed_from"]:
        log(f"went on after epoch {result['resumed_from']} of an earlier run in {directory}")
    evaluation = {"split": split, **_evaluate(model, recipe, test)}
    model.save(directory / "model.keras")
    run_record = record.run_record(recipe, result, model, evaluation, strategy=recipe.distribution.name)
    record.write_json(directory / "record.json", run_record)
    plot.training_curve(run_record, directory / "curve.png", log)
    return Run(recipe, model, evaluation, run_record, (train, test), directory)


def _prepare(recipe, source, train, strategy, log):
    """The compiled model, the callable that gives its data, the steps in an epoch, and how they are compiled."""
    replicas, device = strategy.num_replicas_in_sync, distribution.device_kind()
    precision = choose_precision(recipe, device)
    compiler = choose_compiler(recipe, device, replicas)
    settings = recipe.training
    keras.utils.set_random_seed(settings.seed)

    def dataset(first_epoch):
        return training_dataset(
            train,
            recipe.model.num_classes,
            recipe.input_spec,
            recipe.data.batch_size,
            settings.epochs,
            settings.seed,
            recipe.augment,
            first_epoch,
            settings.steps_per_epoch,
        )[0]

    steps = settings.steps_per_epoch or max(len(train) // recipe.data.batch_size, 1)
    with strategy.scope():
        model = build_model(recipe.model, recipe.input_spec, source.class_names, dtype=precision, name=recipe.name)
        compile_model(model, recipe, steps, compiler)
    log(
        f"model: {model.count_params():,} parameters, {precision}, compiler {compiler}, "
        f"{replicas} replica{'s' if replicas > 1 else ''} on {device}"
    )
    return model, dataset, steps, compiler


def _evaluate(model, recipe, split):
    """Loss and accuracy over every example of a split, as a dict."""
    batch_size, limit = recipe.data.batch_size, recipe.training.evaluation_steps
    split = split[: limit * batch_size] if limit else split
    dataset = evaluation_dataset(split, recipe.model.num_classes, recipe.input_spec, batch_size)
    results = model.evaluate(dataset, return_dict=True, verbose=0)
    return {"examples": len(split), **{name: float(value) for name, value in results.items()}}


def export_and_ask(finished, directory, log=print):
    """Exports a run and lets the SavedModel classify a test image in a fresh process.

    Args:
        finished: `Run`.
        directory: folder of the versions.
        log: callable for lines of text.

    Returns:
        The path of the version.
    """
    path = saved_model(finished.model, directory)
    _, test = finished.splits
    label = metadata(finished.model).labels[int(test.labels[0])]
    log(f"exported: {path}. A fresh process asks it about a test image of class {label!r}:")
    with tempfile.TemporaryDirectory() as folder:
        image = pathlib.Path(folder) / "image.png"
        pixels = test.images[0]
        Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(image)
        command = [sys.executable, "-m", "keras_vit_cli", "predict", str(image), "--model", str(path), "--top", "3"]
        answer = subprocess.run(command, capture_output=True, text=True)
    if answer.returncode:
        raise RuntimeError(f"the SavedModel could not classify the image: {answer.stderr.strip()}")
    log(answer.stdout.rstrip())
    return path
