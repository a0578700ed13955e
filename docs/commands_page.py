"""Fills docs/commands.md from the parser of the command line; no option gets there by hand.

python docs/commands_page.py           rewrite docs/commands.md
python docs/commands_page.py --check   exit with 1 if it is not what the parser says
"""

import argparse
import pathlib
import sys

from tables import rewrite

import keras_vit_cli

PAGE = pathlib.Path(__file__).with_name("commands.md")


def commands():
    """A section a command, with a table of its arguments and options."""
    parsers = keras_vit_cli._parser()._subparsers._group_actions[0].choices
    return "\n\n".join(_section(name, parser) for name, parser in parsers.items())


def _section(name, parser):
    rows = ["| argument | meaning |", "|---|---|"]
    for action in parser._actions:
        if not isinstance(action, argparse._HelpAction):
            rows.append(f"| {_name(action)} | {_cell(action.help)} |")
    return "\n".join([f"## {name}", "", parser.description, "", *rows])


def _name(action):
    """The words of an argument as they are typed."""
    if not action.option_strings:
        words = action.dest.upper() + (" ..." if action.nargs == "+" else "")
        return f"`[{words}]`" if action.nargs == "?" else f"`{words}`"
    flags = ", ".join(f"`{flag}`" for flag in action.option_strings)
    if action.nargs == 0:
        return flags
    value = action.metavar or "|".join(action.choices or [action.dest.upper()])
    return f"{flags} `{value}{' ...' if action.nargs == '+' else ''}`".replace("|", "\\|")


def _cell(text):
    """A text without what Markdown would take for its own."""
    return (text or "").replace("|", "\\|").replace("<", "\\<").replace("*", "\\*")


def main(arguments):
    """Rewrites or checks the page; returns the exit code."""
    return rewrite(PAGE, {"commands": commands()}, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
