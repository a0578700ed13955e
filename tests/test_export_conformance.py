"""Exports of the families keep every promise that `keras_vit check` knows, and answer in C++ as TF Serving loads them.

The program `serve.cc` loads a SavedModel by `LoadSavedModel`, with XLA disabled and no Python in the process.
"""

import copy
import functools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import numpy as np
import pytest
import tensorflow as tf
from random_configs import SWINS, VITS, swin, vit
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tiny import randomize

import keras_vit
from keras_vit.export import saved_model
from keras_vit.export.check_answers import inputs
from keras_vit.export.check_signatures import signature_table
from keras_vit.export.checked import Exported
from keras_vit.export.conformance import CHECKS, run
from keras_vit.export.signature_defs import signature_defs
from keras_vit.models import build_model

GOLDEN = pathlib.Path(__file__).parent / "goldens" / "serving" / "signatures.json"
DATA = os.environ.get("KERAS_VIT_DATA")
COMPILER = shutil.which("g++") or shutil.which("clang++")
LABELS = ("ant", "bee", "cat")
FAMILIES = {
    "vit": vit(**VITS["token"]),
    "distilled": vit(**VITS["distilled"]),
    "swin": swin(**SWINS["swin"]),
    "no classes, bfloat16": vit(num_classes=0),
    "map, softmax": vit(**VITS["map"], classifier_activation="softmax"),
    "swin v2, bfloat16": swin(**SWINS["swin v2"]),
}
# Variations of the others, which are exported and checked with every change.
LONG = ("map, softmax", "swin v2, bfloat16")
CASES = [pytest.param(name, marks=[pytest.mark.long] if name in LONG else [], id=name) for name in FAMILIES]
_NO_CLASSES = ("explain", "Classify", "scores", "labels", "strict")
# Checks that say nothing of a family, and why.
ABSENT = {
    "no classes, bfloat16": {
        **dict.fromkeys(_NO_CLASSES, "no classifier"),
        "equals Keras": "rounded, as was asked for",
    },
    "swin": {"explain": "no token of a Swin ever attends to the whole image"},
    "swin v2, bfloat16": {"explain": "no token of a Swin ever attends", "equals Keras": "rounded, as was asked for"},
}
RECORDED = ("vit", "swin")  # their exports have warm-up records

pytestmark = pytest.mark.slow
compiled = pytest.mark.skipif(COMPILER is None, reason="there is no C++ compiler")


def _export(family, folder):
    """The export of a random model of a family."""
    config = FAMILIES[family]
    model = build_model(config, labels=LABELS if config.num_classes else None)
    randomize(model)
    dtype = "bfloat16" if "bfloat16" in family else None
    # Warm-up records take a second session to try, which is done where the table below wants it.
    sizes = (1, 2) if family in RECORDED else ()
    path = saved_model(model, folder / family.replace(", ", "_"), dtype=dtype, batch_sizes=sizes)
    return Exported(path, model)


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """Gives `_export`, written and loaded once for each family."""
    return functools.cache(functools.partial(_export, folder=tmp_path_factory.mktemp("exports")))


@pytest.mark.parametrize("family", CASES)
def test_every_check_holds(family, exports):
    results = [run(name, function, exports(family)) for name, function in CHECKS]
    assert [result for result in results if result.passed is False] == []
    absent = {result.check: result.finding for result in results if result.passed is None}
    assert absent.pop("server files")  # those of keras_vit export are the command's
    assert ("warm-up" in absent) == (family not in RECORDED)
    assert set(absent) - {"warm-up"} == set(ABSENT.get(family, {}))
    for name, reason in ABSENT.get(family, {}).items():
        assert reason in absent[name]


@pytest.mark.parametrize("family", CASES)
def test_signatures_equal_the_goldens(family, exports):
    """Clients depend on them; a change must be one of the golden file."""
    table = signature_table(signature_defs(exports(family).path))
    assert table == json.loads(GOLDEN.read_text())[family]


@pytest.mark.skipif(not DATA, reason="KERAS_VIT_DATA is not set")
def test_photographs_are_prepared_as_by_pillow(exports):
    photographs = sorted((pathlib.Path(DATA) / "imagenet_samples").glob("*.JPEG"))
    exported = Exported(exports("vit").path, files=photographs)
    result = run("equals Pillow", dict(CHECKS)["equals Pillow"], exported)
    assert len(exported.pictures) == len(photographs) >= 50
    assert result.passed, result
    count = len(photographs) + len(exported.detailed)
    assert result.finding.startswith(f"{count} of {count} images of the same class")


