"""Servers that answer as TF Serving does, REST and gRPC, over the SavedModels of a folder; they fail on request."""

import base64
import concurrent.futures
import contextlib
import http.server
import json
import pathlib
import re
import socket
import threading
import time

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from rest_json import BadJson, read_request, write_response
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from keras_vit.export.servable.signature_defs import CLASSIFY_METHOD, signature_defs

_STATUS = {"INVALID_ARGUMENT": 400, "NOT_FOUND": 404, "UNAVAILABLE": 503, "DEADLINE_EXCEEDED": 504, "INTERNAL": 500}
_URL = re.compile(r"/v1/models/(\w+)(?:/versions/(\d+)|/labels/(\w+))?(:predict|:classify|/metadata)?")
_LONGEST_WAIT = 10


class Refused(Exception):
    """A code and a message for the client."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code, self.message = code, message


class ServedModel:
    """The versions of a model.

    Attributes:
        labels: dict of version numbers by label.
        state, error: str, what the status says.
        faults: list, one for each of the next requests: `None`; a `Refused`; seconds, after which the request is
            given up as the server gives up one whose client is gone; a callable, which is called before the answer; for
            REST also `cut`, `half` (of the answer) or an HTTP status, which is answered with a page of HTML.
        merged_rows: int. As many rows are collected before they run as one batch, which fails whole.
        max_batch_size: int or `None`. A request with more rows is refused.
        requests: list of `(method, rows)`.
    """

    def __init__(self, base_path, name):
        self.name, self.labels, self.faults = name, {}, []
        self.state, self.error = "AVAILABLE", ""
        self.merged_rows, self.max_batch_size, self.requests = 0, None, []
        self._versions, self._open, self._lock = {}, {}, threading.Lock()
        for path in pathlib.Path(base_path).iterdir():
            if path.name.isdigit():
                self._versions[int(path.name)] = (tf.saved_model.load(str(path)).signatures, signature_defs(path))

    def find(self, name, version, label):
        """The signatures to run, those to show, and the version."""
        if name != self.name:
            raise Refused("NOT_FOUND", f"Servable not found for request: Latest({name})")
        if label is not None and label not in self.labels:
            raise Refused("INVALID_ARGUMENT", f"Unrecognized servable version label: {label}")
        number = self.labels[label] if label is not None else max(self._versions) if version is None else int(version)
        if number not in self._versions:
            raise Refused("NOT_FOUND", f"Servable not found for request: Specific({name}, {number})")
        return *self._versions[number], number

    def status(self):
        """The `GetModelStatusResponse`."""
        answer = get_model_status_pb2.GetModelStatusResponse()
        states = get_model_status_pb2.ModelVersionStatus.State
        for number in sorted(self._versions):
            status = answer.model_version_status.add(version=number, state=states.Value(self.state)).status
            status.error_code, status.error_message = 0, self.error
        return answer

    def fault(self, method, rows):
        """Notes a request; waits, raises or returns what was asked for."""
        with self._lock:
            self.requests.append((method, rows))
            fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, float):
            time.sleep(fault)
            raise Refused("DEADLINE_EXCEEDED", "cancelled")
        if isinstance(fault, Refused):
            raise fault
        return fault() if callable(fault) else fault

    def run(self, functions, signature, inputs):
        """The outputs of a request, a dict of arrays."""
        rows = len(next(iter(inputs.values())))
        if self.max_batch_size is not None and rows > self.max_batch_size:
            raise Refused("INVALID_ARGUMENT", f"Task size {rows} is larger than maximum input batch size")
        if not self.merged_rows:
            return _call(functions[signature], inputs)
        with self._lock:
            batch = self._open.setdefault(signature, _Batch())
            part = batch.add(inputs)
            if batch.rows >= self.merged_rows:
                del self._open[signature]
        if batch.rows >= self.merged_rows and part.stop == batch.rows:
            batch.run(functions[signature])
        if not batch.done.wait(_LONGEST_WAIT):
            raise Refused("DEADLINE_EXCEEDED", "the batch was never full")
        if batch.error:
            raise batch.error
        return {name: value[part] for name, value in batch.outputs.items()}


class _Batch:
    def __init__(self):
        self.parts, self.rows, self.done, self.error, self.outputs = [], 0, threading.Event(), None, None

    def add(self, inputs):
        start = self.rows
        self.parts.append(inputs)
        self.rows += len(next(iter(inputs.values())))
        return slice(start, self.rows)

    def run(self, function):
        try:
            joined = {name: np.concatenate([part[name] for part in self.parts]) for name in self.parts[0]}
            self.outputs = _call(function, joined)
        except Refused as error:
            self.error = error
        finally:
            self.done.set()


def _call(function, inputs):
    """Runs a signature; its errors become codes."""
    try:
        outputs = function(**{name: tf.constant(value) for name, value in inputs.items()})
        return {name: value.numpy() for name, value in outputs.items()}
    except tf.errors.OpError as error:
        raise Refused("INVALID_ARGUMENT", error.message) from error
    except (TypeError, ValueError) as error:
        raise Refused("INVALID_ARGUMENT", str(error)) from error


def _classified(model, functions, shown, name, examples):
    """What the Classify API answers: for each `tf.Example` a list of `(label, score)`.

    Source: `servables/tensorflow/classifier.cc` of TF Serving.
    """
    if name not in shown or shown[name].method_name != CLASSIFY_METHOD:
        found = shown[name].method_name if name in shown else "no signature"
        message = f"Expected classification signature method_name to be {CLASSIFY_METHOD}. Was: {found}"
        raise Refused("INVALID_ARGUMENT", message)
    if list(shown[name].inputs) != ["inputs"] or not set(shown[name].outputs) <= {"classes", "scores"}:
        raise Refused("INVALID_ARGUMENT", "Expected one input called inputs, and classes and scores")
    if not examples:
        raise Refused("INVALID_ARGUMENT", "Input is empty")
    model.fault("classify", len(examples))
    outputs = model.run(functions, name, {"inputs": np.array([e.SerializeToString() for e in examples], object)})
    found = {(key, value.dtype.kind, value.ndim) for key, value in outputs.items()}
    if found != {("classes", "O", 2), ("scores", "f", 2)}:
        raise Refused("INVALID_ARGUMENT", "Expected matrices of strings and of floats")
    pairs = zip(outputs["classes"], outputs["scores"], strict=True)
    return [[(label.decode(), float(score)) for label, score in zip(*row, strict=True)] for row in pairs]


def _read_examples(body):
    """The signature's name and the `tf.Example`s of a Classify request in JSON."""
    try:
        content = json.loads(body)
        return content.get("signature_name", "serving_default"), [_example(item) for item in content["examples"]]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadJson(f"JSON Parse error: {error}") from error


