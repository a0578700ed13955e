"""The numbers of the README are those of the records."""

import importlib.util
import json
import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]


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


def test_the_files_that_the_readme_links_to_exist():
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text())
    assert links
    assert all((ROOT / link).exists() for link in links if "://" not in link)
