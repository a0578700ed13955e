"""The clients, against servers that the test starts and, where there is one, the real server."""

import base64
import concurrent.futures
import contextlib
import json
import pathlib
import pickle
import ssl
import subprocess
import sys
import threading
import urllib.request

import model_server
import numpy as np
import pytest
from rest_json import BadJson, read_request, write_response
from served_model import picture, write_model
from tf_serving import Refused, ServedModel, grpc_server, relay, rest_server

import keras_vit_cli
import keras_vit_client
from keras_vit.export.publish import publish_version
from keras_vit.export.servable.signature_defs import signature_defs
from keras_vit.export.server.warmup import write_warmup
from keras_vit_client import GrpcClient, RestClient, ServerError, connect

RED, GREEN, BLUE = picture("red"), picture("lime"), picture("blue", "JPEG", (20, 30))
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 8, 6, 3), dtype="uint8")
KINDS = {"rest": (rest_server, RestClient, "http://"), "grpc": (grpc_server, GrpcClient, "")}


@pytest.fixture(scope="module")
def base_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "colors"
    write_model(path / "1")
    write_model(path / "2", bias=[0.0, 9.0, 0.0, 0.0])
    return path


@pytest.fixture(scope="module")
def versions(base_path):
    return ServedModel(base_path, "colors")


@pytest.fixture
def model(versions):
    """The versions with no faults, as at first."""
    versions.faults, versions.requests, versions.labels = [], [], {"stable": 1, "canary": 2}
    versions.merged_rows, versions.max_batch_size, versions.state = 0, None, "AVAILABLE"
    return versions


@pytest.fixture(params=["rest", "grpc"])
def kind(request):
    return request.param


@pytest.fixture
def ask(kind, model):
    """Makes clients of a server with the model; they ask version 1 unless told otherwise."""
    serve, client, scheme = KINDS[kind]
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(serve(model))

        def make(**options):
            options = {"version": 1, "timeout": 10.0, **options}
            return stack.enter_context(client(scheme + address, "colors", **options))

        yield make


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch):
    monkeypatch.setattr("keras_vit_client.base._FIRST_PAUSE", 0.02)
    monkeypatch.setattr("keras_vit_client.base._POLL_SECONDS", 0.02)


def _predictions(model):
    return [rows for method, rows in model.requests if method == "predict"]


def _best(answers):
    return [answer and answer[0][0] for answer in answers]


def test_images_are_classified(ask, tmp_path):
    file = tmp_path / "green.png"
    file.write_bytes(GREEN)
    answers = ask().classify([RED, file, str(file), b"no image", bytearray(BLUE)])
    assert _best(answers) == ["red", "green", "green", None, "blue"]
    # softmax of 4 for the color, 1 for "grüngrau", 0 for the others
    total = np.exp(4) + np.exp(1) + 2
    assert answers[0][:2] == [("red", pytest.approx(np.exp(4) / total)), ("grüngrau", pytest.approx(np.exp(1) / total))]
    assert ask().classify([]) == []


