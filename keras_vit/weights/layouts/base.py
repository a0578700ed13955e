"""Base of layouts: a table of rules between variables and keys, used for loading and saving."""

import dataclasses
import re
from typing import ClassVar

import numpy as np

from keras_vit.models import ViTConfig
from keras_vit.weights.config.infer import complete_vit
from keras_vit.weights.layouts.transforms import SAME, Transform

_ALIKE = ("token", "gap")


# Prefixes of the variables of classifiers.
HEADS = ("head/", "head_dist/")


@dataclasses.dataclass(frozen=True)
class Rule:
    """A rule between variables of a model and keys of a file.

    Args:
        ours: paths of variables, joined along the last axis where there are several.
        theirs: keys, joined likewise after `transform`.
        transform: `Transform` of each of their arrays.
        split_sizes: ints, one for each of `ours`: their relative widths.
    """

    ours: tuple
    theirs: tuple
    transform: Transform = SAME
    split_sizes: tuple = (1,)

    def load(self, arrays, config):
        """Converts arrays of the file to arrays of the model."""
        return _divide([self.transform.load(array, config) for array in arrays], self.split_sizes)

    def save(self, arrays, config):
        """Converts arrays of the model to arrays of the file."""
        return [self.transform.save(array, config) for array in _divide(arrays, (1,) * len(self.theirs))]


def _divide(arrays, split_sizes):
    """Joins arrays along the last axis and splits them by relative widths."""
    if len(arrays) == len(split_sizes):
        return arrays
    whole = arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=-1)
    unit = whole.shape[-1] // sum(split_sizes)
    return np.split(whole, np.cumsum(split_sizes)[:-1] * unit, axis=-1)


def rule(ours, theirs, transform=SAME, split_sizes=(1,)):
    """Makes a `Rule`; names may be single or in tuples."""
    ours, theirs = ((names,) if isinstance(names, str) else tuple(names) for names in (ours, theirs))
    return Rule(ours, theirs, transform, split_sizes)


def norm(ours, theirs, names=("weight", "bias")):
    """Returns the rules of a layer norm."""
    return [
        rule(f"{ours}/{mine}", f"{theirs}{their}") for mine, their in zip(("gamma", "beta"), _ends(names), strict=True)
    ]


def dense(ours, theirs, transform, names=("weight", "bias")):
    """Returns the rules of a dense layer; `theirs` is a prefix or several, whose arrays are joined."""
    prefixes = (theirs,) if isinstance(theirs, str) else theirs
    kernel, bias = _ends(names)
    return [
        rule(f"{ours}/kernel", tuple(p + kernel for p in prefixes), transform),
        rule(f"{ours}/bias", tuple(p + bias for p in prefixes)),
    ]


def _ends(names):
    return [name if name.startswith(("_", "/", ".")) else f".{name}" for name in names]


class Layout:
    """Names and shapes of the arrays in a source's files; base of the frozen dataclasses of all layouts.

    Attributes:
        name: str, the value of `layout=`.
        ignored: patterns of keys of parts that the models here do not have, such as a text tower.
        square_positions: bool. Whether the source's position tables are square for every image.
        spare_position: bool. Whether a table may begin with an entry that belongs to no token.
        config_class: the class of its models' configs.
        patch_size, grid_size: `(h, w)` of the model that a file was written from, or `None` if unknown.
    """

    name: ClassVar[str]
    ignored: ClassVar[tuple] = ()
    square_positions: ClassVar[bool] = False
    spare_position: ClassVar[bool] = False
    config_class: ClassVar[type] = ViTConfig
    patch_size: ClassVar[tuple | None] = None
    grid_size: ClassVar[tuple | None] = None

    def bind(self, paths):
        """Returns the layout for a model with variables of these paths, in its order."""
        return self

    def table(self, config):
        """Returns the rules of a model; those of variables that it lacks are left out later."""
        raise NotImplementedError

    def refuses(self, config):
        """Gives the reason why the layout cannot hold a model of this config, or `None`.

        A field of the config that the layout does not name is a reason.
        """
        raise NotImplementedError

    def infer(self, shapes, known_fields):
        """Infers fields of the config from keys and shapes, as a dict.

        Args:
            shapes: dict from key to shape.
            known_fields: dict of fields known from elsewhere, for what shapes leave open.
        """
        raise NotImplementedError

    def infer_values(self, checkpoint):
        """Infers fields of the config from the values of a file's constants, as a dict."""
        return {}

    def merge(self, inferred, stated):
        """Merges inferred fields with those that a `config.json` states, which win wherever the arrays are ambiguous.

        A position table is unambiguous, so an `image_size` that does not fit it is ignored. Of the poolings only the
        class token and the mean beside it look alike; a gated MLP fixes the activation.
        """
        stated = {name: value for name, value in stated.items() if name != "image_size" or name not in inferred}
        alike = inferred.get("class_token", True) and inferred.get("pooling", "token") in _ALIKE
        if not alike or stated.get("pooling") not in _ALIKE:
            stated.pop("pooling", None)
        if inferred.get("activation") == "swiglu":
            stated.pop("activation", None)
        return {**inferred, **stated}

    def make_config(self, fields):
        """Builds the config of inferred fields.

        Raises:
            ValueError: if a necessary field is missing.
        """
        return complete_vit(fields)

    def unpack(self, checkpoint):
        """Returns the checkpoint with separate arrays for each block."""
        return checkpoint

    def pack(self, tensors):
        """Inverts `unpack` for a dict of arrays."""
        return tensors

    def constants(self, config):
        """Returns the constants of the graph that the source stores in its files, by key."""
        return {}

    def check_constants(self, checkpoint, config):
        """Raises a `ValueError` where a file's constants contradict the config."""


