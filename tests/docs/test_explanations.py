"""The page of explanations: its code runs on a tiny model, its table is that of the record."""

import pathlib
import re
import sys

import numpy as np
import pytest
from tiny import randomize

import keras_vit
from keras_vit.models import ViTConfig, build_vit

ROOT = pathlib.Path(__file__).parents[2]
PAGE = ROOT / "docs" / "explanations.md"


@pytest.mark.slow
def test_the_code_of_the_page_runs(monkeypatch, tmp_path):
    def tiny(num_classes, image_size):
        config = ViTConfig(
            image_size=image_size, hidden_dim=16, num_layers=12, num_heads=2, mlp_dim=16, num_classes=num_classes
        )
        model = build_vit(config)
        randomize(model)
        return model

    monkeypatch.setattr(keras_vit, "ViTTiny", tiny)
    monkeypatch.chdir(tmp_path)
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL))
    names = {}
    exec(compile(code, str(PAGE), "exec"), names)
    assert names["heat"].shape == names["cam"].shape == names["patches"].shape == (2, 4, 4)
    assert names["filters"].shape == (7, 16, 16, 3)
    assert (tmp_path / "why.png").stat().st_size > 1000
    assert np.isfinite(names["curve"]["auc"]).all()


def test_the_table_is_that_of_the_record(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    import explanations_page

    assert explanations_page.main(["--check"]) == 0, "run: python docs/explanations_page.py"
    sys.modules.pop("explanations_page")