def test_another_resize_than_the_description_s_is_found(exports):
    """By the least of differences: that of bicubic and bilinear."""
    exported = copy.copy(exports("vit"))
    spec = {**exported.description["input_spec"], "interpolation": "bilinear"}
    exported.description = {**exported.description, "input_spec": spec}
    result = run("equals Pillow", dict(CHECKS)["equals Pillow"], exported)
    assert result.passed is False, result


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The path of the program, compiled against the headers and libraries of the tensorflow wheel."""
    path = tmp_path_factory.mktemp("program") / "serve"
    library = tf.sysconfig.get_lib()
    command = [COMPILER, *tf.sysconfig.get_compile_flags(), "-w", "-std=c++17"]
    command += [str(pathlib.Path(__file__).with_name("serve.cc")), "-o", str(path), f"-L{library}"]
    command += ["-l:libtensorflow_cc.so.2", "-l:libtensorflow_framework.so.2", f"-Wl,-rpath,{library}"]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    return path


def _ask(program, model, folder, requests):
    """Runs the program: from a dict of arrays by signature and input to one by signature and output, or an error."""
    for name, arrays in requests.items():
        (folder / name).mkdir()
        for key, array in arrays.items():
            (folder / name / f"{key}.in.pb").write_bytes(tf.make_tensor_proto(array).SerializeToString())
    answer = subprocess.run([program, model, folder], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    found = {}
    for name in requests:
        error = folder / name / "error.txt"
        found[name] = error.read_text() if error.exists() else _outputs(folder / name)
    return found


def _outputs(folder):
    parse = TensorProto.FromString
    return {f.name.removesuffix(".out.pb"): tf.make_ndarray(parse(f.read_bytes())) for f in folder.glob("*.out.pb")}


@compiled
@pytest.mark.parametrize("family", ["vit", "distilled", "swin"])
def test_every_signature_answers_in_cpp(family, exports, program, tmp_path):
    exported = exports(family)
    requests = {name: inputs(exported, name, 3) for name in exported.signatures}
    spec = keras_vit.metadata(exported.model).input_spec
    pixels = np.random.default_rng(0).integers(0, 256, (3, *spec.size, 3))
    requests["images"] = {"images": pixels.astype("float32")}
    found = _ask(program, exported.path, tmp_path, requests)
    assert set(requests) <= set((tmp_path / "signatures.txt").read_text().split())
    for name, request in requests.items():
        expected = exported.call(name, **request)
        assert set(found[name]) == set(expected), found[name]
        for key, value in expected.items():
            if value.dtype.kind == "f":
                np.testing.assert_allclose(found[name][key], value, atol=1e-5, err_msg=f"{name}: {key}")
            else:
                np.testing.assert_array_equal(found[name][key], value, err_msg=f"{name}: {key}")
    logits = np.asarray(exported.model(spec.normalize(pixels), training=False))
    np.testing.assert_allclose(found["images"]["logits"], logits, atol=1e-5)


@compiled
def test_a_bad_image_is_refused_in_cpp(exports, program, tmp_path):
    """By `strict`, with its row; `serving_default` answers for the others."""
    exported = exports("vit")
    images = {"image_bytes": np.array([exported.pictures[0], b"no image"], object)}
    found = _ask(program, exported.path, tmp_path, {"strict": images, "serving_default": images})
    assert "INVALID_ARGUMENT" in found["strict"]
    assert "image_bytes[1]" in found["strict"]
    assert found["serving_default"]["valid"].tolist() == [True, False]


@compiled
def test_xla_is_off_in_the_program(program, tmp_path):
    """Else the tests above would not notice a graph that a server refuses."""

    class Compiled(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None,), tf.float32, name="x")], jit_compile=True)
        def double(self, x):
            return {"y": 2 * x}

    module = Compiled()
    tf.saved_model.save(module, str(tmp_path / "1"), signatures={"double": module.double})
    answers = tmp_path / "answers"
    answers.mkdir()
    found = _ask(program, tmp_path / "1", answers, {"double": {"x": np.ones(2, "float32")}})
    assert "XLA compilation disabled" in found["double"]


@compiled
def test_a_folder_without_a_model_is_an_error(program, tmp_path):
    answer = subprocess.run([program, tmp_path / "nothing", tmp_path], capture_output=True, text=True)
    assert answer.returncode == 1
    assert "nothing" in answer.stderr


if __name__ == "__main__" and "--write" in sys.argv:
    with tempfile.TemporaryDirectory() as directory:
        paths = {family: _export(family, pathlib.Path(directory)).path for family in FAMILIES}
        tables = {family: signature_table(signature_defs(path)) for family, path in paths.items()}
    GOLDEN.write_text(json.dumps(tables, indent=1) + "\n")
