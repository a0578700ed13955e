"""The mode in which models are traced for runtimes other than TensorFlow."""

import contextlib
import contextvars

_portable = contextvars.ContextVar("portable", default=False)


@contextlib.contextmanager
def portable_graph():
    """Traces models with the operations, and in the order, that ONNX, LiteRT and OpenVINO compile best.

    The results are the same up to rounding. Outside this context models use the spelling that is fastest in TensorFlow.
    """
    token = _portable.set(True)
    try:
        yield
    finally:
        _portable.reset(token)


def is_portable():
    """bool. Whether the code runs inside `portable_graph`."""
    return _portable.get()
