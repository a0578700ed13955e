"""Metadata in the `.safetensors` files that keras_vit writes: config, preprocessing, labels.

They are JSON under one key of the file's metadata, which other readers ignore.
"""

import json

from keras_vit.metadata import ModelMetadata, metadata
from keras_vit.models.build import BUILDERS
from keras_vit.preprocessing import InputSpec

KEY = "keras_vit"
_FAMILIES = {family.__name__: family for family in BUILDERS}


def write(model):
    """Returns the metadata for a model's file: dict of str to str."""
    content = metadata(model)
    stated = {
        "family": type(content.config).__name__,
        "config": content.config.get_config(),
        "input_spec": content.input_spec.get_config(),
        "labels": content.labels,
    }
    license = {} if content.license is None else {"license": content.license}
    return {KEY: json.dumps(stated), **license}


def read(checkpoint):
    """Reads config, `InputSpec` and labels (a tuple or `None`) of a checkpoint; `None` if keras_vit did not write it.

    Raises:
        ValueError: if the metadata are malformed.
    """
    if KEY not in checkpoint.metadata:
        return None
    try:
        content = json.loads(checkpoint.metadata[KEY])
        parts = [{"class_name": content["family"], "config": content["config"]}, {"config": content["input_spec"]}]
        content = {"config": parts[0], "input_spec": parts[1], "labels": content["labels"]}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise _malformed(checkpoint.path, error) from error
    parsed = parse(content, checkpoint.path)
    return parsed.config, parsed.input_spec, parsed.labels


def parse(content, path):
    """Parses the config of a metadata layer; returns a `ModelMetadata`.

    A file may come from anywhere: every field is checked by these classes.

    Args:
        content: dict of `config`, `input_spec`, `labels` and maybe `origin` and `license`, the config of a layer of
            metadata.
        path: of the file, for messages.

    Raises:
        ValueError: if it is malformed.
    """
    try:
        config, spec = content["config"], content["input_spec"]
        return ModelMetadata(
            _FAMILIES[config["class_name"]].from_config(config["config"]),
            InputSpec.from_config(spec["config"]),
            content["labels"],
            content.get("origin"),
            content.get("license"),
        )
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError) as error:
        raise _malformed(path, error) from error


def _malformed(path, error):
    return ValueError(
        f"the metadata {KEY!r} of a checkpoint must be what keras_vit writes. "
        f"Received: {str(path)!r} ({type(error).__name__}: {error})"
    )
