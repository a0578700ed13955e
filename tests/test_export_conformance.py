"""The exports of the families keep every promise that `keras_vit check` knows, and the signatures do not change."""

import functools
import json
import os
import pathlib
import sys
import tempfile

import pytest
from random_configs import SWINS, VITS, swin, vit
from tiny import randomize

from keras_vit.export import check, saved_model
from keras_vit.export.check_signatures import signature_table
from keras_vit.export.checked import Exported
from keras_vit.export.conformance import CHECKS
from keras_vit.export.signature_defs import signature_defs
from keras_vit.models import build_model

GOLDEN = pathlib.Path(__file__).parent / "goldens" / "serving" / "signatures.json"
DATA = os.environ.get("KERAS_VIT_DATA")
FAMILIES = {
    "vit": vit(**VITS["token"]),
    "distilled": vit(**VITS["distilled"]),
    "map, softmax": vit(**VITS["map"], classifier_activation="softmax"),
    "no classes": vit(num_classes=0),
    "swin": swin(**SWINS["swin"]),
    "swin v2, bfloat16": swin(**SWINS["swin v2"]),
}
# The three that the others are variations of are exported and checked with every change.
_EVERY_TIME = ("vit", "distilled", "swin")
CASES = [
    pytest.param(name, marks=pytest.mark.slow if name in _EVERY_TIME else pytest.mark.long, id=name)
    for name in FAMILIES
]
_NO_CLASSES = ("explain", "Classify", "scores", "labels", "strict", "equals Pillow")
# Checks that say nothing of a family, and why.
ABSENT = {
    "no classes": dict.fromkeys(_NO_CLASSES, "no classifier"),
    "swin": {"explain": "no token of a Swin ever attends to the whole image"},
    "swin v2, bfloat16": {"explain": "no token of a Swin ever attends", "equals Keras": "rounded, as was asked for"},
}
# What an export may be without.
_BESIDE = {"warm-up", "server files"}


def _export(family, folder):
    """A model of a family, and the path of its export."""
    config = FAMILIES[family]
    model = build_model(config, labels=("ant", "bee", "cat") if config.num_classes else None)
    randomize(model)
    dtype = "bfloat16" if "bfloat16" in family else None
    return model, saved_model(model, folder / family.replace(", ", "_"), dtype=dtype)


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """Gives `_export`, written once for each family."""
    return functools.cache(functools.partial(_export, folder=tmp_path_factory.mktemp("exports")))


@pytest.mark.parametrize("family", CASES)
def test_every_check_holds(family, exports):
    model, path = exports(family)
    report = check(path, model)
    assert report.failed == []
    absent = {result.check: result.finding for result in report.results if result.passed is None}
    assert set(absent) - _BESIDE == set(ABSENT.get(family, {}))
    for name, reason in ABSENT.get(family, {}).items():
        assert reason in absent[name]
    assert len(report.results) == len(CHECKS)


@pytest.mark.parametrize("family", CASES)
def test_signatures_equal_the_goldens(family, exports):
    """Clients depend on them; a change must be one of the golden file."""
    table = signature_table(signature_defs(exports(family)[1]))
    assert table == json.loads(GOLDEN.read_text())[family]


@pytest.mark.slow
@pytest.mark.skipif(not DATA, reason="KERAS_VIT_DATA is not set")
def test_photographs_are_prepared_as_by_pillow(exports):
    model, path = exports("vit")
    photographs = sorted((pathlib.Path(DATA) / "imagenet_samples").glob("*.JPEG"))
    exported = Exported(path, model, photographs)
    (result,) = (result for result in check(path, model, photographs).results if result.check == "equals Pillow")
    assert len(exported.pictures) == len(photographs) >= 50
    assert result.passed, result
    assert result.finding.startswith(f"{len(photographs)} of {len(photographs)} images of the same class")


if __name__ == "__main__" and "--write" in sys.argv:
    with tempfile.TemporaryDirectory() as directory:
        exported = {family: _export(family, pathlib.Path(directory))[1] for family in FAMILIES}
        tables = {family: signature_table(signature_defs(path)) for family, path in exported.items()}
    GOLDEN.write_text(json.dumps(tables, indent=1) + "\n")
