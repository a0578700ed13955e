"""Collects what a checkpoint states about its model: in its own metadata and in the files beside it."""

import dataclasses
import itertools
import json
import re

from keras_vit.preprocessing import InputSpec
from keras_vit.weights.config import json_files, safetensors_metadata
from keras_vit.weights.layouts.keras_layout import read_keras_metadata


@dataclasses.dataclass(frozen=True)
class Description:
    """Facts that a checkpoint states about its model.

    Args:
        fields: dict of fields of the config, from a `config.json`.
        config: the config that keras_vit wrote into the file, or `None`.
        input_spec: `InputSpec`, or `None`.
        labels: tuple of class names, or `None`.
        origin: str. Where the weights come from, or `None`.
        license: str, or `None`.
        architecture: dict, the model's name and arguments that a training program wrote into the file, if `fields` are
            read off them; else an empty one.
    """

    fields: dict = dataclasses.field(default_factory=dict)
    config: object = None
    input_spec: InputSpec | None = None
    labels: tuple | None = None
    origin: str | None = None
    license: str | None = None
    architecture: dict = dataclasses.field(default_factory=dict)

    @property
    def stated(self):
        """dict of fields: of the config in the file, or else of the `config.json`."""
        return self.fields if self.config is None else vars(self.config)

    def input_spec_for(self, config):
        """The preprocessing at a config's image size, or `None` if there is none for as many channels."""
        if self.input_spec is None or self.input_spec.num_channels != config.num_channels:
            return None
        return self.input_spec.replace(size=config.image_size)

    def labels_for(self, config):
        """The labels, or `None` if they are not those of the config's classes."""
        return self.labels if self.labels and len(self.labels) == config.num_classes else None


def describe(checkpoint, preprocessing=True):
    """Collects the `Description` of a checkpoint. The file's own metadata win over the files beside it.

    It reads `config.json` (timm, Hugging Face), `preprocessor_config.json` (Hugging Face), `open_clip_config.json`, and
    the license in the front matter of a model card, `README.md`; without a config, the name of the model that a
    training program wrote into the file.

    Args:
        checkpoint: `Checkpoint` of a model, as returned by `find_model`.
        preprocessing: bool. Whether to read the preprocessing too. Default True.

    Raises:
        ValueError: if one of them is malformed.
    """
    if checkpoint.content is not None and checkpoint.content.kind == "keras":
        content = read_keras_metadata(checkpoint)
        if content is None:
            return Description()
        return Description({}, content.config, content.input_spec, content.labels, content.origin, content.license)
    own = safetensors_metadata.read(checkpoint)
    if own is not None:
        return Description({}, *own, license=_license(checkpoint.path, {}, checkpoint.metadata))
    path = checkpoint.path.with_name("config.json")
    content = _read_json(path)
    if not content:
        path = checkpoint.path.with_name("open_clip_config.json")
        content = _checked(path, json_files.open_clip_to_timm, _read_json(path))
    architecture = {} if content or checkpoint.content is None else checkpoint.content.architecture
    preprocessor_path = checkpoint.path.with_name("preprocessor_config.json")
    preprocessor = _read_json(preprocessor_path)
    if not preprocessing:
        spec = None
    elif "architecture" in content:
        spec = _checked(path, json_files.timm_input_spec, content)
    else:
        spec = _checked(preprocessor_path, json_files.transformers_input_spec, preprocessor)
    if architecture:
        fields = _checked(checkpoint.path, json_files.config_fields, architecture)
    else:
        fields = _checked(path, json_files.config_fields, content)
    labels = _checked(path, json_files.labels, content)
    license = _license(checkpoint.path, content, checkpoint.metadata)
    return Description(fields, None, spec, labels, license=license, architecture=architecture)


def _license(path, content, file_metadata):
    """The license that the file, its `config.json` or the model card beside it states, or `None`."""
    stated = [file_metadata.get("license"), content.get("license")]
    if isinstance(content.get("pretrained_cfg"), dict):
        stated.append(content["pretrained_cfg"].get("license"))
    for value in stated:
        if isinstance(value, str) and value.strip():
            return value.strip()
    card = path.with_name("README.md")
    try:
        lines = card.read_text(encoding="utf-8").splitlines() if card.is_file() else []
    except (OSError, ValueError):
        return None
    if not lines or lines[0].strip() != "---":
        return None
    for line in itertools.takewhile(lambda line: line.strip() != "---", lines[1:]):
        if match := re.fullmatch(r"license:\s*[\"']?([\w.+-]+)[\"']?\s*", line):
            return match[1]
    return None


def _read_json(path):
    """The object in a JSON file; an empty dict where there is none."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"a {path.name} must be JSON. Received: {str(path)!r} ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"a {path.name} must hold an object. Received: {str(path)!r}")
    return content


def _checked(path, read, content):
    """Calls a function on an object; its errors name the file."""
    try:
        return read(content)
    except (ValueError, TypeError, AttributeError, KeyError, ArithmeticError) as error:
        raise ValueError(f"a {path.name} must be as its library writes it. Received: {str(path)!r}: {error}") from error
