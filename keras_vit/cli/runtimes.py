"""Exports files for other runtimes, and chooses the format of an export."""

import dataclasses
import pathlib

from keras_vit.atomic import replaced
from keras_vit.export import BATCHES, litert_model, onnx_model, openvino_model
from keras_vit.export.servable.options import ExportOptions
from keras_vit.metadata import composition, update_metadata
from keras_vit.validation import nearest
from keras_vit.zoo.create import load_model
from keras_vit_client.image_files import find_images

# Options of SavedModels by the names of their values, and the flags that are not spelled as these.
_SAVED_MODEL_OPTIONS = (
    "version",
    *(field.name for field in dataclasses.fields(ExportOptions) if field.name != "labels"),
)
_FLAGS = {"formats": "--image-formats", "apply_exif_orientation": "--ignore-exif-orientation"}
_WRITERS = {"onnx": onnx_model, "litert": litert_model, "openvino": openvino_model}
# File suffixes of the formats; a SavedModel is a folder.
_SUFFIXES = {"onnx": ".onnx", "litert": ".tflite", "openvino": ".xml", "keras": ".keras"}
_ADVICE = {
    (".safetensors", ".npz"): "to write only the weights: `keras_vit convert {model} {to} --layout timm`",
    (".pt", ".pth", ".pt2", ".ckpt", ".torchscript"): (
        "for PyTorch, write weights that timm reads: `keras_vit convert {model} weights.safetensors --layout timm`"
    ),
    (".h5", ".hdf5"): "Keras 3 writes models as .keras: `keras_vit export {model} --to {stem}.keras`",
    (".bin",): "OpenVINO writes its weights beside the .xml file: `keras_vit export {model} --to {stem}.xml`",
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
    ): ("this format is not supported; other tools convert an .onnx file: `keras_vit export {model} --to {stem}.onnx`"),
}


def export_format(model, to, chosen=None):
    """Chooses the format of an export.

    Args:
        model: str, the model as given on the command line, for suggestions in errors.
        to: output path. Without `chosen` its suffix selects the format: `.onnx`, `.tflite`, `.xml`, `.keras`; any other
            path is a folder of SavedModels.
        chosen: value of `--format`, or `None`.

    Returns:
        str: `saved_model`, `onnx`, `litert`, `openvino` or `keras`.

    Raises:
        ValueError: if the suffix does not match the format, or is that of an unsupported format.
    """
    path = pathlib.Path(to)
    suffix, stem = path.suffix.lower(), path.with_suffix("")
    by_suffix = {suffix: name for name, suffix in _SUFFIXES.items()}.get(suffix)
    if chosen is None and by_suffix is None:
        for suffixes, advice in _ADVICE.items():
            if suffix in suffixes and not path.is_dir():
                raise ValueError(f"{advice.format(model=model, to=to, stem=stem)}. Received: --to {to}")
        if (meant := nearest(suffix, _SUFFIXES.values())) != "." and not path.is_dir():
            raise ValueError(
                f"the suffix of a file must be one of {', '.join(_SUFFIXES.values())}; for a folder with this name add "
                f"--format saved_model{meant} Received: --to {to}"
            )
    if by_suffix and path.is_dir():
        raise ValueError(f"{suffix} is a file suffix, but there is a folder of that name. Received: --to {to}")
    if chosen in _SUFFIXES and by_suffix != chosen:
        example = (
            path / f"model{_SUFFIXES[chosen]}" if path.is_dir() or not suffix else path.with_suffix(_SUFFIXES[chosen])
        )
        raise ValueError(
            f"--format {chosen} writes a file with the suffix {_SUFFIXES[chosen]}, for example --to {example}. "
            f"Received: --to {to}"
        )
    if chosen == "saved_model" and by_suffix:
        raise ValueError(
            f"a SavedModel is a folder, for example --to {stem}; without --format the suffix {suffix} selects "
            f"{by_suffix}. Received: --format saved_model --to {to}"
        )
    return chosen or by_suffix or "saved_model"


def export_runtime(options, file_format):
    """Writes a model as one file.

    Args:
        options: `model`, `to`, `labels`, and the options of SavedModels, which must not be set.
        file_format: `onnx`, `litert`, `openvino` or `keras`.

    Returns:
        str: a report of the written file and its test.

    Raises:
        ValueError: if the model cannot be exported, or an option does not apply.
        ImportError: if a package is missing, with the extra that installs it.
    """
    if (options.quantize or options.images) and file_format != "litert":
        raise ValueError(
            "--quantize and --images apply to LiteRT, --to NAME.tflite; for a SavedModel use --weights int8. "
            f"Received: --to {options.to}"
        )
    if given := given_options(options):
        flags = ", ".join(_FLAGS.get(name, f"--{name.replace('_', '-')}") for name in given)
        raise ValueError(
            f"{flags}: options of SavedModels only; leave them out for other runtimes, whose inputs and compute dtype "
            f"are fixed. Received: --to {options.to} with the format {file_format}"
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
        return f"exported: {written.path}; not verified, because its runtime is not installed"
    batches = ", ".join(str(batch) for batch in BATCHES)
    return (
        f"exported: {written.path}; in {written.runtime} within {written.difference:.1g} of Keras "
        f"at batches of {batches}"
    )


def _quantization_text(written):
    """Describes the error of a quantized file on its calibration images."""
    error = written.quantization
    text = (
        f"in {written.runtime}, {error['images']} images: outputs differ from Keras by {error['outputs_mean']:.2%} of "
        f"the largest on average, {error['outputs_max']:.2%} at most"
    )
    return text + (f"; the same best class for {error['top1_agreement']:.1%}" if "top1_agreement" in error else "")


def _save_keras(model, path, labels):
    """Writes a `.keras` file atomically."""
    if labels is not None:
        update_metadata(composition(model).inner, labels=labels)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path) as partial:
        model.save(partial)
    return f"exported: {path}; `import keras, keras_vit; keras.models.load_model({str(path)!r})` reads it"


def read_labels(file):
    """Reads class names from a text file, one per line.

    Args:
        file: path, or `None`.

    Returns:
        A list of str, or `None` without a file.

    Raises:
        ValueError: if the file is not text, or a line is empty.
        OSError: if it cannot be read.
    """
    if file is None:
        return None
    try:
        labels = [line.strip() for line in pathlib.Path(file).read_text(encoding="utf-8").rstrip().split("\n")]
    except UnicodeDecodeError as error:
        raise ValueError(f"labels must be UTF-8 text. Received: {str(file)!r} ({error})") from error
    if "" in labels:
        raise ValueError(f"labels must be one per line. Received: {str(file)!r}, line {labels.index('') + 1} is empty")
    return labels


def given_options(options):
    """Returns the options of SavedModels that the command line sets, a dict of arguments of `saved_model`."""
    values = {name: getattr(options, name, None) for name in _SAVED_MODEL_OPTIONS}
    return {name: value for name, value in values.items() if value is not None}
