"""`keras_vit train`: trains a recipe, evaluates it and exports it."""

import pathlib
import subprocess
import sys
import tempfile

from PIL import Image
from rich.table import Table

from keras_vit.cli.console import CONSOLE, say
from keras_vit.config import apply_overrides
from keras_vit.config.files import load_recipe_module
from keras_vit.experiment import runner as experiment
from keras_vit.export import saved_model, segment_files, segmentation_model
from keras_vit.metadata import has_classifier, metadata, output_activation
from keras_vit.training.loop.preemption import raise_on_sigterm
from keras_vit.training.reports import run_record as record


@raise_on_sigterm()
def train(options):
    """Trains a recipe, evaluates it, exports it and tests the SavedModel on one image."""
    if options.record and options.smoke:
        raise ValueError("a smoke run has no record; leave out one of the two. Received: --record --smoke")
    module = load_recipe_module(options.recipe)
    recipe = apply_overrides(module.recipe, options.overrides)
    if options.smoke:
        # A data set that the command line names must exist.
        data_is_named = recipe.data != module.recipe.data
        recipe = recipe.smoke() if data_is_named else experiment.with_synthetic_fallback(recipe.smoke(), say)
    record_path = record.record_path(recipe)
    if options.record and record_path.exists():
        raise ValueError(f"a run record is never overwritten. Received: {str(record_path)!r}, which exists")
    directory = pathlib.Path(options.out or f"runs/{recipe.name}/seed{recipe.training.seed}")
    finished = experiment.run(recipe, directory, options.overwrite, say)
    if not finished.is_chief:
        return
    _report(finished, module)
    if options.record:
        record.write_json(record_path, record.without_folders(finished.record))
        say(f"record: {record_path}")
    if not options.no_export:
        default = directory / "saved_model" if options.smoke else f"saved_models/{recipe.name}"
        export_and_smoke_test(finished, options.export or default, say)
    say(f"files of the run: {finished.directory}")


def _report(finished, module):
    """Prints a table of the run's accuracy, or its loss, beside a baseline if the recipe has one."""
    evaluation = finished.evaluation
    measure = next(name for name in ("mean_iou", "accuracy", "loss") if name in evaluation)
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


def export_and_smoke_test(finished, directory, log=print):
    """Exports a run and classifies a test image with the SavedModel in a new process.

    Args:
        finished: `keras_vit.experiment.runner.RunResult`.
        directory: folder of the versions.
        log: callable for lines of text.

    Returns:
        The path of the version.

    Raises:
        RuntimeError: if the SavedModel cannot classify the image.
    """
    if finished.recipe.segmentation:
        return _export_segmentation(finished, directory, log)
    # A model trained with several labels per image has no single best class.
    activation = "sigmoid" if finished.recipe.data.multi_label and output_activation(finished.model) is None else None
    path = saved_model(finished.model, directory, activation=activation)
    if not has_classifier(finished.model):
        log(f"exported: {path}, which returns embeddings")
        return path
    _, test = finished.splits
    pixels, target = test.example(finished.recipe.input_spec)
    label = metadata(finished.model).labels[int(target.argmax() if target.ndim else target)]
    log(f"exported: {path}. It classifies a test image of class {label!r} in a new process:")
    with tempfile.TemporaryDirectory() as folder:
        image = pathlib.Path(folder) / "image.png"
        Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(image)
        command = [sys.executable, "-m", "keras_vit_cli", "predict", str(image), "--model", str(path), "--top-k", "3"]
        answer = subprocess.run(command, capture_output=True, text=True)
    if answer.returncode:
        raise RuntimeError(f"the SavedModel could not classify the image: {answer.stderr.strip()}")
    log(answer.stdout.rstrip())
    return path


def _export_segmentation(finished, directory, log):
    """Exports a segmentation model and segments a test image with it."""
    path = segmentation_model(finished.model, directory, window_stride=finished.recipe.segmentation.window_stride)
    _, test = finished.splits
    _, data, _ = next(iter(test.examples()))
    with tempfile.TemporaryDirectory() as folder:
        image = pathlib.Path(folder) / "image"
        image.write_bytes(data)
        (mask,) = segment_files(path, [image])
    names = metadata(finished.model).labels
    shares = {name: float((mask == number).mean()) for number, name in enumerate(names)}
    best = sorted(shares, key=shares.get, reverse=True)[:3]
    answer = ", ".join(f"{name} {shares[name]:.1%}" for name in best)
    log(f"exported: {path}. In a test image of {mask.shape[0]} x {mask.shape[1]} pixels it finds {answer}")
    return path
