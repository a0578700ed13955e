"""Reads and writes `assets.extra/keras_vit.json`, the metadata of a SavedModel; TF Serving ignores that folder."""

import json
import os
import pathlib
import platform

import keras
import tensorflow as tf

from keras_vit.metadata import metadata
from keras_vit.origin import portable_origin
from keras_vit.version import __version__
from keras_vit.weights.hub.catalog import catalog
from keras_vit.weights.publish.push import license_of

FILE = pathlib.Path("assets.extra") / "keras_vit.json"


def describe(servable, functions, error):
    """Describes a SavedModel, all but its name and version, as a dict of JSON types.

    Args:
        servable: `Servable`.
        functions: dict of concrete functions, the signatures.
        error: dict of `quantization_error`, or `None`.
    """
    content, options = metadata(servable.model), servable.options
    entry = catalog().get(content.origin)
    return {
        "model": servable.model.name,
        "family": type(content.config).__name__,
        "config": content.config.get_config(),
        "input_spec": options.input_spec.get_config(),
        "front": servable.front,
        "labels": None if options.labels is None else list(options.labels),
        # Absent where there is none, as in files of before.
        **({} if servable.calibration is None else {"calibration": servable.calibration.get_config()}),
        "weights": {
            "origin": portable_origin(content.origin),
            "license": license_of(content) if options.license is None else options.license,
            "paper": entry.paper if entry else None,
            "parameters": servable.model.count_params(),
        },
        "options": {
            "top_k": options.top_k,
            "dtype": options.dtype,
            "weights": options.weights,
            "activation": options.activation,
            "formats": list(options.formats),
            "max_pixels": options.max_pixels,
            "upright": options.apply_exif_orientation,
        },
        "difference": error,
        "signatures": {name: _signature(function) for name, function in sorted(functions.items())},
        "libraries": {
            "keras_vit": __version__,
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
            "python": platform.python_version(),
        },
    }


def _signature(function):
    """Returns names, dtypes and shapes of one signature; -1 is any size."""
    inputs = function.structured_input_signature[0]
    return {
        "inputs": {spec.name: _spec(spec) for spec in inputs},
        "outputs": {name: _spec(spec) for name, spec in sorted(function.structured_outputs.items())},
    }


def _spec(spec):
    return {"dtype": spec.dtype.name, "shape": [-1 if side is None else side for side in spec.shape]}


def write_description(path, name, version, description):
    """Writes the file into the folder of a version, with the model's name on a server."""
    replace_description(path, {"name": name, "version": version, **description})


def replace_description(path, content):
    """Replaces the file, which may be a hard link to that of another version."""
    file = pathlib.Path(path) / FILE
    file.parent.mkdir(exist_ok=True)
    partial = file.with_suffix(".new")
    partial.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, file)


def read_description(path):
    """Reads the metadata of a SavedModel of keras_vit.

    Args:
        path: of a version.

    Returns:
        Dict with `name`, `version`, `model`, `family`, `config`, `input_spec`, `labels`, `weights`, `options`,
        `difference`, `signatures`, `libraries`; of a calibrated model also `calibration`.

    Raises:
        ValueError: if the file is missing or not JSON.
    """
    file = pathlib.Path(path) / FILE
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"a SavedModel of keras_vit must hold a readable {FILE}. Received: {str(path)!r} ({error})"
        ) from error


def read_options(path):
    """Reads the options that a SavedModel was exported with, a dict; empty without metadata."""
    try:
        return read_description(path)["options"]
    except (KeyError, ValueError):
        return {}


def warm_up_format(path):
    """Returns the image format of warm-up records: JPEG, or the first accepted one if JPEG is not accepted."""
    formats = read_options(path).get("formats", ["jpeg"])
    return "jpeg" if "jpeg" in formats else formats[0]
