"""What the contracts of pyproject.toml cannot say: names of files, and what may be imported at the top."""

import ast
import pathlib
import sys

import keras_vit

PACKAGE = pathlib.Path(keras_vit.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))


def _imports_at_top(path):
    """The packages that a file imports when it is imported: all but those inside functions."""
    packages, nodes = set(), list(ast.parse(path.read_text()).body)
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.Import):
            packages |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            packages.add(node.module.partition(".")[0])
        nodes += ast.iter_child_nodes(node)
    return packages


def test_the_launcher_imports_the_standard_library_alone():
    assert _imports_at_top(PACKAGE.parent / "keras_vit_cli.py") <= set(sys.stdlib_module_names)


def test_the_client_imports_numpy_alone():
    """A program that asks a server through REST needs no gRPC."""
    files = [path for path in (PACKAGE.parent / "keras_vit_client").glob("*.py") if path.name != "rpc.py"]
    assert files
    for path in files:
        assert _imports_at_top(path) <= {"numpy", "keras_vit_client", *sys.stdlib_module_names}, path.name


def test_the_backend_package_imports_no_backend_at_top():
    for path in (PACKAGE / "backend").glob("*.py"):
        assert not _imports_at_top(path) & {"tensorflow", "torch", "jax"}, path.name


def test_no_file_is_a_drawer():
    assert [path.name for path in FILES if path.stem in ("utils", "helpers", "misc", "common")] == []


def test_imports_of_functions_are_left_out(tmp_path):
    (tmp_path / "a.py").write_text("import jax\nclass A:\n  import torch\ndef f():\n  from tensorflow import nn\n")
    assert _imports_at_top(tmp_path / "a.py") == {"jax", "torch"}
