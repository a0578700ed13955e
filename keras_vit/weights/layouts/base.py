"""Base of layouts: a table of keys, written once and used in both directions."""

import dataclasses
import re
from typing import ClassVar

import numpy as np

from keras_vit.models import ViTConfig
from keras_vit.weights.config.infer import complete_vit
from keras_vit.weights.layouts.transforms import SAME, Transform

_ALIKE = ("token", "gap")


# The paths of classifiers begin so.
HEADS = ("head/", "head_dist/")


@dataclasses.dataclass(frozen=True)
class Rule:
    """Some of our variables and the keys that hold them.

    Args:
        ours: paths of variables, joined along the last axis where there are several.
        theirs: keys, joined likewise after `transform`.
        transform: `Transform` of each of their arrays.
        shares: ints, one each of ours: their widths relative to each other.
    """

    ours: tuple
    theirs: tuple
    transform: Transform = SAME
    shares: tuple = (1,)

    def load(self, arrays, config):
        """Our arrays, given theirs."""
        return _divide([self.transform.load(array, config) for array in arrays], self.shares)

    def save(self, arrays, config):
        """Their arrays, given ours."""
        return [self.transform.save(array, config) for array in _divide(arrays, (1,) * len(self.theirs))]


def _divide(arrays, shares):
    """Arrays joined along the last axis and cut into pieces whose widths are as `shares`."""
    if len(arrays) == len(shares):
        return arrays
    whole = arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=-1)
    unit = whole.shape[-1] // sum(shares)
    return np.split(whole, np.cumsum(shares)[:-1] * unit, axis=-1)


def rule(ours, theirs, transform=SAME, shares=(1,)):
    """A `Rule` with names alone or in tuples."""
    ours, theirs = ((names,) if isinstance(names, str) else tuple(names) for names in (ours, theirs))
    return Rule(ours, theirs, transform, shares)


def norm(ours, theirs, names=("weight", "bias")):
    """The rules of a layer norm."""
    return [
        rule(f"{ours}/{mine}", f"{theirs}{their}") for mine, their in zip(("gamma", "beta"), _ends(names), strict=True)
    ]


def dense(ours, theirs, transform, names=("weight", "bias")):
    """The rules of a dense layer; `theirs` a prefix or several, whose arrays are joined."""
    prefixes = (theirs,) if isinstance(theirs, str) else theirs
    kernel, bias = _ends(names)
    return [
        rule(f"{ours}/kernel", tuple(p + kernel for p in prefixes), transform),
        rule(f"{ours}/bias", tuple(p + bias for p in prefixes)),
    ]


def _ends(names):
    return [name if name.startswith(("_", "/", ".")) else f".{name}" for name in names]


class Layout:
    """A source's way to name and shape its arrays; base of the frozen dataclasses of all layouts.

    Attributes:
        name: str, what `layout=` takes.
        unmodeled: patterns of keys that belong to something else, such as a text tower.
        square_positions: bool. Whether the source's tables of positions are square, be the image or not.
        spare_position: bool. Whether a table may begin with an entry that belongs to no token.
        config_class: the class of its models' configs.
        patch_size, grid_size: `(h, w)` of the model that a file was written from, where the file tells it, or `None`.
    """

    name: ClassVar[str]
    unmodeled: ClassVar[tuple] = ()
    square_positions: ClassVar[bool] = False
    spare_position: ClassVar[bool] = False
    config_class: ClassVar[type] = ViTConfig
    patch_size: ClassVar[tuple | None] = None
    grid_size: ClassVar[tuple | None] = None

    def bind(self, paths):
        """The layout for a model with variables of these paths, in its order."""
        return self

    def table(self, config):
        """The rules of one model; those of variables that the model lacks are left out later."""
        raise NotImplementedError

    def refuses(self, config):
        """Gives the reason why the layout cannot hold a model of this config, or `None`.

        A field of the config that the layout does not name is a reason.
        """
        raise NotImplementedError

    def infer(self, shapes, hints):
        """Fields of the config that keys and shapes tell, as a dict.

        Args:
            shapes: dict from key to shape.
            hints: dict of fields that are known from elsewhere, for what shapes leave open.
        """
        raise NotImplementedError

    def infer_values(self, checkpoint):
        """Fields of the config that the values of a file's constants tell, as a dict."""
        return {}

    def merge(self, inferred, told):
        """Inferred fields beside those that a `config.json` tells, which wins wherever the arrays say nothing certain.

        A table of positions is certain, so an `image_size` that it does not fit is that of something else. Of the
        poolings only a class token and a mean beside it look alike; a gated MLP is no matter of the activation.
        """
        told = {name: value for name, value in told.items() if name != "image_size" or name not in inferred}
        alike = inferred.get("class_token", True) and inferred.get("pooling", "token") in _ALIKE
        if not alike or told.get("pooling") not in _ALIKE:
            told.pop("pooling", None)
        if inferred.get("activation") == "swiglu":
            told.pop("activation", None)
        return {**inferred, **told}

    def make_config(self, fields):
        """The config of inferred fields.

        Raises:
            ValueError: if they do not suffice.
        """
        return complete_vit(fields)

    def unpack(self, checkpoint):
        """The checkpoint with one array a block."""
        return checkpoint

    def pack(self, tensors):
        """The inverse of `unpack`, of a dict."""
        return tensors

    def constants(self, config):
        """The constants of the graph that the source keeps in its files, by key."""
        return {}

    def check_constants(self, checkpoint, config):
        """Raises a `ValueError` where a file's constants contradict the config."""


def weights_by_path(model):
    """The variables of a model that a checkpoint holds, by path: all but the states of random generators."""
    return {variable.path: variable for variable in model.weights if "seed_generator" not in variable.path}


def is_head(item):
    """Returns whether a rule is of a classifier."""
    return item.ours[0].startswith(HEADS)


def expand(rules, config, paths):
    """The rules of a model: `{i}` counted through the blocks, and only those of existing variables.

    Args:
        rules: list of `Rule`.
        config: with `num_layers` if a rule counts.
        paths: the paths of the model's variables.

    Returns:
        A list of `Rule`.
    """
    paths = set(paths)
    return [item for item in count(rules, config) if set(item.ours) <= paths]


def count(rules, config):
    """Rules with `{i}` counted through the blocks of a config."""
    counted = []
    for item in rules:
        if "{i}" not in item.ours[0]:
            counted.append(item)
            continue
        for i in range(config.num_layers):
            ours, theirs = (tuple(name.replace("{i}", str(i)) for name in names) for names in (item.ours, item.theirs))
            counted.append(dataclasses.replace(item, ours=ours, theirs=theirs))
    return counted


# Fields of Vision Transformers that shapes tell, or that no file of weights depends on.
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
    """The number of blocks: one more than the largest number that `pattern` finds in the keys."""
    found = [int(match[1]) for key in keys if (match := re.search(pattern, key))]
    return max(found) + 1 if found else 0
