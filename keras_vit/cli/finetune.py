"""`keras_vit finetune`: fine-tunes a pretrained model on a folder of images."""

import shlex

from rich.table import Table

from keras_vit.cli.console import CONSOLE, say
from keras_vit.experiment.fine_tuning import fine_tune
from keras_vit.training.loop.preemption import raise_on_sigterm


@raise_on_sigterm()
def finetune(options):
    """Fine-tunes a model, prints its metrics for each class, and the next commands."""
    finished = fine_tune(
        options.model,
        options.folder,
        image_size=options.image_size,
        validation_fraction=options.validation_fraction,
        head_only=options.head_only,
        lora=options.lora,
        class_weights=options.class_weights,
        skip=options.skip,
        new=options.new,
        prefix=options.prefix,
        overrides=options.overrides,
        directory=options.out,
        overwrite=options.overwrite,
        log=say,
    )
    report, directory = finished.report, finished.directory
    for split in ("validation", "test"):
        if split in report:
            CONSOLE.print(_table(split, report[split]))
    say(f"kept: {'the head on frozen features' if report['kept'] == 'head' else report['kept']}")
    say(f"trained in {report['seconds']:.0f} s; {directory}: " + ", ".join(_files(directory)))
    license, origin = report["weights"]["license"], report["weights"]["origin"]
    if license:
        say(f"license: the weights of {origin} are under {license}, and so is what was trained from them")
    else:
        say(f"license: {origin} does not state one; look it up before you pass the model on")
    say("next:")
    for command in (
        ("predict", finished.example, "--model", str(directory)),
        ("explain", finished.example, "--model", str(directory), "--to", str(directory / "explained")),
        ("export", str(directory), "--to", f"saved_models/{directory.name}"),
    ):
        say("  " + shlex.join(["keras_vit", *command]))


def _table(split, report):
    """Builds a table with a row for each class."""
    title = f"{split}: {report['examples']:,} images, {report['accuracy']:.1%} right"
    table = Table(title=title, title_justify="left")
    for column, justify in (("class", "left"), ("images", "right"), ("recall", "right"), ("precision", "right")):
        table.add_column(column, justify=justify)
    table.add_column("most often taken for")
    for row in report["classes"]:
        rates = ("-" if row[key] is None else f"{row[key]:.1%}" for key in ("recall", "precision"))
        mistake = "" if row["taken_for"] is None else "{} ({})".format(*row["taken_for"])
        table.add_row(row["name"], f"{row['examples']:,}", *rates, mistake)
    return table


def _files(directory):
    names = ("model.keras", "report.json", "report.md", "confusion.png", "curve.png")
    return [name for name in names if (directory / name).exists()]
