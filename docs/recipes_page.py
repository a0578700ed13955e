"""Fills the table of docs/training.md from the recipes and their records; no setting gets there by hand.

python docs/recipes_page.py           rewrite docs/training.md
python docs/recipes_page.py --check   exit with 1 if it is not what the recipes say
"""

import json
import pathlib
import re
import statistics
import sys

from tables import ROOT, rewrite

from keras_vit.config.files import list_recipes, load_recipe_module
from keras_vit.config.recipe import RENAMED_FIELDS

PAGE = pathlib.Path(__file__).with_name("training.md")
RESULTS = ROOT / "recipes" / "results"
_SOURCES = ("tfrecords", "folder", "arrays", "name")


def table():
    """One row a recipe."""
    rows = [
        "| recipe | what | data | epochs x batch | optimizer | published | measured |",
        "|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*rows, *(_row(name) for name in list_recipes())])


def comparison():
    """Test accuracy of the points of `cnn_vs_vit`: a row a model, a column a part of the training set."""
    module = load_recipe_module("cnn_vs_vit")
    percents = [str(percent) for percent in module.PERCENTS]
    lines = [f"| model | {' | '.join(f'{percent} %' for percent in percents)} |", "|---" * (len(percents) + 1) + "|"]
    for model, name in module.NAMES.items():
        cells = [_measured(f"cnn_vs_vit_{model}_{percent}") for percent in percents]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def lengths():
    """Recipes at another length than their own (`recipe.py:epochs=N`): a row each, seed by seed."""
    lines = ["| recipe | epochs | seconds a run | seeds | mean |", "|---|---|---|---|---|"]
    for folder in sorted(RESULTS.glob("*_epochs")):
        name, count = re.fullmatch(r"(.+)_(\d+)_epochs", folder.name).groups()
        records = _records(folder.name)
        scores = [100 * record["test_accuracy"] for record in records]
        seconds = f"{statistics.median(record['process_seconds'] for record in records):,.0f}"
        cells = [f"`{name}`", count, seconds, ", ".join(f"{score:.2f} %" for score in scores)]
        lines.append(f"| {' | '.join(cells)} | {statistics.mean(scores):.2f} % |")
    return "\n".join(lines)


def ablation():
    """Validation accuracy of `vit_tiny_cifar10` with other choices, epoch by epoch."""
    record = json.loads((RESULTS / "vit_tiny_cifar10_ablation.json").read_text())
    count = max(row["epochs_planned"] for row in record["rows"])
    names = " | ".join(f"epoch {i + 1}" for i in range(count))
    lines = [f"| other than the recipe | {names} |", "|---" * (count + 1) + "|"]
    for row in record["rows"]:
        cells = [f"{100 * value:.1f} %" for value in row["val_accuracy"]]
        cells += [""] * (count - len(cells))
        what = ", ".join(f"`{_current_name(override)}`" for override in row["overrides"]) or "nothing"
        lines.append(f"| {what} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", record["procedure"]])


def _current_name(override):
    """Renames the field of a recorded override that had another name in version 0.1."""
    field, _, value = override.partition("=")
    section, _, name = field.rpartition(".")
    return f"{section}.{RENAMED_FIELDS.get(section, {}).get(name, name)}={value}"


def _row(name):
    module = load_recipe_module(name)
    recipe, what = module.recipe, module.__doc__.partition("\n")[0].rstrip(".")
    source = next(getattr(recipe.data, field) for field in _SOURCES if getattr(recipe.data, field))
    rate = f"{recipe.optimizer.learning_rate:g}"
    if recipe.optimizer.lr_base_size:
        rate += f" a {recipe.optimizer.lr_base_size} images"
    cells = [
        f"[`{name}`](../recipes/{name}.py)",
        what,
        f"`{source}`",
        f"{recipe.training.epochs} x {recipe.data.batch_size}",
        f"{recipe.optimizer.name} {rate}",
        _published(module.__doc__),
        _measured(recipe.name),
    ]
    return f"| {' | '.join(cells)} |"


def _published(text):
    """What a docstring expects by its paper: the percentages of the first clause behind `Expected`, with their words.

    Nothing where that clause names records of this library.
    """
    clause = re.search(r"Expected:?\s(.*?)(?:[.;]\s|\s\(|$)", text, re.DOTALL)
    words = " ".join(clause[1].split()).replace(" top-1", "") if clause else ""
    if "recipes/results" in words:
        return ""
    return ", ".join(part for part in words.split(", ") if re.search(r"\d\.\d+ %", part))


def _measured(name):
    found = [record["test_accuracy"] for record in _records(name)]
    if not found:
        return "not measured here"
    return f"{100 * statistics.mean(found):.1f} %, {len(found)} seed{'s' if len(found) > 1 else ''}"


def _records(name):
    records = [json.loads(path.read_text()) for path in sorted((RESULTS / name).glob("*.json"))]
    return [record for record in records if "test_accuracy" in record]


def fine_tuning():
    """A paragraph about the recorded run of `keras_vit finetune`, on four classes of CIFAR-10-JPEG."""
    record = json.loads((RESULTS / "finetune_folder.json").read_text())
    data, test, side = record["data"], record["test"], record["model"]["image_size"][0]
    epochs, seconds = record["settings"]["training"]["epochs"], record["processor_seconds"]
    head, kept = record["head"]["validation_accuracy"], record["validation"]["accuracy"]
    return "\n".join(
        [
            f"Measured (`recipes/results/finetune_folder.json`): {data['training_images']} training images of "
            f"CIFAR-10-JPEG, {', '.join(data['classes'])}, with",
            f"{record['weights']['origin']} (ViT-S/14) at {side} x {side} pixels, {epochs} epochs: "
            f"{test['accuracy']:.1%} of {test['examples']} test images, in {seconds:.0f} seconds",
            f"of processor time. The head alone was right in {head:.1%} of the validation images, the model that was "
            f"kept in {kept:.1%}.",
        ]
    )


PARTS = {
    "fine_tuning": fine_tuning,
    "recipes": table,
    "ablation": ablation,
    "lengths": lengths,
    "comparison": comparison,
}


def main(arguments):
    """Rewrites or checks the page; returns the exit code."""
    return rewrite(PAGE, {marker: part() for marker, part in PARTS.items()}, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