def _example(features):
    example = tf.train.Example()
    for name, value in features.items():
        kind = example.features.feature[name]
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict):
                kind.bytes_list.value.append(base64.b64decode(item["b64"], validate=True))
            elif isinstance(item, str):
                kind.bytes_list.value.append(item.encode())
            else:
                (kind.float_list if isinstance(item, float) else kind.int64_list).value.append(item)
    return example


class _RestHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body are written apart: without this the client's delayed acknowledgement adds 40 ms.
    disable_nagle_algorithm = True

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        self._answer("GET", b"")

    def do_POST(self):
        self._answer("POST", self.rfile.read(int(self.headers["Content-Length"])))

    def _answer(self, method, body):
        model, url = self.server.model, _URL.fullmatch(self.path)
        fault = None
        try:
            if not url or (url[4] in (":predict", ":classify")) != (method == "POST"):
                raise Refused("INVALID_ARGUMENT", f"Malformed request: {method} {self.path}")
            functions, shown, number = model.find(url[1], url[2], url[3])
            if url[4] == ":classify":
                name, examples = _read_examples(body)
                text = json.dumps({"results": _classified(model, functions, shown, name, examples)})
            elif method == "POST":
                name, inputs, by_rows = read_request(body, shown)
                fault = model.fault("predict", len(next(iter(inputs.values()))))
                text = write_response(model.run(functions, name, inputs), by_rows)
            elif url[4]:
                fault = model.fault("metadata", 0)
                text = _metadata_json(shown, model.name, number)
            else:
                fault = model.fault("status", 0)
                text = json_format.MessageToJson(
                    model.status(), preserving_proto_field_name=True, always_print_fields_with_no_presence=True
                )
            self._send(200, text, fault)
        except Refused as error:
            self._send(_STATUS[error.code], json.dumps({"error": error.message}), None)
        except BadJson as error:
            self._send(400, json.dumps({"error": str(error)}), None)

    def _send(self, status, text, fault):
        data = text.encode()
        if isinstance(fault, int) and not isinstance(fault, bool):
            status, data = fault, b"<html>a proxy's page</html>"
        if fault == "cut":
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if fault == "half" else data)
        self.close_connection = self.close_connection or fault == "half"