def test_outputs_have_the_signature_s_names_and_types(ask):
    client = ask()
    outputs = client.predict("serving_default", {"image_bytes": [bytearray(RED), memoryview(b"x")]})
    types = {name: array.dtype for name, array in outputs.items()}
    assert types == {"scores": np.float32, "classes": object, "class_ids": np.int32, "valid": bool}
    assert outputs["classes"][0].tolist() == ["red", "grüngrau", "green"]
    assert outputs["valid"].tolist() == [True, False]
    # A single output, whose name REST leaves out.
    outputs = client.predict("embeddings", {"pixels": PIXELS})
    np.testing.assert_allclose(outputs["embedding"], PIXELS.mean((1, 2)), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float64", "float32", "uint8", "list"])
def test_numbers_go_in_the_signature_s_type(ask, dtype):
    images = np.ones((2, 3, 4, 3))
    value = images.tolist() if dtype == "list" else images.astype(dtype)
    logits = ask().predict("images", {"images": value})["logits"]
    np.testing.assert_allclose(logits, [[4, 4, 4, 3]] * 2)


def test_long_calls_are_split(ask, model):
    model.max_batch_size = 2
    client = ask(max_batch_size=2)
    assert _best(client.classify([RED, GREEN, BLUE, RED, GREEN])) == ["red", "green", "blue", "red", "green"]
    assert _predictions(model) == [2, 2, 1]
    outputs = client.predict("embeddings", {"pixels": PIXELS})
    np.testing.assert_allclose(outputs["embedding"], PIXELS.mean((1, 2)), rtol=1e-6)
    with pytest.raises(ServerError, match="larger than maximum input batch size"):
        ask(max_batch_size=3).classify([RED, GREEN, BLUE])


def test_what_passes_is_tried_again(ask, model):
    busy = Refused("UNAVAILABLE", "The batch scheduling queue to which this task was submitted is full")
    model.faults = [busy, None, busy, busy]
    assert _best(ask().classify([RED])) == ["red"]
    assert [method for method, _ in model.requests] == ["metadata"] * 2 + ["predict"] * 3


@pytest.mark.parametrize("fault", ["cut", "half"])
def test_a_lost_connection_is_tried_again(model, fault):
    model.faults = [None, fault, fault, fault]
    with rest_server(model) as address, RestClient(f"http://{address}", "colors", version=1) as client:
        assert _best(client.classify([RED])) == ["red"]
    assert not model.faults


def test_a_connection_that_is_cut_in_a_call_comes_back(kind, model):
    """Between the client and the server, while this one computes: a proxy that ends, a network that is gone."""
    serve, client, scheme = KINDS[kind]
    with serve(model) as server, relay(server) as (address, cut):
        with client(scheme + address, "colors", version=1, timeout=10.0) as asks:
            asks.signature("serving_default")
            # With REST the first is the end of what was idle, which is no retry.
            model.faults, model.requests = [cut] * 3, []
            assert _best(asks.classify([RED])) == ["red"]
            assert _predictions(model) == [1] * 4
        with client(scheme + address, "colors", version=1, timeout=10.0, retries=0) as asks:
            asks.signature("serving_default")
            model.faults = [cut] * 2
            with pytest.raises(ServerError) as error:
                asks.classify([RED])
            assert error.value.code == "UNAVAILABLE"


def test_after_the_last_retry_the_server_s_words_come(ask, model):
    model.faults = [None, *[Refused("UNAVAILABLE", "queue is full")] * 9]
    with pytest.raises(ServerError, match=r"colors.*: UNAVAILABLE: queue is full") as error:
        ask(retries=2).classify([RED])
    assert error.value.code == "UNAVAILABLE"
    assert len(_predictions(model)) == 3


@pytest.mark.parametrize("code", ["INVALID_ARGUMENT", "NOT_FOUND", "INTERNAL", "DEADLINE_EXCEEDED"])
def test_what_was_refused_is_not_tried_again(ask, model, code):
    model.faults = [None, Refused(code, "so it is")]
    with pytest.raises(ServerError, match="so it is") as error:
        ask().classify([RED])
    assert error.value.code == code
    assert len(_predictions(model)) == 1


def test_a_deadline_ends_a_call(ask, model):
    client = ask(timeout=0.25)
    client.signature("serving_default")
    model.faults = [1.0]
    with pytest.raises(ServerError) as error:
        client.classify([RED])
    assert error.value.code == "DEADLINE_EXCEEDED"
    assert len(_predictions(model)) == 1


def test_a_deadline_ends_the_retries(ask, model, monkeypatch):
    monkeypatch.setattr("keras_vit_client.base._FIRST_PAUSE", 50.0)
    monkeypatch.setattr("keras_vit_client.base._MAX_PAUSE", 50.0)
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    model.faults = [None, *[Refused("UNAVAILABLE", "away")] * 5]
    with pytest.raises(ServerError, match="away"):
        ask().classify([RED])
    assert len(_predictions(model)) == 1


def test_the_pauses_grow_and_are_random(ask, model, monkeypatch):
    drawn, slept = [], []
    monkeypatch.setattr("keras_vit_client.base._MAX_PAUSE", 0.05)
    monkeypatch.setattr("random.uniform", lambda low, high: drawn.append((low, high)) or high / 2)
    monkeypatch.setattr("time.sleep", slept.append)
    model.faults = [None, *[Refused("UNAVAILABLE", "away")] * 4]
    ask().classify([RED])
    assert drawn == [(0, 0.02), (0, 0.04), (0, 0.05), (0, 0.05)]
    assert slept == [0.01, 0.02, 0.025, 0.025]


def _together(clients, images):
    """One image from each client, at once; what came, in their order."""

    def classify(client, image, signature):
        try:
            return _best(client.classify([image], signature))[0]
        except ServerError as error:
            return error.code

    def all_of(signature):
        with concurrent.futures.ThreadPoolExecutor(len(images)) as pool:
            return list(pool.map(classify, clients, images, [signature] * len(images)))

    return all_of


def test_a_bad_row_fails_only_its_own_request_of_a_merged_batch(ask, model):
    model.merged_rows = 4
    all_of = _together([ask() for _ in range(4)], [RED, b"no image", GREEN, BLUE])
    assert all_of("serving_default") == ["red", None, "green", "blue"]
    # The other signature is for those who would rather know: there one bad row is everybody's.
    assert all_of("strict") == ["INVALID_ARGUMENT"] * 4
    assert _predictions(model) == [1] * 8


def test_threads_share_a_client(ask):
    client = ask()
    colors = [RED, GREEN, BLUE] * 8
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda image: _best(client.classify([image]))[0], colors))
    assert answers == ["red", "green", "blue"] * 8


