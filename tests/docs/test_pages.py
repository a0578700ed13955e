"""The numbers of the README are those of the records, the pages of docs what the library and its catalog say."""

import importlib.util
import json
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[2]


def _tables():
    spec = importlib.util.spec_from_file_location("tables", ROOT / "docs" / "tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_says_what_the_records_say():
    assert _tables().main(["--check"]) == 0, "run: python docs/tables.py"


def test_every_record_has_what_the_design_asks_for():
    wanted = {"recipe", "model", "config", "commit", "dirty", "hardware", "versions", "seed", "epochs", "wall_seconds"}
    paths = sorted((ROOT / "recipes" / "results").glob("*/*.json"))
    assert paths
    for path in paths:
        record = json.loads(path.read_text())
        assert wanted <= set(record), path
        assert record["recipe"] == path.parent.name
        assert path.name.endswith(f"-seed{record['seed']}.json")


def test_a_stale_table_is_noticed():
    tables = _tables()
    assert tables.fill("<!-- a -->\nold\n<!-- /a -->", "a", "new") == "<!-- a -->\n\nnew\n\n<!-- /a -->"


def test_the_cards_say_what_the_catalog_says(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    page = importlib.import_module("cards_page")
    assert page.main(["--check"]) == 0, "run: python docs/cards_page.py"
    towers = [name for name in page.SUMMARIES if not page.has_classes(page.catalog()[name])]
    assert len(towers) == 3
    for name, text in ((name, page.card(name)) for name in page.SUMMARIES):
        # What the cut of the template leaves behind, should the template change.
        assert (page.NO_CLASSES in text) == (name in towers)
        assert ("evaluate" in text) == ("decode_predictions" in text) == (name not in towers)


def test_the_page_of_training_says_what_the_recipes_say(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    page = importlib.import_module("recipes_page")
    assert all(f"<!-- {marker} -->" in page.PAGE.read_text() for marker in page.PARTS)
    assert page.main(["--check"]) == 0, "run: python docs/recipes_page.py"


def test_the_page_of_commands_says_what_the_parser_says(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    page = importlib.import_module("commands_page")
    assert "<!-- commands -->" in page.PAGE.read_text()
    assert page.main(["--check"]) == 0, "run: python docs/commands_page.py"


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("vit_digits", ""),
        ("finetune_adamw", ""),
        ("convnet_cifar10", ""),
        ("deit3_small_i1k", "81.4 % after 800 epochs"),
        ("vit_s16_i1k", "76.5 % after 90 epochs, 78.5 % after 150, 80.0 % after 300"),
        ("vit_augreg_i21k", "Ti/16 78.2 %, S/16 83.7 %, B/16 86.0 %"),
        ("finetune", "CIFAR-10 98.8 to 99.0 %, CIFAR-100 91.9 to 92.1 %"),
    ],
)
def test_published_is_what_the_paper_of_a_recipe_reports(name, published, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    row = importlib.import_module("recipes_page")._row(name)
    cell = row.split(" | ")[-2]
    assert published in cell if published else not cell


@pytest.mark.slow
def test_the_page_of_weights_says_what_the_library_does(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    page = importlib.import_module("weights_page")
    # Without its markers a page would never be old.
    assert all(f"<!-- {marker} -->" in page.PAGE.read_text() for marker in page.PARTS)
    assert page.main(["--check"]) == 0, "run: python docs/weights_page.py"


@pytest.mark.parametrize(
    "page",
    ["README.md", "docs/commands.md", "docs/weights.md", "docs/models.md", "docs/serving.md", "docs/evaluation.md"],
)
def test_the_files_that_a_page_names_exist(page):
    text = (ROOT / page).read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    names = re.findall(r"`((?:docs|tests|recipes)/[\w./]+)`", text)
    assert [*links, *names]
    assert all(((ROOT / page).parent / link).exists() for link in links)
    assert all((ROOT / name).exists() for name in names)
