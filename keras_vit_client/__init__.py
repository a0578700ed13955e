"""Clients of a TF Serving server: REST without TensorFlow or Keras, gRPC with the extra `serving`.

A separate package, so that a program that only sends requests starts in a fraction of a second.
"""

import re
import urllib.parse

from keras_vit_client.base import Client
from keras_vit_client.rest import RestClient
from keras_vit_client.values import ServerError, Signature, VersionStatus

__all__ = ["Client", "GrpcClient", "RestClient", "ServerError", "Signature", "VersionStatus", "connect"]

_PATH = re.compile(
    r"(?P<prefix>(?:/.*)?)/v1/models/(?P<model>[^/:]+)(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
)


def connect(url, *, timeout=30.0, retries=4, max_batch_size=8):
    """Creates a client for a model's URL.

    Args:
        url: str, `http://host:8501/v1/models/flowers`, `https://...` or `grpc://host:8500/v1/models/flowers`;
            optionally with `/versions/3` or `/labels/canary`.
        timeout: float. Seconds that a request may take, with its retries. Default 30.
        retries: int. How often a request is repeated after an UNAVAILABLE. Default 4.
        max_batch_size: int. Rows in a request, at most; longer calls are split. Default 8.

    Returns:
        A `RestClient` or a `GrpcClient`.

    Raises:
        ValueError: if the URL is none of these.
        ImportError: for `grpc://` without the extra `serving`.
    """
    parts = urllib.parse.urlsplit(url)
    grpc = parts.scheme == "grpc"
    found = _PATH.fullmatch(parts.path.rstrip("/"))
    if parts.scheme not in ("http", "https", "grpc") or not parts.netloc or not found or (grpc and found["prefix"]):
        raise ValueError(
            "a server's URL must be like http://host:8501/v1/models/NAME or grpc://host:8500/v1/models/NAME, "
            f"with /versions/NUMBER or /labels/LABEL behind it or not. Received: {url!r}"
        )
    names = {name: urllib.parse.unquote(text) for name, text in found.groupdict().items() if text is not None}
    version = int(names["version"]) if "version" in names else None
    options = {"timeout": timeout, "retries": retries, "max_batch_size": max_batch_size}
    if grpc:
        from keras_vit_client.rpc import GrpcClient

        return GrpcClient(parts.netloc, names["model"], version=version, label=names.get("label"), **options)
    server = f"{parts.scheme}://{parts.netloc}{found['prefix']}"
    return RestClient(server, names["model"], version=version, label=names.get("label"), **options)


def __getattr__(name):
    """Imports gRPC and, with it, TensorFlow on first use only."""
    if name == "GrpcClient":
        from keras_vit_client.rpc import GrpcClient

        return GrpcClient
    raise AttributeError(f"module 'keras_vit_client' has no attribute {name!r}")