def test_versions_and_labels(ask):
    assert _best(ask(version=2).classify([RED])) == ["green"]
    assert _best(ask(version=None).classify([RED])) == ["green"]
    assert _best(ask(version=None, label="stable").classify([RED])) == ["red"]
    assert _best(ask(version=None, label="canary").classify([RED])) == ["green"]
    with pytest.raises(ServerError, match="Specific") as error:
        ask(version=7).classify([RED])
    assert error.value.code == "NOT_FOUND"
    with pytest.raises(ValueError, match="a version or a label"):
        ask(version=1, label="stable")


def test_the_status_lists_the_versions(ask, model):
    assert ask().status() == [(2, "AVAILABLE", ""), (1, "AVAILABLE", "")]
    model.faults = [Refused("UNAVAILABLE", "not yet"), Refused("NOT_FOUND", "not yet")]
    assert ask().wait_until_ready(5).version == 2
    model.state = "LOADING"
    with pytest.raises(ServerError, match="version 2 LOADING") as error:
        ask().wait_until_ready(0.2)
    assert error.value.code == "DEADLINE_EXCEEDED"


def test_versions_that_cannot_be_loaded_are_not_waited_for(ask, model, monkeypatch):
    answer = model.status()
    for item in answer.model_version_status:
        item.state, item.status.error_message = 50, "a warm-up record failed"
    monkeypatch.setattr(model, "status", lambda: answer)
    with pytest.raises(ServerError, match="a warm-up record failed"):
        ask().wait_until_ready(5)


