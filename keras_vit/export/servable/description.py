"""`assets.extra/keras_vit.json`: what a SavedModel says of itself. TF Serving leaves that folder alone."""

import json
import os
import pathlib
import platform

import keras
import tensorflow as tf

from keras_vit.metadata import metadata
from keras_vit.origin import portable_origin
from keras_vit.weights.hub.catalog import catalog
from keras_vit.weights.publish.push import license_of
from keras_vit_cli import __version__

FILE = pathlib.Path("assets.extra") / "keras_vit.json"


def describe(servable, functions, options, difference, license=None):
    """A dict of JSON types that tells everything of a SavedModel but its name and version.

    Args:
        servable: `Servable`.
        functions: dict of concrete functions, the signatures.
        options: dict of JSON types, what the export was asked for.
        difference: from `measure_difference`, or `None`.
        license: str, that of the weights, or `None`: that of the model's metadata, else of
            the catalog, if the weights are of it.
    """
    content = metadata(servable.model)
    entry = catalog().get(content.origin)
    return {
        "model": servable.model.name,
        "family": type(content.config).__name__,
        "config": content.config.get_config(),
        "input_spec": servable.input_spec.get_config(),
        "front": servable.front,
        "labels": None if servable.labels is None else list(servable.labels),
        "weights": {
            "origin": portable_origin(content.origin),
            "license": license_of(content) if license is None else license,
            "paper": entry.paper if entry else None,
            "parameters": servable.model.count_params(),
        },
        "options": options,
        "difference": difference,
        "signatures": {name: _signature(function) for name, function in sorted(functions.items())},
        "libraries": {
            "keras_vit": __version__,
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
            "python": platform.python_version(),
        },
    }


def _signature(function):
    """Names, types and shapes of one signature; -1 is any size."""
    inputs = function.structured_input_signature[0]
    return {
        "inputs": {spec.name: _spec(spec) for spec in inputs},
        "outputs": {name: _spec(spec) for name, spec in sorted(function.structured_outputs.items())},
    }


def _spec(spec):
    return {"dtype": spec.dtype.name, "shape": [-1 if side is None else side for side in spec.shape]}


def write_description(path, name, version, description):
    """Writes the file into the folder of a version, with the name that a server will know the model by."""
    replace_description(path, {"name": name, "version": version, **description})


def replace_description(path, content):
    """Writes a dict as the file, in the place of one that may be linked to another version."""
    file = pathlib.Path(path) / FILE
    file.parent.mkdir(exist_ok=True)
    fresh = file.with_suffix(".new")
    fresh.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(fresh, file)


def read_description(path):
    """What a SavedModel of keras_vit says of itself.

    Args:
        path: of a version.

    Returns:
        Dict with `name`, `version`, `model`, `family`, `config`, `input_spec`, `labels`, `weights`, `options`,
        `difference`, `signatures`, `libraries`.

    Raises:
        ValueError: if there is no such file, or it is no JSON.
    """
    file = pathlib.Path(path) / FILE
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"a SavedModel of keras_vit must hold a readable {FILE}. Received: {str(path)!r} ({error})"
        ) from error


def options_of(path):
    """The options that a SavedModel was exported with, a dict; an empty one where it says nothing of itself."""
    try:
        return read_description(path)["options"]
    except (KeyError, ValueError):
        return {}


def warm_up_format(path):
    """The format of a server's first images: JPEG, or one that the SavedModel takes where it takes no JPEG."""
    formats = options_of(path).get("formats", ["jpeg"])
    return "jpeg" if "jpeg" in formats else formats[0]
