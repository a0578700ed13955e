"""Tracing models for runtimes other than TensorFlow."""

import contextlib
import contextvars

_portable = contextvars.ContextVar("portable", default=False)


@contextlib.contextmanager
def portable_graph():
    """Inside it, models are traced with operations, and in an order, that ONNX, LiteRT and OpenVINO know too.

    The numbers are the same up to rounding. TensorFlow itself has faster ways to the same end, which are what models
    are made of outside.
    """
    token = _portable.set(True)
    try:
        yield
    finally:
        _portable.reset(token)


def is_portable():
    """bool. Whether the code runs inside `portable_graph`."""
    return _portable.get()
