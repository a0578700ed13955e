"""The code of docs/any_size.md runs."""

import pathlib
import re


def test_the_code_of_the_page_runs():
    page = (pathlib.Path(__file__).parents[2] / "docs" / "any_size.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names = {}
    exec(block, names)
    assert names["model"].input_shape == (None, None, None, 3)
