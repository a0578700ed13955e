"""`--strict-skips` of conftest.py."""

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
    pytester.path.joinpath("allowed_skips.txt").write_text(allowed)
    pytester.makepyfile(test_a=SKIPPED)
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", *arguments)
    assert result.ret == code
