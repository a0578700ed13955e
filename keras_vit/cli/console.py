"""Console output of commands."""

import contextlib
import sys

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

CONSOLE = Console(highlight=False, soft_wrap=True)


def say(text):
    """Prints a line verbatim, without markup or wrapping."""
    CONSOLE.print(text, markup=False)


def warn(text):
    """Prints a warning on standard error."""
    print(f"keras_vit: {text}", file=sys.stderr)


@contextlib.contextmanager
def counted(description, total):
    """Returns a context with a progress bar on a terminal, below the lines that `say` prints.

    Args:
        description: str.
        total: int. Nothing is shown for a single one.

    Yields:
        A callable that adds a number to what is done.
    """
    # The bar goes to the terminal even if lines go to a file.
    console = CONSOLE if CONSOLE.is_terminal else Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=total < 2 or not console.is_terminal) as progress:
        task = progress.add_task(description, total=total)
        yield lambda count: progress.advance(task, count)
