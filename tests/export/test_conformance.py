"""Exports of the families keep every promise that `keras_vit check` knows, and answer in C++ as TF Serving loads them.

The program `serve.cc` loads a SavedModel by `LoadSavedModel`, with XLA disabled and no Python in the process.
"""

import base64
import concurrent.futures
import contextlib
import copy
import functools
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request

import model_server
import numpy as np
import pytest
import tensorflow as tf
from random_configs import SWINS, VITS, swin, vit
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow_serving.apis import classification_pb2
from tf_serving import ServedModel, grpc_server, rest_server
from tiny import randomize

import keras_vit
from keras_vit.export import saved_model, write_server_files
from keras_vit.export.checks.answers import inputs
from keras_vit.export.checks.base import Exported
from keras_vit.export.checks.classes import BAD
from keras_vit.export.checks.run import CHECKS, run
from keras_vit.export.checks.signatures import signature_table
from keras_vit.export.servable.signature_defs import signature_defs
from keras_vit.export.servable.signatures import EXAMPLE_KEYS
from keras_vit.export.server.warmup import image_example
from keras_vit.models import build_model
from keras_vit_client import GrpcClient, RestClient, ServerError

GOLDEN = pathlib.Path(__file__).parents[1] / "goldens" / "serving" / "signatures.json"
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
RECORDED = ("vit", "distilled", "swin")  # their exports have warm-up records, and files for a server beside them
SIZES = (1, 2)

pytestmark = pytest.mark.slow
compiled = pytest.mark.skipif(COMPILER is None, reason="there is no C++ compiler")


def _export(family, folder):
    """The export of a random model of a family."""
    config = FAMILIES[family]
    model = build_model(config, labels=LABELS if config.num_classes else None)
    randomize(model)
    dtype = "bfloat16" if "bfloat16" in family else None
    # Warm-up records take a second session to try, which is done where the table below wants it.
    sizes = SIZES if family in RECORDED else ()
    path = saved_model(model, folder / family.replace(", ", "_"), dtype=dtype, batch_sizes=sizes)
    if sizes:
        write_server_files(path.parent, batch_sizes=sizes)
    return Exported(path, model)


@pytest.fixture(autouse=True)
def _reproducible():
    """Instead of the seeds of other tests: TensorFlow forgets its functions with each seed."""


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """Gives `_export`, written and loaded once for each family."""
    return functools.cache(functools.partial(_export, folder=tmp_path_factory.mktemp("exports")))


@pytest.mark.parametrize("family", CASES)
def test_every_check_holds(family, exports):
    results = [run(name, function, exports(family)) for name, function in CHECKS]
    assert [result for result in results if result.passed is False] == []
    absent = {result.check: result.finding for result in results if result.passed is None}
    beside = {"warm-up", "server files"}
    assert beside & set(absent) == (set() if family in RECORDED else beside)
    assert set(absent) - beside == set(ABSENT.get(family, {}))
    for name, reason in ABSENT.get(family, {}).items():
        assert reason in absent[name]


@pytest.mark.parametrize("family", CASES)
def test_signatures_equal_the_goldens(family, exports):
    """Clients depend on them; a change must be one of the golden file."""
    table = signature_table(signature_defs(exports(family).path))
    assert table == json.loads(GOLDEN.read_text())[family]


def test_bad_images_are_tried_without_a_word(exports, capfd):
    """Of the decoders', above the table."""
    exported = exports("vit")
    exported.call("serving_default", image_bytes=np.array([BAD["the start of a JPEG"]], object))
    assert "JPEG" in capfd.readouterr().err
    assert run("bad images", dict(CHECKS)["bad images"], exported).passed
    assert capfd.readouterr().err == ""


@pytest.mark.skipif(not DATA, reason="KERAS_VIT_DATA is not set")
@pytest.mark.parametrize("family", RECORDED)
def test_photographs_are_prepared_as_by_pillow(family, exports):
    photographs = sorted((pathlib.Path(DATA) / "imagenet_samples").glob("*.JPEG"))
    exported = Exported(exports(family).path, files=photographs)
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
    command += [str(pathlib.Path(__file__).parents[1] / "helpers" / "serve.cc"), "-o", str(path), f"-L{library}"]
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


@pytest.fixture(scope="module", params=["the tests' server", "the real server"])
def served(request, exports, tmp_path_factory):
    """The export of a ViT on a server: its `Exported`, and a client of each kind."""
    exported = exports("vit")
    with contextlib.ExitStack() as stack:
        if request.param == "the tests' server":
            model = ServedModel(exported.path.parent, "vit")
            # Loaded already, and warm.
            model._versions = {1: (exported._loaded.signatures, exported.signatures)}
            rest, rpc = (stack.enter_context(serve(model)) for serve in (rest_server, grpc_server))
        elif model_server.BINARY is None:
            pytest.skip(model_server.WHY_NOT)
        else:
            model, folder = None, shutil.copytree(exported.path.parent, tmp_path_factory.mktemp("served") / "vit")
            rest, rpc = stack.enter_context(model_server.model_server(folder, "vit"))
        options = {"max_batch_size": 4, "timeout": 60.0}
        clients = {"rest": RestClient(f"http://{rest}", "vit", **options), "grpc": GrpcClient(rpc, "vit", **options)}
        for client in clients.values():
            stack.enter_context(client)
            client.wait_until_ready()
        yield exported, clients, model