def _metadata_json(shown, name, number):
    content = get_model_metadata_pb2.SignatureDefMap(signature_def=shown)
    signatures = json_format.MessageToDict(content, preserving_proto_field_name=True)
    spec = {"name": name, "signature_name": "", "version": str(number)}
    return json.dumps({"model_spec": spec, "metadata": {"signature_def": signatures}})


class _Predictions(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, model):
        self.model = model

    def Predict(self, request, context):
        with _refusals(context):
            functions, shown, _ = _found(self.model, request)
            name = request.model_spec.signature_name or "serving_default"
            inputs = {key: tf.make_ndarray(tensor) for key, tensor in request.inputs.items()}
            self.model.fault("predict", len(next(iter(inputs.values()))))
            if name not in shown or set(inputs) != set(shown[name].inputs):
                raise Refused("INVALID_ARGUMENT", "input size does not match signature")
            for key, info in shown[name].inputs.items():
                if request.inputs[key].dtype != info.dtype:
                    raise Refused("INVALID_ARGUMENT", f"{key} has the type {request.inputs[key].dtype}")
            answer = predict_pb2.PredictResponse(model_spec=request.model_spec)
            for key, value in self.model.run(functions, name, inputs).items():
                answer.outputs[key].CopyFrom(tf.make_tensor_proto(value))
            return answer

    def Classify(self, request, context):
        with _refusals(context):
            functions, shown, _ = _found(self.model, request)
            name, examples = request.model_spec.signature_name, request.input.example_list.examples
            answer = classification_pb2.ClassificationResponse(model_spec=request.model_spec)
            for row in _classified(self.model, functions, shown, name or "serving_default", list(examples)):
                classes = answer.result.classifications.add().classes
                for label, score in row:
                    classes.add(label=label, score=score)
            return answer

    def GetModelMetadata(self, request, context):
        with _refusals(context):
            _, shown, _ = _found(self.model, request)
            self.model.fault("metadata", 0)
            answer = get_model_metadata_pb2.GetModelMetadataResponse(model_spec=request.model_spec)
            content = get_model_metadata_pb2.SignatureDefMap(signature_def=shown)
            answer.metadata["signature_def"].Pack(content)
            return answer


class _Models(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, model):
        self.model = model

    def GetModelStatus(self, request, context):
        with _refusals(context):
            _found(self.model, request)
            self.model.fault("status", 0)
            return self.model.status()


def _found(model, request):
    spec = request.model_spec
    version = spec.version.value if spec.HasField("version") else None
    return model.find(spec.name, version, spec.version_label or None)


@contextlib.contextmanager
def _refusals(context):
    try:
        yield
    except Refused as error:
        context.abort(grpc.StatusCode[error.code], error.message)


class _RestServer(http.server.ThreadingHTTPServer):
    daemon_threads = True
    # Nothing waits for the threads of connections that a client keeps open.
    block_on_close = False

    def handle_error(self, request, client_address):
        """Connections that a client has closed are what the tests want."""


@contextlib.contextmanager
def rest_server(model, port=0):
    """Serves a `ServedModel` through HTTP while the context lasts; gives `host:port`."""
    server = _RestServer(("127.0.0.1", port), _RestHandler)
    server.model = model
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def grpc_server(model, port=0):
    """Serves a `ServedModel` through gRPC while the context lasts; gives `host:port`."""
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(16))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_Predictions(model), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(_Models(model), server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


@contextlib.contextmanager
def relay(address):
    """Passes bytes between clients and a server while the context lasts.

    Args:
        address: str, the server's `host:port`.

    Yields:
        Its own `host:port`, and a function that cuts every connection; new ones are made as before.
    """
    host, _, port = address.rpartition(":")
    listener, pairs, lock = socket.create_server(("127.0.0.1", 0)), [], threading.Lock()

    def pump(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        _shut(source, target)

    def accept():
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                pair = client, socket.create_connection((host, int(port)))
                with lock:
                    pairs.append(pair)
                for source, target in (pair, pair[::-1]):
                    threading.Thread(target=pump, args=(source, target), daemon=True).start()

    def cut():
        with lock:
            found, pairs[:] = pairs[:], []
        for pair in found:
            _shut(*pair)

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}", cut
    finally:
        _shut(listener)
        cut()
        thread.join()


def _shut(*sockets):
    """Ends connections, also for the threads that wait for them, which closing alone would not."""
    for item in sockets:
        with contextlib.suppress(OSError):
            item.shutdown(socket.SHUT_RDWR)
        item.close()
