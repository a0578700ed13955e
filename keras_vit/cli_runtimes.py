"""`keras_vit export --format`: models for other runtimes."""

from keras_vit.cli_models import load_model
from keras_vit.export import BATCHES, litert_model, onnx_model, openvino_model

_WRITERS = {"onnx": onnx_model, "litert": litert_model, "openvino": openvino_model}


def export_runtime(options):
    """Writes a model for another runtime.

    Args:
        options: `model`, `to` and `format`, one of `onnx`, `litert`, `openvino`, or `torch`, which is refused.

    Returns:
        str, what was written and how it was tried.

    Raises:
        ValueError: for `torch`, with what to do instead; if the model cannot be written.
        ImportError: if a package is missing, with the extra that brings it.
    """
    if options.format == "torch":
        raise ValueError(
            "PyTorch's formats are written from PyTorch alone, where models are of torch.nn (KERAS_BACKEND=torch). "
            "Or write the weights for timm: `keras_vit convert MODEL weights.safetensors --layout timm`. "
            "Received: --format torch"
        )
    written = _WRITERS[options.format](load_model(options.model), options.to)
    if written.runtime is None:
        return f"exported: {written.path}; not tried, as its runtime is not installed"
    batches = ", ".join(str(batch) for batch in BATCHES)
    return (
        f"exported: {written.path}; in {written.runtime} within {written.difference:.1g} of Keras "
        f"at batches of {batches}"
    )
