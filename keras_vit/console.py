"""What commands print."""

import sys

from rich.console import Console

CONSOLE = Console(highlight=False, soft_wrap=True)


def say(text):
    """Prints a line as it is: brackets are no markup, and nothing is broken."""
    CONSOLE.print(text, markup=False)


def warn(text):
    """Tells on standard error what a command has to say beside its answer."""
    print(f"keras_vit: {text}", file=sys.stderr)
