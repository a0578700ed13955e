"""Tests of the architecture: imports flow one way, pure packages stay pure, public names are documented."""

import ast
import functools
import pathlib
import sys

import pytest

import keras_vit

PACKAGE = pathlib.Path(keras_vit.__file__).parent
LAUNCHER = PACKAGE.parent / "keras_vit_cli.py"
RECIPES = PACKAGE.parent / "recipes"
CLIENT = PACKAGE.parent / "keras_vit_client"

# A room may import rooms of its own line and of those above it.
ORDER = [
    {"validation", "backend", "fused", "loss_check", "origin", "portable", "registration", "resample"},
    {"pillow_reader"},
    {"composition", "outputs", "preprocessing"},
    {"metadata"},
    {"layers"},
    {"models"},
    {"weights"},
    {"zoo"},
    {"applications"},
    {"interpret", "evaluation", "training"},
    {"image_ops"},
    {
        "data",
        "distribution",
        "distributed_data",
        "distributed_errors",
        "distributed_fit",
        "distributed_step",
        "cluster",
        "sharding",
        "export",
    },
    {"cli_models", "cli_publish", "console", "recipe_data"},
    {"cli_check", "cli_runtimes"},
    {"cli_export"},
    {"experiment", "recipe_files"},
    {"cli_list", "cli_recipe"},
    {"tuning_data"},
    {"fine_tuning"},
    {"cli_finetune"},
    {"cli", "recipes", "__main__"},
]
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}
PURE = [room for room, rank in RANK.items() if rank <= RANK["training"]]
IMPURE_PACKAGES = {"tensorflow", "tensorflow_datasets", "keras_cv", "torch", "jax"}
# They may import the active backend, inside a function that has asked which one it is.
BACKEND_FILES = ("backend.py", "fused.py", "interpret/gradients.py", "weights/readers.py")
OF_LAYERS = {"keras", "numpy", "keras_vit"} | set(sys.stdlib_module_names)

FILES = sorted(PACKAGE.rglob("*.py"))
RECIPE_FILES = sorted(RECIPES.glob("*.py"))
CLIENT_FILES = sorted(CLIENT.glob("*.py"))


def _name(path):
    return str(path.relative_to(PACKAGE.parent))


each_file = pytest.mark.parametrize("path", [*FILES, *RECIPE_FILES, *CLIENT_FILES, LAUNCHER], ids=_name)


@functools.cache
def _tree(path):
    return ast.parse(path.read_text())


def _room(path):
    """The room of a file: the first name under the package; `__init__` for the package's own file."""
    return "recipes" if path in RECIPE_FILES else path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imported(node):
    """The dotted names that an import statement may bind: `from keras_vit import data` is `keras_vit.data`."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def _imports(path):
    """Dotted names that a file imports anywhere, functions included."""
    return [name for node in ast.walk(_tree(path)) for name in _imported(node)]


def _imports_at_top(path):
    """Dotted names that are imported when the file is: all but those inside functions."""
    names, nodes = [], list(_tree(path).body)
    while nodes:
        node = nodes.pop()
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            names += _imported(node)
            nodes += ast.iter_child_nodes(node)
    return names


def _rooms_imported(path):
    """Names of `keras_vit` rooms that a file imports; public names that `keras_vit` itself offers are no room."""
    parts = [name.split(".") for name in _imports(path)]
    return {p[1] for p in parts if p[0] == "keras_vit" and len(p) > 1 and p[1] in RANK}


def test_every_room_has_its_place():
    assert {_room(path) for path in FILES} - {"__init__"} <= set(RANK)


@pytest.mark.parametrize("path", [*FILES, *RECIPE_FILES], ids=_name)
def test_no_arrow_points_back(path):
    room = _room(path)
    rank = RANK["interpret"] if room == "__init__" else RANK[room]
    back = {other for other in _rooms_imported(path) if RANK[other] > rank}
    assert not back, f"{_name(path)} must not import {back}"


def test_rooms_do_not_import_each_other_in_a_circle():
    arrows = {room: set() for room in RANK}
    for path in [*FILES, *RECIPE_FILES]:
        if _room(path) != "__init__":
            arrows[_room(path)] |= _rooms_imported(path) - {_room(path)}
    while free := [room for room, others in arrows.items() if not others]:
        arrows = {room: others - set(free) for room, others in arrows.items() if room not in free}
    assert not arrows, f"a circle among {arrows}"


@pytest.mark.parametrize("path", [p for p in FILES if _room(p) in [*PURE, "__init__"]], ids=_name)
def test_pure_rooms_import_no_backend(path):
    lazily = path.relative_to(PACKAGE).as_posix() in BACKEND_FILES
    names = _imports_at_top(path) if lazily else _imports(path)
    impure = {name.split(".")[0] for name in names} & IMPURE_PACKAGES
    assert not impure, f"{_name(path)} must not import {impure}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "layers").glob("*.py")), ids=_name)
def test_layers_import_keras_and_numpy_only(path):
    assert {name.split(".")[0] for name in _imports(path)} <= OF_LAYERS


def test_the_package_imports_nothing_but_pure_rooms():
    rooms = _rooms_imported(PACKAGE / "__init__.py")
    assert "zoo" in rooms
    assert rooms <= set(PURE) - {"training", "evaluation"}


def test_the_launcher_imports_only_the_standard_library_at_top():
    assert {name.split(".")[0] for name in _imports_at_top(LAUNCHER)} <= set(sys.stdlib_module_names)


@pytest.mark.parametrize("path", [p for p in CLIENT_FILES if p.name != "rpc.py"], ids=_name)
def test_the_client_imports_little(path):
    """A program that asks a server through REST needs NumPy only."""
    names = [name for name in _imports(path) if not name.startswith("keras_vit_client.rpc")]
    assert {name.split(".")[0] for name in names} <= {"numpy", "keras_vit_client"} | set(sys.stdlib_module_names)


@each_file
def test_no_private_keras(path):
    assert not [name for name in _imports(path) if name.startswith("keras.src")]
    attributes = {ast.unparse(node) for node in ast.walk(_tree(path)) if isinstance(node, ast.Attribute)}
    assert "keras.src" not in attributes


@each_file
def test_public_names_have_docstrings(path):
    tree = _tree(path)
    assert ast.get_docstring(tree), "the module has no docstring"
    public = [
        node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    ]
    assert [node.name for node in public if not ast.get_docstring(node)] == []


def test_there_is_no_utils():
    assert [_name(path) for path in FILES if path.stem in ("utils", "helpers", "misc", "common")] == []


def test_the_walk_sees_what_it_should():
    """The checks above rest on these three readers."""
    tree = "import jax\nfrom keras_vit import data\nclass A:\n  import torch\ndef f():\n  from tensorflow import nn\n"
    nodes = list(ast.walk(ast.parse(tree)))
    assert [n for node in nodes for n in _imported(node)] == ["jax", "keras_vit.data", "torch", "tensorflow.nn"]
    rooms = {"layers", "loss_check", "metadata", "models", "preprocessing"}
    assert _rooms_imported(PACKAGE / "models" / "vit.py") == rooms
    assert "tensorflow" in _imports(PACKAGE / "backend.py")
    assert "tensorflow" not in _imports_at_top(PACKAGE / "backend.py")