def weights_by_path(model):
    """Returns the variables of a model by path, without the states of random generators."""
    return {variable.path: variable for variable in model.weights if "seed_generator" not in variable.path}


def is_head(item):
    """Returns whether a rule belongs to a classifier."""
    return item.ours[0].startswith(HEADS)


def expand(rules, config, paths):
    """Expands `{i}` to the number of every block, and drops rules without existing variables.

    Args:
        rules: list of `Rule`.
        config: with `num_layers` if a rule counts.
        paths: the paths of the model's variables.

    Returns:
        A list of `Rule`.
    """
    paths = set(paths)
    return [item for item in expand_blocks(rules, config) if set(item.ours) <= paths]


def expand_blocks(rules, config):
    """Expands `{i}` in rules to the number of every block of a config."""
    counted = []
    for item in rules:
        if "{i}" not in item.ours[0]:
            counted.append(item)
            continue
        for i in range(config.num_layers):
            ours, theirs = (tuple(name.replace("{i}", str(i)) for name in names) for names in (item.ours, item.theirs))
            counted.append(dataclasses.replace(item, ours=ours, theirs=theirs))
    return counted


# Fields of Vision Transformers that shapes determine, or that weights do not depend on.
_IN_EVERY_LAYOUT = frozenset(
    [
        "image_size",
        "patch_size",
        "drop_remainder",
        "num_channels",
        "hidden_dim",
        "num_layers",
        "num_heads",
        "mlp_dim",
        "num_classes",
        "pre_logits_dim",
        "pre_logits_activation",
        "classifier_activation",
        "layer_norm_epsilon",
        "position_resize",
        "dropout_rate",
        "attention_dropout_rate",
        "drop_path_rate",
        "drop_path_schedule",
        "dynamic_image_size",
    ]
)


def differing(config, held, **allowed):
    """Gives the reason why a layout cannot hold a config, or `None`.

    Args:
        config: the config of the model.
        held: names of the fields that the layout can hold with any value, beside those that every layout holds.
        **allowed: for each other field the values that the layout can hold. A field without a name here is refused.
    """
    if unknown := unknown_field(config, _IN_EVERY_LAYOUT.union(held, allowed)):
        return unknown
    for field, values in allowed.items():
        value = getattr(config, field)
        if value not in values:
            return f"{field}={value!r} cannot be written; it must be one of {sorted(values, key=str)}"
    return None


def unknown_field(config, known):
    """Gives the reason why a config with a field outside `known` cannot be written, or `None`."""
    for field in dataclasses.fields(config):
        if field.name not in known:
            return f"{field.name}={getattr(config, field.name)!r} cannot be written; the layout does not know the field"
    return None


def count_blocks(keys, pattern):
    """Counts blocks: one more than the largest number that `pattern` finds in the keys."""
    numbers = [int(match[1]) for key in keys if (match := re.search(pattern, key))]
    return max(numbers) + 1 if numbers else 0
