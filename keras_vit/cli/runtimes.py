"""`keras_vit export --format`: models for other runtimes."""

import pathlib

import keras_vit_cli
from keras_vit.atomic import replaced
from keras_vit.export import BATCHES, litert_model, onnx_model, openvino_model
from keras_vit.metadata import composition, update_metadata
from keras_vit.validation import nearest
from keras_vit.zoo.create import load_model
from keras_vit_client.image_files import find_images

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
# Endings of the files of each format; a SavedModel is a folder.
_SUFFIXES = {"onnx": ".onnx", "litert": ".tflite", "openvino": ".xml", "keras": ".keras"}
_ADVICE = {
    (".safetensors", ".npz"): "weights alone are written by `keras_vit convert {model} {to} --layout timm`",
    (".pt", ".pth", ".pt2", ".ckpt", ".torchscript"): (
        "for PyTorch write weights that timm reads: `keras_vit convert {model} weights.safetensors --layout timm`"
    ),
    (".h5", ".hdf5"): "Keras 3 writes models as .keras: `keras_vit export {model} --to {stem}.keras`",
    (".bin",): "OpenVINO's weights lie beside the .xml file: `keras_vit export {model} --to {stem}.xml`",
    (".pb", ".savedmodel", ".pbtxt"): "a SavedModel is a folder: `keras_vit export {model} --to {stem}`",
    (
        ".ort",
        ".mlmodel",
        ".mlpackage",
        ".engine",
        ".plan",
        ".trt",
        ".uff",
        ".pdmodel",
        ".gguf",
        ".zip",
        ".tar",
        ".gz",
    ): ("there is no such format; other tools convert an .onnx file: `keras_vit export {model} --to {stem}.onnx`"),
}


def export_format(model, to, chosen=None):
    """The format that an export is written in.

    Args:
        model: str, as the command got it, for the advice.
        to: path of what is written. Where no format is chosen its ending decides: `.onnx`, `.tflite`, `.xml`, `.keras`;
            any other name is that of a folder of SavedModels.
        chosen: what `--format` says, or `None`.

    Returns:
        str: `saved_model`, `onnx`, `litert`, `openvino`, `keras` or `torch`.

    Raises:
        ValueError: if the ending is not that of the format, or of a file that is not written here, with what to do.
    """
    path = pathlib.Path(to)
    suffix, stem = path.suffix.lower(), path.with_suffix("")
    by_ending = {ending: name for name, ending in _SUFFIXES.items()}.get(suffix)
    if chosen is None and by_ending is None:
        for endings, advice in _ADVICE.items():
            if suffix in endings and not path.is_dir():
                raise ValueError(f"{advice.format(model=model, to=to, stem=stem)}. Received: --to {to}")
        if (meant := nearest(suffix, _SUFFIXES.values())) != "." and not path.is_dir():
            raise ValueError(
                f"a file must end in one of {', '.join(_SUFFIXES.values())}; --format saved_model makes a folder of "
                f"any name{meant} Received: --to {to}"
            )
    if by_ending and path.is_dir():
        raise ValueError(f"{suffix} is the ending of a file, and there is a folder of that name. Received: --to {to}")
    if chosen in _SUFFIXES and by_ending != chosen:
        example = (
            path / f"model{_SUFFIXES[chosen]}" if path.is_dir() or not suffix else path.with_suffix(_SUFFIXES[chosen])
        )
        raise ValueError(
            f"--format {chosen} writes a file that ends in {_SUFFIXES[chosen]}, for example --to {example}. "
            f"Received: --to {to}"
        )
    if chosen == "saved_model" and by_ending:
        raise ValueError(
            f"a SavedModel is a folder, for example --to {stem}; without --format the ending {suffix} chooses "
            f"{by_ending}. Received: --format saved_model --to {to}"
        )
    return chosen or by_ending or "saved_model"


def export_runtime(options, file_format):
    """Writes a model as one file.

    Args:
        options: `model`, `to`, `labels`, and the options of SavedModels, which must be at their defaults.
        file_format: `onnx`, `litert`, `openvino`, `keras`, or `torch`, which is refused.

    Returns:
        str, what was written and how it was tried.

    Raises:
        ValueError: for `torch`, with what to do instead; if the model cannot be written.
        ImportError: if a package is missing, with the extra that brings it.
    """
    if file_format == "torch":
        raise ValueError(
            "PyTorch's formats are written from PyTorch alone, where models are of torch.nn (KERAS_BACKEND=torch). "
            "Or write the weights for timm: `keras_vit convert MODEL weights.safetensors --layout timm`. "
            "Received: --format torch"
        )
    if (options.quantize or options.images) and file_format != "litert":
        raise ValueError(
            "--quantize and --images are for LiteRT, --to NAME.tflite; SavedModels have --weights int8. "
            f"Received: --to {options.to}"
        )
    if others := _given(options):
        raise ValueError(
            f"{', '.join(others)}: options of SavedModels alone; for another runtime it is fixed what goes in and how "
            f"it is computed. Received: a file of the format {file_format}, --to {options.to}"
        )
    labels = read_labels(options.labels)
    if file_format == "keras":
        return _save_keras(load_model(options.model), pathlib.Path(options.to), labels)
    model, quantization = load_model(options.model), {}
    if options.quantize or options.images:
        quantization["quantize"] = options.quantize
        quantization["images"] = options.images and find_images(options.images)
    written = _WRITERS[file_format](model, options.to, labels, **quantization)
    if written.quantization:
        return f"exported: {written.path}; {_quantization_text(written)}"
    if written.runtime is None:
        return f"exported: {written.path}; not tried, as its runtime is not installed"
    batches = ", ".join(str(batch) for batch in BATCHES)
    return (
        f"exported: {written.path}; in {written.runtime} within {written.difference:.1g} of Keras "
        f"at batches of {batches}"
    )


def _quantization_text(written):
    """How the outputs of a quantized file differ from those of Keras, on the images that it was calibrated on."""
    found = written.quantization
    text = (
        f"in {written.runtime}, {found['images']} images: outputs differ from Keras by {found['outputs_mean']:.2%} of "
        f"the largest on average, {found['outputs_max']:.2%} at most"
    )
    return text + (f"; the same best class for {found['top1_agreement']:.1%}" if "top1_agreement" in found else "")


def _save_keras(model, path, labels):
    """Writes a `.keras` file, which appears whole or not at all."""
    if labels is not None:
        update_metadata(composition(model).inner, labels=labels)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path) as partial:
        model.save(partial)
    return f"exported: {path}; `import keras, keras_vit; keras.models.load_model({str(path)!r})` reads it"


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
