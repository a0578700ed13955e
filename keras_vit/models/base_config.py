"""What the configs of all families have in common."""

import dataclasses
import json
import typing

from keras_vit.models.aliases import resolve_aliases
from keras_vit.validation import nearest, replace_fields

CLASSIFIER_ACTIVATIONS = (None, "linear", "softmax", "sigmoid")


class ModelConfig:
    """Base of the frozen dataclasses that describe an architecture: changed by copy, read and written as JSON.

    Raises:
        TypeError: on an unknown field, with the nearest one, also where it is another library's word for one of ours.
        ValueError: on a word of another library that means something else here, with what to do instead.
    """

    def __new__(cls, *args, **fields):
        known = [field.name for field in dataclasses.fields(cls)]
        unknown = {name: value for name, value in fields.items() if name not in known}
        if unknown:
            meant = resolve_aliases(unknown, cls)
            name, value = next(iter(unknown.items()))
            own = [word for word in meant if word in known]
            advice = f"; use {', '.join(f'{word}={meant[word]!r}' for word in own)}." if own else nearest(name, known)
            raise TypeError(f"unknown field of {cls.__name__}{advice} Received: {name}={value!r}")
        return super().__new__(cls)

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
