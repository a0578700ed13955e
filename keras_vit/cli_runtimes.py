"""`keras_vit export --format`: models for other runtimes."""

import pathlib

import keras_vit_cli
from keras_vit.export import BATCHES, litert_model, onnx_model, openvino_model
from keras_vit.zoo import load_model

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
    "batch_sizes": "--batch-sizes",
    "license": "--license",
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
    labels = read_labels(options.labels)
    written = _WRITERS[options.format](load_model(options.model), options.to, labels)
    if written.runtime is None:
        return f"exported: {written.path}; not tried, as its runtime is not installed"
    batches = ", ".join(str(batch) for batch in BATCHES)
    return (
        f"exported: {written.path}; in {written.runtime} within {written.difference:.1g} of Keras "
        f"at batches of {batches}"
    )


def read_labels(file):
    """The class names in a text file, one a line.

    Args:
        file: path, or `None`.

    Returns:
        A list of str, or `None` without a file.

    Raises:
        ValueError: if the file is no text, or a line is empty.
        OSError: if it cannot be read.
    """
    if file is None:
        return None
    try:
        labels = [line.strip() for line in pathlib.Path(file).read_text(encoding="utf-8").rstrip().split("\n")]
    except UnicodeDecodeError as error:
        raise ValueError(f"labels must be text in UTF-8. Received: {str(file)!r} ({error})") from error
    if "" in labels:
        raise ValueError(f"labels must be one a line. Received: {str(file)!r}, line {labels.index('') + 1} is empty")
    return labels


def _given(options):
    """The options of SavedModels that are not at their defaults."""
    defaults = keras_vit_cli.defaults("export")
    return [flag for name, flag in _OF_SAVED_MODELS.items() if getattr(options, name) != defaults[name]]