def test_a_client_waits_for_a_server_that_starts(kind, model):
    serve, client, scheme = KINDS[kind]
    (port,) = model_server.free_ports(1)
    ready = threading.Event()
    with contextlib.ExitStack() as stack, client(f"{scheme}127.0.0.1:{port}", "colors", version=1, timeout=5) as asks:
        with pytest.raises(ServerError) as error:
            asks.status()
        assert error.value.code == "UNAVAILABLE"
        starter = threading.Timer(0.3, lambda: (stack.enter_context(serve(model, port)), ready.set()))
        starter.start()
        assert asks.wait_until_ready(10).state == "AVAILABLE"
        assert ready.wait(5)
        assert _best(asks.classify([RED])) == ["red"]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"image": [RED]}, "the inputs of the signature"),
        ({"image_bytes": []}, "leading dimension of at least 1"),
        ({"image_bytes": RED}, "a list of bytes or str"),
        ({"image_bytes": np.array([RED])}, "a list of bytes or str"),
        ({"image_bytes": [RED, None]}, r"a list of bytes or str. Received: image_bytes\[1\] of .*NoneType"),
        ({"image_bytes": [pathlib.Path("a.png")]}, r"image_bytes\[0\] of .*Path'>; classify takes paths"),
        ({"image_bytes": [[RED, 1]]}, r"image_bytes\[0\]\[1\] of .*int"),
    ],
)
def test_wrong_inputs_are_refused_before_they_are_sent(ask, model, inputs, message):
    with pytest.raises(ValueError, match=message):
        ask().predict("serving_default", inputs)
    assert not _predictions(model)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.full((1, 8, 6, 3), 0.5), "values of uint8"),
        (np.full((1, 8, 6, 3), 256), "values of uint8"),
        (np.full((1, 8, 6, 3), np.nan), "must be finite"),
        (np.full((1, 8, 6, 3), "a"), "must hold numbers"),
        (3, "leading dimension"),
    ],
)
def test_wrong_numbers_are_refused_before_they_are_sent(ask, model, value, message):
    with pytest.raises(ValueError, match=message):
        ask().predict("embeddings", {"pixels": value})
    assert not _predictions(model)


def test_other_mistakes_have_clear_errors(ask):
    with pytest.raises(ValueError, match=r"signatures are \['classify', 'embeddings'"):
        ask().predict("nothing", {})
    with pytest.raises(ValueError, match="images must be a list"):
        ask().classify(RED)
    with pytest.raises(FileNotFoundError, match=r"missing\.png"):
        ask().classify(["missing.png"])
    with pytest.raises(ValueError, match="max_batch_size must be at least 1"):
        ask(max_batch_size=0)
    with pytest.raises(ServerError) as error:
        ask().classify([RED[:60]])
    again = pickle.loads(pickle.dumps(error.value))
    assert (again.code, again.message, str(again)) == (error.value.code, error.value.message, str(error.value))


def test_a_proxy_s_answers_are_told_apart(model):
    with rest_server(model) as address, RestClient(f"http://{address}", "colors", version=1) as client:
        client.signature("strict")
        for status, code in ((413, "RESOURCE_EXHAUSTED"), (429, "RESOURCE_EXHAUSTED"), (401, "UNAUTHENTICATED")):
            model.faults = [status]
            with pytest.raises(ServerError, match="a proxy's page") as error:
                client.classify([RED])
            assert error.value.code == code
        model.faults = [200]
        with pytest.raises(ServerError, match="no JSON object"):
            client.classify([RED])
        model.faults = [302]
        with pytest.raises(ServerError, match="HTTP 302"):
            client.classify([RED])
        model.faults, model.requests = [503, 502], []
        assert _best(client.classify([RED])) == ["red"]
        assert _predictions(model) == [1, 1, 1]


def test_rest_keeps_its_connection_and_survives_its_end(model):
    with rest_server(model) as address, RestClient(f"http://{address}", "colors", version=1, retries=0) as client:
        client.classify([RED])
        (kept,) = client._idle
        client.classify([GREEN])
        assert client._idle == [kept]
        # The server closes what is idle; without retries the call must still succeed, on a new connection.
        model.faults = ["cut"]
        assert _best(client.classify([BLUE])) == ["blue"]
        assert client._idle != [kept]
        model.faults = ["cut", "cut"]
        with pytest.raises(ServerError) as error:
            client.classify([BLUE])
        assert error.value.code == "UNAVAILABLE"


