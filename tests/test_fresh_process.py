"""A process that has only just started: it loads saved models, and imports no more than it must."""

import ast
import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from tiny import CONFIG, IMAGES, tiny_vit

import keras_vit
from keras_vit import training
from keras_vit.models import build_vit
from keras_vit.registration import LAZY_CLASSES
from keras_vit.training.tasks.segmentation import PixelAccuracy, SegmentationLoss, SegmentationMeanIoU

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
# What a run leaves: a compiled model, and an object of every class for training.
COMPILED = """
import json, sys
import keras, keras_vit
registered = {{name: keras.saving.get_registered_object(name) is not None for name in {names!r}}}
trained = sorted(name for name in sys.modules if name.startswith("keras_vit.training"))
model = keras.models.load_model({path!r})
found = [model.optimizer, model.loss]
for path in {others!r}:
    with open(path) as file:
        found.append(keras.saving.deserialize_keras_object(json.load(file)))
told = [[type(item).__module__, type(item).__name__] for item in found]
again = keras.saving.get_registered_object("keras_vit>AdamW") is type(model.optimizer)
state = [int(model.optimizer.iterations), model.optimizer.weight_decay]
print(json.dumps({{"registered": registered, "trained": trained, "told": told, "state": state, "again": again}}))
"""
UNASKED = ("tensorflow_datasets", "keras_cv", "matplotlib", "sklearn", "rich", "huggingface_hub.errors")
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


def _registered_classes():
    """Registered names of the classes in the sources, by module."""
    classes = {}
    package = pathlib.Path(keras_vit.__file__).parent
    for path in sorted(package.rglob("*.py")):
        module = ".".join(path.relative_to(package.parent).with_suffix("").parts)
        for node in ast.parse(path.read_text()).body:
            for decorator in getattr(node, "decorator_list", []):
                if "register_keras_serializable" in ast.unparse(decorator):
                    names = [keyword.value.value for keyword in decorator.keywords if keyword.arg == "name"]
                    classes.setdefault(module, []).append(*names or [node.name])
    return classes


def test_every_registered_class_is_imported_or_has_a_stand_in(saved):
    modules = set(saved[1][ORDERS[0]]["modules"]["both"])
    left_out = {module: sorted(names) for module, names in _registered_classes().items() if module not in modules}
    assert left_out == {module: sorted(names) for module, names in LAZY_CLASSES.items()}


def test_a_compiled_model_loads_and_every_class_is_found(tmp_path):
    model = tiny_vit()
    schedule = training.EpochCosine(1e-3, steps_per_epoch=2, epochs=3)
    model.compile(training.AdamW(schedule, weight_decay=0.1), loss=training.SigmoidCrossEntropy())
    model.fit(IMAGES, np.eye(3)[:2], verbose=0)
    model.save(tmp_path / "run.keras")
    vit = build_vit(CONFIG)
    objects = [getattr(training, name)(1e-3) for name in ("AdamW", "Lamb", "Lion", "Muon", "SGD")]
    objects += [schedule, training.BigVisionSchedule(1e-3, total_steps=9), training.EveryNth(schedule, 2)]
    objects += [
        training.SigmoidCrossEntropy(),
        training.DistillationLoss(),
        training.MaskedAutoencoder(vit, decoder_heads=2),
    ]
    objects += [training.Distiller(vit, tiny_vit())]
    objects += [SegmentationLoss(), SegmentationMeanIoU(3), PixelAccuracy(3)]
    names = sorted(keras.saving.get_registered_name(type(item)) for item in objects)
    assert names == sorted(f"keras_vit>{name}" for classes in LAZY_CLASSES.values() for name in classes)
    paths = []
    for item in objects:
        paths.append(str(tmp_path / f"{type(item).__name__}.json"))
        pathlib.Path(paths[-1]).write_text(json.dumps(keras.saving.serialize_keras_object(item)))
    script = COMPILED.format(names=names, path=str(tmp_path / "run.keras"), others=paths)
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    answer = json.loads(process.stdout.splitlines()[-1])
    assert all(answer["registered"].values())
    assert answer["trained"] == []
    expected = [model.optimizer, model.loss, *objects]
    assert answer["told"] == [[type(item).__module__, type(item).__name__] for item in expected]
    assert (answer["state"], answer["again"]) == ([1, 0.1], True)
