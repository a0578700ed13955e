"""`keras_vit train RECIPE --help`: the description and all fields of a recipe."""

import dataclasses
import inspect
import re
import textwrap
import types
import typing

from keras_vit.cli.console import say
from keras_vit.config import Recipe, apply_overrides
from keras_vit.config.files import load_recipe_module
from keras_vit.config.overrides import find_fields

_WIDTH = 110


def show_recipe(options):
    """Prints a recipe's docstring and its fields with types, values and defaults.

    Args:
        options: `recipe` and `overrides` as for the command `train`; values are those that it would train with.

    Raises:
        ValueError: if there is no such recipe, or an override does not fit.
    """
    module = load_recipe_module(options.recipe)
    recipe = apply_overrides(module.recipe, options.overrides)
    say(f"{recipe.name}: {module.__file__}\n")
    if module.__doc__:
        say(inspect.cleandoc(module.__doc__) + "\n")
    if make := getattr(module, "make_recipe", None):
        values = {
            p.name: "..." if p.default is None else p.default for p in inspect.signature(make).parameters.values()
        }
        arguments = ",".join(f"{name}={value}" for name, value in values.items())
        say(f"Variants: {options.recipe.partition(':')[0]}:{arguments}\n")
    say("Fields, as `--set FIELD=VALUE` takes them, with their types and the values of this recipe:\n")
    for line in field_lines(recipe):
        say(line)
    say(
        "\nShort for some of them: --epochs, --lr, --batch-size, --seed. "
        "Options of the command: `keras_vit train --help`"
    )


def find_recipe_fields(name):
    """Finds the full paths of recipe fields of this name, see `keras_vit.config.overrides.find_fields`."""
    return find_fields(Recipe, name)


def field_lines(config, prefix=""):
    """Describes the fields of a dataclass and of those in it.

    Args:
        config: an instance, or a class, of which the defaults are shown.
        prefix: str, in front of the names, such as `optimizer.`.

    Returns:
        A list of str: for each field a line of its name, type and value, and lines of its description.
    """
    kind = config if isinstance(config, type) else type(config)
    hints, described = typing.get_type_hints(kind), descriptions(kind)
    lines = []
    for field in dataclasses.fields(kind):
        value = _default(field) if config is kind else getattr(config, field.name)
        name, choices = f"{prefix}{field.name}", _choices(hints[field.name])
        group = value if dataclasses.is_dataclass(value) else None
        if group is None and value is None:
            # Setting its fields creates a group that the recipe does not have.
            group = next(filter(dataclasses.is_dataclass, choices), None)
        shown = "" if dataclasses.is_dataclass(value) else f" = {_text(value)}"
        default = _default(field)
        if shown and config is not kind and default is not dataclasses.MISSING and default != value:
            shown += f"  (default {_text(default)})"
        typed = type(value).__name__ if dataclasses.is_dataclass(value) else _type_text(choices)
        lines.append(f"  {name}: {typed}{shown}")
        text = described.get(field.name, "")
        lines += textwrap.wrap(text, _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)
        if group is not None:
            lines += field_lines(group, f"{name}.")
    return lines


def descriptions(kind):
    """Reads the `Args:` of a class' docstring, a dict from names to texts."""
    _, _, section = inspect.getdoc(kind).partition("Args:\n")
    found, names = {}, []
    for line in section.splitlines():
        if line and not line.startswith(" "):
            break
        if start := re.match(r" {4}(\w+(?:, \w+)*): (.*)", line):
            names = start[1].split(", ")
            found |= dict.fromkeys(names, start[2])
        elif line.strip():
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found


def _default(field):
    """Returns the default of a field; `dataclasses.MISSING` for a required one."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _choices(hint):
    """Returns the types of a field."""
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def _type_text(choices):
    return " or ".join("None" if kind is types.NoneType else getattr(kind, "__name__", str(kind)) for kind in choices)


def _text(value):
    """Formats a value for `--set`."""
    return "(required)" if value is dataclasses.MISSING else value if isinstance(value, str) else repr(value)