def _assert_same(found, expected):
    assert set(found) == set(expected)
    for key, value in expected.items():
        if value.dtype.kind == "f":
            np.testing.assert_allclose(found[key], value, atol=1e-5, err_msg=key)
        else:
            value = np.array([text.decode() for text in value.ravel()], object) if value.dtype == object else value
            assert np.array_equal(np.ravel(found[key]), value.ravel()), key


@pytest.mark.parametrize("kind", ["rest", "grpc"])
def test_every_signature_answers_clients(served, kind):
    exported, clients, _ = served
    for name in exported.signatures:
        request = inputs(exported, name, 5)
        _assert_same(clients[kind].predict(name, request), exported.call(name, **request))


@pytest.mark.parametrize("name", ["serving_default", "embeddings", "explain", "strict"])
def test_rows_of_json_are_answered_by_rows(served, name):
    """The other format of TF Serving's REST interface, of which each output has to have the leading dimension."""
    exported, clients, _ = served
    request = inputs(exported, name, 3)
    rows = [{"b64": base64.b64encode(image).decode()} for image in request["image_bytes"]]
    for instances in (rows, [{"image_bytes": row} for row in rows]):
        body = json.dumps({"signature_name": name, "instances": instances}).encode()
        url = f"{clients['rest']._server}/v1/models/vit:predict"
        answer = json.load(urllib.request.urlopen(url, body, timeout=60))["predictions"]
        _assert_same({key: [row[key] for row in answer] for key in answer[0]}, exported.call(name, **request))


@pytest.mark.parametrize("kind", ["rest", "grpc"])
def test_the_classify_api_answers(served, kind):
    """TF Serving's own, whose requests are `tf.Example`s; a bad image has no names."""
    exported, clients, _ = served
    images = [*exported.pictures[:3], b"no image"]
    examples = [image_example(image) for image in images]
    rows = np.array([example.SerializeToString() for example in examples], object)
    expected = exported.call("classify", inputs=rows)
    if kind == "rest":
        features = [{EXAMPLE_KEYS[0]: {"b64": base64.b64encode(image).decode()}} for image in images]
        body = json.dumps({"signature_name": "classify", "examples": features}).encode()
        url = f"{clients['rest']._server}/v1/models/vit:classify"
        found = json.load(urllib.request.urlopen(url, body, timeout=60))["results"]
    else:
        request = classification_pb2.ClassificationRequest(model_spec=clients["grpc"]._spec("classify"))
        request.input.example_list.examples.extend(examples)
        answer = clients["grpc"]._predictions.Classify(request, timeout=60)
        found = [[(item.label, item.score) for item in row.classes] for row in answer.result.classifications]
    assert np.shape(found) == (4, 3, 2)
    names = [[name for name, _ in row] for row in found]
    assert names == [[name.decode() for name in row] for row in expected["classes"]]
    assert names[-1] == [""] * 3
    np.testing.assert_allclose([[score for _, score in row] for row in found], expected["scores"], atol=1e-5)


@pytest.mark.parametrize("kind", ["rest", "grpc"])
def test_a_bad_row_of_a_merged_batch_is_its_sender_s(served, kind):
    exported, clients, model = served
    images = [exported.pictures[0], b"no image", exported.pictures[1], exported.pictures[2]]

    def ask(signature):
        def one(image):
            try:
                return clients[kind].classify([image], signature)[0]
            except ServerError as error:
                return error

        with concurrent.futures.ThreadPoolExecutor(len(images)) as pool:
            return list(pool.map(one, images))

    if model is not None:
        clients[kind].signature("strict")
        model.merged_rows = len(images)
    try:
        answers, refused = ask("serving_default"), ask("strict")
    finally:
        if model is not None:
            model.merged_rows = 0
    alone = exported.call("serving_default", image_bytes=np.array(images, object))
    assert answers[1] is None
    for row in (0, 2, 3):
        names, scores = zip(*answers[row], strict=True)
        assert list(names) == [name.decode() for name in alone["classes"][row]]
        np.testing.assert_allclose(scores, alone["scores"][row], atol=1e-5)
    # The row is that of the merged batch.
    assert refused[1].code == "INVALID_ARGUMENT"
    assert re.search(r"image_bytes\[[0-3]\] must be an image of one of", refused[1].message)
    if model is not None:
        assert {error.code for error in refused} == {"INVALID_ARGUMENT"}


def test_numbers_that_are_none_are_an_error_of_the_client_s(served):
    """gRPC can bring them, as JSON cannot; our own clients do not send them."""
    exported, clients, _ = served
    pixels = inputs(exported, "images", 2)["images"]
    pixels[1, 0, 0, 0] = np.nan
    for client in clients.values():
        with pytest.raises(ValueError, match="must be finite"):
            client.predict("images", {"images": pixels})
    rpc = clients["grpc"]
    known = rpc.signature("images")
    with pytest.raises(ServerError, match=r"images\[1\] must be of finite numbers") as error:
        rpc._predict("images", {"images": pixels}, known, 60)
    assert error.value.code == "INVALID_ARGUMENT"


if __name__ == "__main__" and "--write" in sys.argv:
    with tempfile.TemporaryDirectory() as directory:
        paths = {family: _export(family, pathlib.Path(directory)).path for family in FAMILIES}
        tables = {family: signature_table(signature_defs(path)) for family, path in paths.items()}
    GOLDEN.write_text(json.dumps(tables, indent=1) + "\n")
