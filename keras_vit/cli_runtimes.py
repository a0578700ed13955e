"""`keras_vit export --format`: models for other runtimes."""

import keras_vit_cli
from keras_vit.cli_models import load_model
from keras_vit.export import BATCHES, litert_model, onnx_model, openvino_model

# What `keras_vit export` can also be told, by the names of the options' values.
_OF_SAVED_MODELS = {
    "number": "--version",
    "top_k": "--top-k",
    "dtype": "--dtype",
    "weights": "--weights",
    "compare": "--compare",
    "activation": "--activation",
    "accept": "--accept",
    "max_pixels": "--max-pixels",
    "upright": "--as-stored",
}
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
    if others := _given(options):
        raise ValueError(
            f"{', '.join(others)}: options of SavedModels alone; for another runtime it is fixed what goes in and how "
            f"it is computed. Received: --format {options.format}"
        )
    written = _WRITERS[options.format](load_model(options.model), options.to)
    if written.runtime is None:
        return f"exported: {written.path}; not tried, as its runtime is not installed"
    batches = ", ".join(str(batch) for batch in BATCHES)
    return (
        f"exported: {written.path}; in {written.runtime} within {written.difference:.1g} of Keras "
        f"at batches of {batches}"
    )


def _given(options):
    """The options of SavedModels that are not at their defaults."""
    defaults = keras_vit_cli.defaults("export")
    return [flag for name, flag in _OF_SAVED_MODELS.items() if getattr(options, name) != defaults[name]]
