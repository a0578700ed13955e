"""The gRPC API of TF Serving, through the extra `serving`; its messages bring TensorFlow with them."""

import numpy as np

from keras_vit_client.base import Client
from keras_vit_client.values import ServerError, Signature, VersionStatus

try:
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import (
        get_model_metadata_pb2,
        get_model_status_pb2,
        model_pb2,
        model_service_pb2_grpc,
        predict_pb2,
        prediction_service_pb2_grpc,
    )
except ImportError as error:
    raise ImportError(
        f"GrpcClient needs the packages of the extra `serving`: "
        f"pip install 'keras-vit-zoo[serving] @ git+<this repository>' ({error}); "
        "RestClient needs none"
    ) from error

_OPTIONS = [
    # Answers may be as large as requests: the default of 4 MB is for small ones.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A channel that has failed waits this long before it connects anew; the retries should find it trying.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 2000),
]


class GrpcClient(Client):
    """Asks a model through gRPC.

    Args:
        server: str, `host:8500`.
        model: str, the model's name on the server.
        version: int or `None`, as for `Client`; so are `label`, `timeout`, `retries` and `max_batch_size`.
        credentials: `grpc.ChannelCredentials` or `None`: without TLS, as TF Serving listens by default.
        metadata: sequence of `(key, value)` that goes with every request.
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
        credentials=None,
        metadata=(),
    ):
        super().__init__(model, version, label, timeout, retries, max_batch_size)
        self._server, self._sent = server, tuple(metadata)
        if credentials is None:
            self._channel = grpc.insecure_channel(server, _OPTIONS)
        else:
            self._channel = grpc.secure_channel(server, credentials, _OPTIONS)
        self._predictions = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)

    def _predict(self, signature, columns, known, seconds):
        request = predict_pb2.PredictRequest(model_spec=self._spec(signature))
        for name, column in columns.items():
            dtype = tf.string if known.inputs[name] is object else tf.as_dtype(column.dtype)
            request.inputs[name].CopyFrom(tf.make_tensor_proto(column, dtype))
        answer = self._ask(self._predictions.Predict, request, seconds)
        return {name: _array(name, tensor) for name, tensor in answer.outputs.items()}

    def _metadata(self, seconds):
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=self._spec(), metadata_field=["signature_def"]
        )
        answer = self._ask(self._predictions.GetModelMetadata, request, seconds)
        found = get_model_metadata_pb2.SignatureDefMap()
        answer.metadata["signature_def"].Unpack(found)
        return {
            name: Signature(_types(content.inputs), _types(content.outputs))
            for name, content in found.signature_def.items()
            if not name.startswith("__")
        }

    def _status(self, seconds):
        request = get_model_status_pb2.GetModelStatusRequest(model_spec=self._spec())
        answer = self._ask(self._models.GetModelStatus, request, seconds)
        states = get_model_status_pb2.ModelVersionStatus.State
        return [
            VersionStatus(item.version, states.Name(item.state), item.status.error_message)
            for item in answer.model_version_status
        ]

    def close(self):
        self._channel.close()

    def _spec(self, signature=None):
        spec = model_pb2.ModelSpec(name=self.model, signature_name=signature or "")
        if self.version is not None:
            spec.version.value = self.version
        if self.label is not None:
            spec.version_label = self.label
        return spec

    def _ask(self, method, request, seconds):
        try:
            return method(request, timeout=seconds, metadata=self._sent)
        except grpc.RpcError as error:
            asked = f"{type(request).__name__} for {self.model} to {self._server}"
            raise ServerError(error.code().name, error.details(), asked) from error


def _types(tensors):
    types = {name: tf.as_dtype(content.dtype) for name, content in tensors.items()}
    return {name: object if dtype == tf.string else dtype.as_numpy_dtype for name, dtype in types.items()}


def _array(name, tensor):
    array = tf.make_ndarray(tensor)
    if array.dtype != object or name.endswith("_bytes"):
        return array
    texts = np.empty(array.shape, object)
    texts.flat = [text.decode("utf-8", "replace") for text in array.flat]
    return texts
