"""What keras_vit writes into its own `.safetensors` files, for what no array tells: config, preprocessing, labels.

It stands as JSON under one key of the file's metadata, which other readers pass over.
"""

import json

from keras_vit.metadata import ModelMetadata, metadata
from keras_vit.models.build import BUILDERS
from keras_vit.preprocessing import InputSpec

KEY = "keras_vit"
_FAMILIES = {family.__name__: family for family in BUILDERS}


def write(model):
    """The metadata for a model's file: dict of str to str."""
    content = metadata(model)
    described = {
        "family": type(content.config).__name__,
        "config": content.config.get_config(),
        "input_spec": content.input_spec.get_config(),
        "labels": content.labels,
    }
    return {KEY: json.dumps(described)}


def read(checkpoint):
    """Config, `InputSpec` and labels (a tuple or `None`) of a checkpoint, or `None` if keras_vit did not write it.

    Raises:
        ValueError: if what stands there is no description of a model.
    """
    if KEY not in checkpoint.metadata:
        return None
    # A file may come from anywhere: nothing but the checks of these classes decides what is taken.
    try:
        content = json.loads(checkpoint.metadata[KEY])
        config = _FAMILIES[content["family"]].from_config(content["config"])
        found = ModelMetadata(config, InputSpec.from_config(content["input_spec"]), content["labels"])
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ValueError(
            f"the metadata {KEY!r} of a checkpoint must be what keras_vit writes. "
            f"Received: {str(checkpoint.path)!r} ({type(error).__name__}: {error})"
        ) from error
    return found.config, found.input_spec, found.labels
