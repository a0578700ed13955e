"""What the configs of all families have in common."""

import dataclasses
import json
import typing

from keras_vit.validation import replace_fields

CLASSIFIER_ACTIVATIONS = (None, "linear", "softmax", "sigmoid")


class ModelConfig:
    """Base of the frozen dataclasses that describe an architecture: changed by copy, read and written as JSON."""

    def replace(self, **changes):
        """A copy with some fields changed and everything checked again.

        Raises:
            ValueError: on an unknown field, with the nearest one.
        """
        return replace_fields(self, changes)

    def get_config(self):
        """The fields as JSON types."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_config(cls, config):
        """The inverse of `get_config`; unknown or missing fields raise a `TypeError`."""
        return cls(**config)

    def to_json(self):
        """The config as an indented JSON string."""
        return json.dumps(self.get_config(), indent=2)

    @classmethod
    def from_json(cls, text) -> typing.Self:
        """The inverse of `to_json`."""
        return cls.from_config(json.loads(text))