def test_rest_sends_headers_and_the_standard_alphabet(model, monkeypatch):
    seen = []
    original = RestClient._exchange

    def exchange(self, connection, method, path, body, deadline):
        seen.append((path, body, self._headers))
        return original(self, connection, method, path, body, deadline)

    monkeypatch.setattr(RestClient, "_exchange", exchange)
    data = RED + b"\xfb\xff\xfe" * 5
    assert {"+", "/"} & set(base64.b64encode(data).decode())
    with rest_server(model) as address:
        client = RestClient(f"http://{address}", "colors", label="stable", headers={"Authorization": "Bearer 1"})
        assert _best(client.classify([data])) == ["red"]
        client.close()
    path, body, headers = seen[-1]
    assert path == "/v1/models/colors/labels/stable:predict"
    assert json.loads(body)["inputs"]["image_bytes"] == [{"b64": base64.b64encode(data).decode()}]
    assert headers["Authorization"] == "Bearer 1"


def test_https_asks_for_tls_and_a_certificate(model):
    with rest_server(model) as address, RestClient(f"https://{address}", "colors", retries=0) as client:
        assert client._context.verify_mode == ssl.CERT_REQUIRED
        # A server without TLS is no server to this client.
        with pytest.raises(ServerError) as error:
            client.status()
        assert error.value.code == "UNAVAILABLE"


def test_a_url_makes_the_client(model):
    model.labels["canary"] = 1
    with rest_server(model) as rest, grpc_server(model) as rpc:
        for url in (
            f"http://{rest}/v1/models/colors/versions/1",
            f"http://{rest}/v1/models/colors/labels/canary/",
            f"grpc://{rpc}/v1/models/colors/versions/1",
            f"grpc://{rpc}/v1/models/colors/labels/canary",
        ):
            with connect(url, timeout=5) as client:
                assert type(client) is (GrpcClient if url.startswith("grpc") else RestClient)
                assert _best(client.classify([RED])) == ["red"]
    assert connect("https://host/behind/a/proxy/v1/models/m")._path == "/behind/a/proxy/v1/models/m"
    for wrong in ("host:8501", "http://host/v1/models", "ftp://host/v1/models/m", "grpc://host/proxy/v1/models/m"):
        with pytest.raises(ValueError, match="a server's URL must be like"):
            connect(wrong)


def test_without_the_extra_grpc_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    monkeypatch.delitem(sys.modules, "keras_vit_client.rpc")
    with pytest.raises(ImportError, match=r"keras-vit-zoo\[serving\]"):
        keras_vit_client.__getattr__("GrpcClient")


def test_predict_asks_a_server_without_tensorflow(model, tmp_path):
    """From the command line, in a process of its own, in which Keras and TensorFlow cannot be imported."""
    for name, data in (("red.png", RED), ("green.png", GREEN), ("bad.png", b"no image")):
        (tmp_path / name).write_bytes(data)
    script = (
        "import sys\n"
        "sys.modules.update({name: None for name in ('keras', 'tensorflow', 'keras_vit', 'grpc')})\n"
        "import keras_vit_cli\n"
        "sys.exit(keras_vit_cli.main(sys.argv[1:]))\n"
    )
    files = [str(tmp_path / name) for name in ("red.png", "green.png", "bad.png")]
    with rest_server(model) as address:
        url = f"http://{address}/v1/models/colors/versions/1"
        command = [sys.executable, "-c", script, "predict", *files, "--server", url, "--top-k", "2"]
        root = str(pathlib.Path(keras_vit_cli.__file__).parent)
        answer = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert answer.returncode == 1
    told = [f"{files[0]}: red 0.920, grüngrau 0.046", f"{files[1]}: green 0.920, grüngrau 0.046"]
    assert answer.stdout.splitlines() == told
    assert answer.stderr.startswith("keras_vit predict: every image must be readable. Received: 1 of 3 ")
    assert files[2] in answer.stderr
    assert files[0] not in answer.stderr


