"""`keras_vit check`: a table of the checks of a SavedModel."""

from rich.console import Console
from rich.table import Table

from keras_vit.export import check as check_saved_model
from keras_vit.zoo.create import load_model

_MARKS = {True: "[green]yes[/green]", False: "[red]NO[/red]", None: "-"}


def check(options):
    """Prints a row for every check.

    Args:
        options: `path`, `model` (a name or file, or `None`) and `images`.

    Raises:
        ValueError: if there is no SavedModel, or a check fails.
    """
    model = None if options.model is None else load_model(options.model)
    report = check_saved_model(options.path, model, options.images)
    table = Table(title=str(report.path), title_justify="left")
    for column in ("check", "passed", "finding"):
        table.add_column(column, overflow="fold")
    for result in report.results:
        # Escape brackets, which rich would read as markup.
        table.add_row(result.check, _MARKS[result.passed], result.finding.replace("[", r"\["))
    Console().print(table)
    if report.failed:
        names = ", ".join(result.check for result in report.failed)
        raise ValueError(
            f"every check must hold. Received: {len(report.failed)} of {len(report.results)} do not: {names}"
        )
