"""A process that has only just started: it loads saved models, and imports no more than it must."""

import json
import subprocess
import sys

import numpy as np
import pytest
from tiny import IMAGES, tiny_vit

ORDERS = ("keras, keras_vit", "keras_vit, keras")
SCRIPT = """
import json, sys
import {first}
after_first = set(sys.modules)
import {second}
after_both = set(sys.modules)
import numpy as np
model = keras.models.load_model({path!r})
logits = np.array(model(np.load({images!r})))
labels = keras_vit.metadata(model).labels
modules = {{"first": sorted(after_first), "both": sorted(after_both)}}
print(json.dumps({{"modules": modules, "logits": logits.tolist(), "labels": labels}}))
"""
UNASKED = ("tensorflow_datasets", "keras_cv", "matplotlib", "sklearn", "rich")
ROOMS = ("cli", "data", "distribution", "evaluation", "experiment", "export", "sharding", "training")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model, and what two fresh processes, one for each order of the imports, tell of its file."""
    folder = tmp_path_factory.mktemp("fresh")
    model = tiny_vit(pooling="map", layer_scale_init=0.1, labels=("ant", "bee", "cat"))
    model.save(folder / "vit.keras")
    np.save(folder / "images.npy", IMAGES)
    values = {"path": str(folder / "vit.keras"), "images": str(folder / "images.npy")}
    processes = []
    for order in ORDERS:
        first, second = order.split(", ")
        script = SCRIPT.format(first=first, second=second, **values)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        processes.append(subprocess.Popen([sys.executable, "-c", script], cwd=folder, **pipes))
    answers = {}
    for order, process in zip(ORDERS, processes, strict=True):
        output, errors = process.communicate()
        assert process.returncode == 0, errors
        answers[order] = json.loads(output.splitlines()[-1])
    return model, answers


@pytest.mark.parametrize("order", ORDERS)
def test_loads_a_saved_model(saved, order):
    model, answers = saved
    np.testing.assert_allclose(answers[order]["logits"], model(IMAGES), atol=1e-6)
    assert answers[order]["labels"] == ["ant", "bee", "cat"]


@pytest.mark.parametrize("order", ORDERS)
def test_imports_no_room_unasked(saved, order):
    modules = set(saved[1][order]["modules"]["both"])
    assert "keras_vit.zoo" in modules
    assert modules & {f"keras_vit.{room}" for room in ROOMS} == set()


def test_imports_no_optional_package_that_keras_does_not(saved):
    modules = {moment: set(names) for moment, names in saved[1]["keras, keras_vit"]["modules"].items()}
    assert (modules["both"] - modules["first"]) & set(UNASKED) == set()
