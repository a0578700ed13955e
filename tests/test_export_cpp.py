"""The SavedModel in C++, loaded as TF Serving loads it: `LoadSavedModel`, XLA disabled, no Python in the process."""

import functools
import pathlib
import shutil
import subprocess

import numpy as np
import pytest
import tensorflow as tf
from random_configs import SWINS, VITS, swin, vit
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tiny import randomize

import keras_vit
from keras_vit.export import saved_model
from keras_vit.export.check_answers import inputs
from keras_vit.export.checked import Exported
from keras_vit.models import build_model

COMPILER = shutil.which("g++") or shutil.which("clang++")
LABELS = ("ant", "bee", "cat")
FAMILIES = {
    "vit": vit(**VITS["token"]),
    "distilled": vit(**VITS["distilled"]),
    "swin": swin(**SWINS["swin"]),
}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(COMPILER is None, reason="there is no C++ compiler"),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The path of the program, compiled against the headers and libraries of the tensorflow wheel."""
    path = tmp_path_factory.mktemp("program") / "serve"
    library = tf.sysconfig.get_lib()
    command = [COMPILER, *tf.sysconfig.get_compile_flags(), "-w", "-std=c++17"]
    command += [str(pathlib.Path(__file__).with_name("serve.cc")), "-o", str(path), f"-L{library}"]
    command += ["-l:libtensorflow_cc.so.2", "-l:libtensorflow_framework.so.2", f"-Wl,-rpath,{library}"]
    compiled = subprocess.run(command, capture_output=True, text=True)
    assert compiled.returncode == 0, compiled.stderr
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


@functools.cache
def _model(family):
    model = build_model(FAMILIES[family], labels=LABELS)
    randomize(model)
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_every_signature_answers_as_in_python(family, program, tmp_path):
    path = saved_model(_model(family), tmp_path / family)
    exported = Exported(path)
    requests = {name: inputs(exported, name, 3) for name in exported.signatures}
    answers = tmp_path / "answers"
    answers.mkdir()
    found = _ask(program, path, answers, requests)
    listed = (answers / "signatures.txt").read_text().split()
    assert set(requests) <= set(listed)
    for name, request in requests.items():
        expected = exported.call(name, **request)
        assert set(found[name]) == set(expected), found[name]
        for key, value in expected.items():
            if value.dtype.kind == "f":
                np.testing.assert_allclose(found[name][key], value, atol=1e-5, err_msg=f"{name}: {key}")
            else:
                np.testing.assert_array_equal(found[name][key], value, err_msg=f"{name}: {key}")


def test_the_scores_are_those_of_keras(program, tmp_path):
    """PNGs of the model's size, which nothing resizes."""
    model = _model("vit")
    path = saved_model(model, tmp_path / "vit")
    spec = keras_vit.metadata(model).input_spec
    pixels = np.random.default_rng(0).integers(0, 256, (3, *spec.size, 3), "uint8")
    images = np.array([tf.io.encode_png(image).numpy() for image in pixels], object)
    answers = tmp_path / "answers"
    answers.mkdir()
    outputs = _ask(program, path, answers, {"serving_default": {"image_bytes": images}})["serving_default"]
    expected = tf.nn.softmax(model.predict(spec.normalize(pixels), verbose=0)).numpy()
    np.testing.assert_array_equal(outputs["class_ids"], np.argsort(-expected, axis=1))
    np.testing.assert_allclose(outputs["scores"], -np.sort(-expected, axis=1), atol=1e-5)
    assert outputs["classes"][0, 0].decode() == LABELS[expected[0].argmax()]


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


def test_a_folder_without_a_model_is_an_error(program, tmp_path):
    answer = subprocess.run([program, tmp_path / "nothing", tmp_path], capture_output=True, text=True)
    assert answer.returncode == 1
    assert "nothing" in answer.stderr
