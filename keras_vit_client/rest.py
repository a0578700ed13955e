"""The REST API of TF Serving, with the standard library's HTTP and connections that stay open."""

import base64
import http.client
import json
import ssl
import threading
import time
import urllib.parse

import numpy as np

from keras_vit_client.base import Client
from keras_vit_client.values import ServerError, Signature, VersionStatus

# The statuses that TF Serving makes of its codes, where one tells the code; 429 and 413 may be a proxy's.
_CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    413: "RESOURCE_EXHAUSTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",  # a proxy's, while the server behind it is away
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_DTYPES = {
    "DT_FLOAT": np.float32,
    "DT_DOUBLE": np.float64,
    "DT_INT8": np.int8,
    "DT_INT16": np.int16,
    "DT_INT32": np.int32,
    "DT_INT64": np.int64,
    "DT_UINT8": np.uint8,
    "DT_UINT16": np.uint16,
    "DT_UINT32": np.uint32,
    "DT_UINT64": np.uint64,
    "DT_BOOL": np.bool_,
    "DT_STRING": object,
}
_CHUNK = 1 << 16


class RestClient(Client):
    """Asks a model through HTTP.

    Args:
        server: str, `http://host:8501` or `https://host`.
        model: str, the model's name on the server.
        version: int or `None`, as for `Client`; so are `label`, `timeout`, `retries` and `max_batch_size`.
        headers: dict or `None`. Sent with every request, for example `{"Authorization": "Bearer ..."}` for a proxy.
        ssl_context: `ssl.SSLContext` or `None`: that of the system. For `https`.
    """

    def __init__(
        self,
        server,
        model,
        version=None,
        label=None,
        timeout=30.0,
        retries=4,
        max_batch_size=8,
        headers=None,
        ssl_context=None,
    ):
        super().__init__(model, version, label, timeout, retries, max_batch_size)
        parts = urllib.parse.urlsplit(server)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"server must be like http://host:8501. Received: {server!r}")
        self._address = (parts.hostname, parts.port)
        self._context = (ssl_context or ssl.create_default_context()) if parts.scheme == "https" else None
        self._path = f"{parts.path.rstrip('/')}/v1/models/{urllib.parse.quote(model, safe='')}"
        if version is not None:
            self._path += f"/versions/{version}"
        if label is not None:
            self._path += f"/labels/{urllib.parse.quote(label, safe='')}"
        self._headers = {"Content-Type": "application/json", **(headers or {})}
        self._server, self._idle, self._lock = server.rstrip("/"), [], threading.Lock()

    def _predict(self, signature, columns, known, seconds):
        inputs = {name: _encoded(column) for name, column in columns.items()}
        body = json.dumps({"signature_name": signature, "inputs": inputs})
        outputs = self._ask("POST", ":predict", body, seconds).get("outputs")
        # A single output comes without its name.
        outputs = outputs if isinstance(outputs, dict) else {next(iter(known.outputs), "outputs"): outputs}
        return {name: _decoded(value) if name.endswith("_bytes") else value for name, value in outputs.items()}

    def _metadata(self, seconds):
        # `signature_def` within `signature_def`: the map is the only field of a message of that name.
        found = self._ask("GET", "/metadata", None, seconds)["metadata"]["signature_def"]["signature_def"]
        return {
            name: Signature(_types(content.get("inputs", {})), _types(content.get("outputs", {})))
            for name, content in found.items()
            if not name.startswith("__")
        }

    def _status(self, seconds):
        found = self._ask("GET", "", None, seconds)["model_version_status"]
        return [
            VersionStatus(int(item["version"]), item["state"], item.get("status", {}).get("error_message", ""))
            for item in found
        ]

    def close(self):
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _ask(self, method, suffix, body, seconds):
        """The JSON that the server answers, or a `ServerError`."""
        asked = f"{method} {self._server}{self._path}{suffix}"
        deadline = time.monotonic() + seconds
        try:
            status, reason, data = self._send(method, self._path + suffix, body, deadline)
        except TimeoutError as error:
            raise ServerError("DEADLINE_EXCEEDED", f"no answer within {seconds:.3g} s", asked) from error
        except ssl.SSLCertVerificationError:
            raise
        except (OSError, http.client.HTTPException) as error:
            raise ServerError("UNAVAILABLE", str(error) or type(error).__name__, asked) from error
        try:
            answer = json.loads(data)
        except ValueError:
            answer = None
        if status != 200:
            told = answer.get("error") if isinstance(answer, dict) else None
            message = told or data[:200].decode("utf-8", "replace").strip() or reason
            raise ServerError(_CODES.get(status, f"HTTP {status}"), message, asked)
        if not isinstance(answer, dict):
            raise ServerError("INTERNAL", f"the answer is no JSON object: {data[:200]!r}", asked)
        return answer

    def _send(self, method, path, body, deadline):
        """Status, reason and body of the answer, through a connection that is idle or new."""
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        if connection is not None:
            try:
                return self._exchange(connection, method, path, body, deadline)
            except ConnectionError:
                # The server has closed what was idle for long, perhaps before this request: a new connection tells.
                pass
        return self._exchange(self._connection(), method, path, body, deadline)

    def _connection(self):
        host, port = self._address
        if self._context is not None:
            return http.client.HTTPSConnection(host, port, context=self._context)
        return http.client.HTTPConnection(host, port)

    def _exchange(self, connection, method, path, body, deadline):
        try:
            connection.timeout = _left(deadline)
            if connection.sock is not None:
                connection.sock.settimeout(connection.timeout)
            connection.request(method, path, body, self._headers)
            socket = connection.sock
            response = connection.getresponse()
            parts = []
            # A timeout of a socket is that of one read: a body that trickles would never end.
            while part := response.read1(_CHUNK):
                parts.append(part)
                socket.settimeout(_left(deadline))
            response.close()
            if response.length:
                raise http.client.IncompleteRead(b"".join(parts), response.length)
        except BaseException:
            connection.close()
            raise
        if not response.will_close:
            with self._lock:
                self._idle.append(connection)
        return response.status, response.reason, b"".join(parts)


def _left(deadline):
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _types(tensors):
    return {name: _DTYPES.get(content["dtype"]) for name, content in tensors.items()}


def _encoded(value):
    """Nested lists for JSON; bytes in the standard alphabet, since TF Serving refuses the URL-safe one."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, bytes | bytearray | memoryview):
        return {"b64": base64.b64encode(value).decode("ascii")}
    return [_encoded(item) for item in value] if isinstance(value, list | tuple) else value


def _decoded(value):
    return [_decoded(item) for item in value] if isinstance(value, list) else base64.b64decode(value["b64"])
