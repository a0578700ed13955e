"""Finds and loads recipe files."""

import ast
import contextlib
import importlib.util
import inspect
import pathlib
import sys

from keras_vit.config.overrides import apply_overrides
from keras_vit.config.recipe import Recipe
from keras_vit.validation import nearest

PACKAGE = pathlib.Path(__file__).parents[1]
# Beside the package in a checkout, inside it when installed from a wheel.
RECIPES = PACKAGE.parent / "recipes" if (PACKAGE.parent / "setup.cfg").exists() else PACKAGE / "recipes"


def list_recipes():
    """Lists the names of the recipes that come with the library, sorted."""
    return sorted(f.stem for f in RECIPES.glob("*.py"))


def recipe_summary(name):
    """Reads the first line of a library recipe's docstring without running its file."""
    text = (RECIPES / f"{name}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0].rstrip(".")


def load_recipe(name, overrides=()):
    """Loads a recipe, which `keras_vit.experiment.run` runs.

    Args:
        name: path of a Python file, or the name of one of the library's recipes (see `list_recipes`). Behind a colon
            there may be arguments of the file's `make_recipe`, such as `vit_augreg_i1k:size=base,level=strong1`. The
            file may import others of its folder.
        overrides: `field=value` strings as for `keras_vit train --set`, for example
            `["training.epochs=20", "data.folder=flowers"]`. Default none.

    Returns:
        A `keras_vit.config.Recipe`.

    Raises:
        ValueError: if there is no such file, it holds no recipe, has no such arguments, or an override does not fit.
    """
    return apply_overrides(load_recipe_module(name).recipe, overrides)


def load_recipe_module(name):
    """Runs the file of a recipe.

    Args:
        name: as for `load_recipe`.

    Returns:
        The module; its `recipe` is a `Recipe`, and `baseline(train, test)`, where there is one, returns the name
        and the accuracy of something to compare with.

    Raises:
        ValueError: if there is no such file, it holds no recipe, or has no such arguments.
    """
    file_or_name, _, arguments = str(name).rpartition(":")
    if not file_or_name or "=" not in arguments:  # A colon may be part of a path.
        file_or_name, arguments = str(name), ""
    paths = [pathlib.Path(file_or_name), RECIPES / f"{file_or_name}.py"]
    path = next((p for p in paths if p.is_file()), None)
    if path is None:
        raise ValueError(
            f"unknown recipe{nearest(file_or_name, list_recipes())} Received: {file_or_name!r}, neither a file "
            f"nor one of {list_recipes()}"
        )
    spec = importlib.util.spec_from_file_location(f"keras_vit_recipe_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    with _importing_from(path.parent):
        spec.loader.exec_module(module)
    if arguments:
        module.recipe = _call_make_recipe(module, path, arguments)
    if not isinstance(getattr(module, "recipe", None), Recipe):
        raise ValueError(f"a recipe file must define 'recipe', a keras_vit.config.Recipe. Received: {str(path)!r}")
    return module


def _call_make_recipe(module, path, arguments):
    """Calls `make_recipe` with the arguments of `key=value,key=value`."""
    make = getattr(module, "make_recipe", None)
    pairs = [pair.partition("=") for pair in arguments.split(",")]
    known = [] if make is None else list(inspect.signature(make).parameters)
    for key, equals, _ in pairs:
        if key not in known or not equals:
            raise ValueError(f"{str(path)!r} takes the arguments {known}{nearest(key, known)} Received: {arguments!r}")
    try:
        return make(**{key: value for key, _, value in pairs})
    except (KeyError, ValueError) as error:
        raise ValueError(f"{str(path)!r} has no such recipe ({error}). Received: {arguments!r}") from error


@contextlib.contextmanager
def _importing_from(folder):
    """Lets modules of a folder be imported inside the context, as in a script there; they are removed afterwards."""
    known = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        siblings = {file.stem for file in pathlib.Path(folder).glob("*.py")}
        for name in (set(sys.modules) - known) & siblings:
            del sys.modules[name]
