"""`--strict-skips` and `--record` of conftest.py."""

import json
import pathlib

import pytest

SOURCE = pathlib.Path(__file__).with_name("conftest.py").read_text()
SKIPPED = "import pytest\n\ndef test_one():\n    pytest.skip('no camera')\n"


@pytest.mark.parametrize(
    ("allowed", "arguments", "code"),
    [
        ("test_a.py::test_one: no camera", ["--strict-skips"], 0),
        ("test_a.py::test_one: another reason", ["--strict-skips"], 1),
        ("# nothing is allowed", ["--strict-skips"], 1),
        ("# nothing is allowed", [], 0),
    ],
)
def test_strict_skips_fails_on_an_unlisted_skip(pytester, allowed, arguments, code):
    pytester.makeconftest(SOURCE.replace('pytest_plugins = ["pytester"]\n', ""))
    pytester.path.joinpath("long_tests.txt").write_text("")
    pytester.path.joinpath("allowed_skips.txt").write_text(allowed)
    pytester.makepyfile(test_a=SKIPPED)
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", *arguments)
    assert result.ret == code


MIXED = """
import time

import pytest


def test_slow():
    time.sleep(0.1)


def test_fast():
    pass


def test_wrong():
    assert False


def test_absent():
    pytest.skip("no camera")
"""


def test_record_has_every_result(pytester):
    pytester.makeconftest(SOURCE.replace('pytest_plugins = ["pytester"]\n', ""))
    pytester.path.joinpath("long_tests.txt").write_text("")
    pytester.makepyfile(test_a=MIXED)
    pytester.runpytest_inprocess("-p", "no:cacheprovider", "--record=results/all.json")
    record = json.loads(pytester.path.joinpath("results/all.json").read_text())
    assert record["passed"] == 2
    assert record["failed"] == ["test_a.py::test_wrong"]
    assert record["skipped"] == {"test_a.py::test_absent": "no camera"}
    assert next(iter(record["slowest"])) == "test_a.py::test_slow"
    assert record["slowest"]["test_a.py::test_slow"] >= 0.1
    assert record["hardware"]["cores"] >= 1
    assert record["seconds"] >= 0.1
    assert "keras" in record["versions"]
    assert record["arguments"] == ["-p", "no:cacheprovider"]


def test_every_long_test_is_there():
    """A test that was renamed would run in `make test` again."""
    folder = pathlib.Path(__file__).parent
    lines = (folder / "long_tests.txt").read_text().splitlines()
    entries = [line.split("[")[0].partition("::") for line in lines if line and not line.startswith("#")]
    assert len(entries) > 100
    for path, _, name in entries:
        text = (folder.parent / path).read_text()
        assert not name or f"def {name}(" in text, f"{path}::{name}"
