"""Clients of TF Serving; their code is `keras_vit_client`, which imports neither Keras nor TensorFlow for REST."""

import keras_vit_client
from keras_vit_client import Client, RestClient, ServerError, Signature, VersionStatus, connect

__all__ = ["Client", "GrpcClient", "RestClient", "ServerError", "Signature", "VersionStatus", "connect"]  # noqa: F822


def __getattr__(name):
    """Imports gRPC on first use only."""
    if name == "GrpcClient":
        return keras_vit_client.GrpcClient
    raise AttributeError(f"module 'keras_vit.export.client' has no attribute {name!r}")
