"""Reads the model's name and arguments that training programs write beside the weights in PyTorch files.

timm's training script writes `arch` and `args`, DeiT's and torchvision's `args` with `model`, Lightning
`hyper_parameters`. A name that is none of timm's models in this library is ignored.

Source: timm `utils/checkpoint_saver.py`, `train.py`; DeiT `main.py`.
"""

import numbers

from keras_vit.models.aliases import resolve_aliases
from keras_vit.models.variants import find_variant
from keras_vit.weights.files.pickles import StandIn

# Keys of the settings of a run, and of the model's name in them, in order of preference.
_SETTINGS = ("args", "hyper_parameters", "hparams", "config", "cfg")
_NAMES = ("arch", "model", "model_name", "architecture")


def stated_architecture(tree):
    """Reads the name of the model and its arguments from the content of a file.

    Args:
        tree: content of a pickle, with stand-ins for objects.

    Returns:
        A dict as in timm's `config.json`: `architecture` and `model_args`; an empty one without a known name.
    """
    root = _attributes(tree)
    groups = [root, *(_attributes(root.get(name)) for name in _SETTINGS)]
    for group in groups:
        for key in _NAMES:
            name = group.get(key)
            if isinstance(name, str) and find_variant(name) is not None:
                return {"architecture": name, "model_args": _arguments(groups[1:], find_variant(name))}
    return {}


def stated_config(architecture):
    """Builds the config of a model by its name and arguments; `None` for an unknown name.

    Args:
        architecture: dict, as returned by `stated_architecture`.
    """
    variant = find_variant(architecture.get("architecture", ""))
    for word, value in architecture.get("model_args", {}).items():
        try:
            variant = variant.replace(**resolve_aliases({word: value}, variant))
        except (ValueError, TypeError):
            continue  # the argument is not part of a config
    return variant


def _attributes(item):
    """Returns the entries of a dict, or the attributes of an object, by name."""
    if isinstance(item, dict):
        return {name: value for name, value in item.items() if isinstance(name, str)}
    if isinstance(item, StandIn):
        parts = [_attributes(part) for part in item.content if isinstance(part, dict)]
        return {name: value for part in parts for name, value in part.items()}
    return {}


def _arguments(groups, variant):
    """Collects the arguments of the model from the settings of a run, under timm's names."""
    arguments = {}
    for group in groups:
        # timm's `--input-size` is (channels, height, width) and wins over `--img-size`; DeiT's is one side.
        sizes = [group.get("input_size"), group.get("img_size"), group.get("image_size")]
        sizes = [size[1:] if isinstance(size, tuple | list) and len(size) == 3 else size for size in sizes]
        size = next((size for size in sizes if _is_size(size)), None)
        arguments |= {} if size is None else {"img_size": size}
        arguments |= {word: value for word, value in _attributes(group.get("model_kwargs")).items() if _is_plain(value)}
    if "image_size" not in variant.fields_from_arrays:
        arguments.setdefault("img_size", variant.image_size)
    return arguments


def _is_size(value):
    sides = value if isinstance(value, tuple | list) and len(value) == 2 else [value]
    return all(isinstance(side, numbers.Integral) and not isinstance(side, bool) and side > 0 for side in sides)


def _is_plain(value):
    items = value if isinstance(value, tuple | list) else [value]
    return all(isinstance(item, str | bool | numbers.Real) for item in items)
