"""What commands print."""

from rich.console import Console

CONSOLE = Console(highlight=False, soft_wrap=True)


def say(text):
    """Prints a line as it is: brackets are no markup, and nothing is broken."""
    CONSOLE.print(text, markup=False)
