"""What is declared is what there is: packages, lower bounds, the contents of the wheel."""

import configparser
import importlib.util
import pathlib
import re
import shutil
import subprocess
import sys
import types
import zipfile

import pytest

import keras_vit_cli

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module")
def declared():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def _lines(text):
    return [line.partition("#")[0].strip() for line in text.splitlines() if line.partition("#")[0].strip()]


def test_every_package_is_declared(declared):
    found = {".".join(p.parent.relative_to(ROOT).parts) for p in (ROOT / "keras_vit").rglob("__init__.py")}
    assert set(_lines(declared["options"]["packages"])) == found | {"keras_vit.recipes", "keras_vit_client"}


def test_the_lower_bounds_that_are_tested_are_those_that_are_declared(declared):
    extras = declared["options.extras_require"]
    wanted = _lines(declared["options"]["install_requires"])
    for extra in ("data", "plots", "serving", "onnx", "litert", "openvino", "test"):
        wanted += [line for line in _lines(extras[extra]) if not line.startswith("keras-vit-zoo")]
    bounds = dict(re.fullmatch(r"([\w-]+)>=([\d.]+)", line).groups() for line in wanted)
    tested = dict(line.split("==") for line in _lines((ROOT / "tests" / "lower_bounds.txt").read_text()))
    assert {name: version.split(".")[:2] for name, version in tested.items()} == {
        name: version.split(".")[:2] for name, version in bounds.items()
    }


def test_the_version_is_written_once():
    texts = [path.read_text() for path in (*ROOT.glob("*.py"), *(ROOT / "keras_vit").rglob("*.py"))]
    assert sum(len(re.findall(r"^__version__ = ", text, re.MULTILINE)) for text in texts) == 1


@pytest.mark.slow
def test_the_wheel_works_from_another_folder(tmp_path):
    """Built, unpacked, and asked from elsewhere: recipes, types and the command line are inside."""
    source = tmp_path / "source"  # A build leaves files behind, which the next one would pack.
    for folder in ("keras_vit", "keras_vit_client", "recipes"):
        shutil.copytree(ROOT / folder, source / folder)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "keras_vit_cli.py"):
        shutil.copy(ROOT / name, source / name)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(source)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("keras_vit_zoo-*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(site)
    recipes = {f"keras_vit/recipes/{p.name}" for p in (ROOT / "recipes").glob("*.py")}
    assert recipes | {"keras_vit/py.typed", "keras_vit_cli.py", "keras_vit/layers/vit/attention.py"} <= names
    assert {"keras_vit_client/rest.py", "keras_vit/export/server/templates/compose.yaml"} <= names
    assert not any(name.startswith(("tests/", "benchmarks/")) for name in names)
    script = (
        "import keras_vit, keras_vit.config.files as r\n"
        "print(keras_vit.__file__, r.load_recipe_module('vit_digits').__file__, sep='\\n')"
    )
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(site)!r})\n{script}"]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert all(line.startswith(str(site)) for line in answer.stdout.split())


def test_a_folder_that_another_project_overwrote_is_named_with_what_mends_it(tmp_path):
    """The package keras-vit of PyPI has the same import name."""
    shutil.copy(ROOT / "keras_vit_cli.py", tmp_path)
    (tmp_path / "keras_vit").mkdir()
    (tmp_path / "keras_vit" / "__init__.py").write_text("from .vit import ViT")
    command = [sys.executable, "-c", "import keras_vit_cli as c; raise SystemExit(c.main(['list']))"]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert answer.returncode == 1
    assert "pip uninstall -y keras-vit keras-vit-zoo" in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize("spec", [None, types.SimpleNamespace(origin=None)], ids=["nothing", "no __init__.py"])
def test_a_folder_whose_files_another_project_took_along_is_named(spec, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(ImportError, match=r"pip uninstall -y keras-vit keras-vit-zoo.*no keras_vit/__init__\.py"):
        keras_vit_cli.check_package()