def test_the_server_of_the_tests_has_tf_serving_s_rules(base_path):
    """Rows and columns, binary objects, types: as `json_tensor.cc` has them."""
    signatures = signature_defs(base_path / "1")
    text = {"b64": base64.b64encode(RED).decode()}
    for content in (
        {"instances": [text, text]},
        {"instances": [{"image_bytes": text}, {"image_bytes": text}]},
        {"inputs": [text, text]},
        {"inputs": {"image_bytes": [text, text]}},
    ):
        name, inputs, by_rows = read_request(json.dumps(content), signatures)
        assert (name, by_rows) == ("serving_default", "instances" in content)
        assert inputs["image_bytes"].tolist() == [RED, RED]
    for content in (
        {},
        {"instances": [text], "inputs": [text]},
        {"instances": []},
        {"instances": [text, {"image_bytes": text}]},
        {"instances": [{"other": text}]},
        {"inputs": [{"b64": base64.urlsafe_b64encode(b"\xfb\xff").decode()}]},
        {"inputs": [1.5]},
        {"signature_name": "none", "instances": [text]},
        {"signature_name": "images", "inputs": [[[[True, 0, 0]]]]},
        {"signature_name": "embeddings", "inputs": [[[[0.5, 0, 0]]]]},
    ):
        with pytest.raises(BadJson):
            read_request(json.dumps(content), signatures)
    outputs = {"a": np.float32([1, np.nan]), "b_bytes": np.array([b"x", b"y"], object)}
    assert json.loads(write_response({"a": outputs["a"][:1]}, True)) == {"predictions": [1.0]}
    assert "NaN" in write_response(outputs, False)
    assert json.loads(write_response(outputs, True))["predictions"][0] == {"a": 1.0, "b_bytes": {"b64": "eA=="}}
    for bad in ({"a": np.float16([1])}, {"a": np.float32(1), "b": np.float32([1])}, {"a": np.ones(2), "b": np.ones(3)}):
        with pytest.raises(BadJson):
            write_response(bad, True)


@pytest.fixture
def real_server(tmp_path):
    """The real server with version 1 and its warm-up records; gives the folder and both addresses."""
    if model_server.BINARY is None:
        pytest.skip(model_server.WHY_NOT)
    base = tmp_path / "colors"
    write_warmup(write_model(base / "1"), "colors", (1, 2, 4), feature="image_bytes")
    with model_server.model_server(base, "colors", log=tmp_path / "server.log") as (rest, rpc):
        yield base, {"rest": f"http://{rest}", "grpc": rpc}


@pytest.mark.slow
def test_the_real_server_answers_alike(real_server, tmp_path):
    base, addresses = real_server
    clients = {kind: KINDS[kind][1](addresses[kind], "colors", max_batch_size=4) for kind in KINDS}
    for client in clients.values():
        assert client.wait_until_ready(60) == (1, "AVAILABLE", "")
        assert _best(client.classify([RED, GREEN, BLUE, RED, GREEN])) == ["red", "green", "blue", "red", "green"]
        outputs = client.predict("embeddings", {"pixels": PIXELS})
        np.testing.assert_allclose(outputs["embedding"], PIXELS.mean((1, 2)), rtol=1e-6)
        all_of = _together([client] * 4, [RED, b"no image", GREEN, BLUE])
        assert all_of("serving_default") == ["red", None, "green", "blue"]
        with pytest.raises(ServerError) as error:
            client.predict("strict", {"image_bytes": [b"no image"]})
        assert error.value.code == "INVALID_ARGUMENT"
    metrics = urllib.request.urlopen(f"{addresses['rest']}/monitoring/prometheus/metrics", timeout=10).read()
    assert b"batching_session" in metrics
    publish_version(write_model(tmp_path / "new", bias=[0.0, 9.0, 0.0, 0.0]), base)
    watcher = clients["rest"]
    for _ in range(300):
        # A request of every moment of the swap is answered, by one version or the other.
        assert _best(watcher.classify([RED]))[0] in ("red", "green")
        if any(found == (2, "AVAILABLE", "") for found in watcher.status()):
            break
    assert _best(clients["grpc"].classify([RED])) == ["green"]
    for client in clients.values():
        client.close()
