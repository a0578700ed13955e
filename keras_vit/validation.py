"""Argument checks in pure Python. An error states the rule, then the value received."""

import dataclasses
import difflib
import math
import numbers
import re

# Strategies of tf.distribute by name, see `keras_vit.distribution.strategy`.
STRATEGIES = ("auto", "one", "mirrored", "multi_worker", "tpu", "cpu:<n>")

# Names in other libraries for fields of this one.
SYNONYMS = {
    "attention_dropout": "attention_dropout_rate",
    "attn_drop_rate": "attention_dropout_rate",
    "checkpoint_path": "weights",
    "classes": "num_classes",
    "depth": "num_layers",
    "embed_dim": "hidden_dim",
    "global_pool": "pooling",
    "hidden_size": "hidden_dim",
    "img_size": "image_size",
    "dynamic_img_size": "dynamic_image_size",
    "in_channels": "num_channels",
    "in_chans": "num_channels",
    "init_values": "layer_scale_init",
    "intermediate_size": "mlp_dim",
    "layer_norm_eps": "layer_norm_epsilon",
    "lr": "learning_rate",
    "nb_classes": "num_classes",
    "num_attention_heads": "num_heads",
    "num_hidden_layers": "num_layers",
    "num_labels": "num_classes",
    "pretrained": "weights",
    "reg_tokens": "num_registers",
    "wd": "weight_decay",
}
# Similarity by `difflib`: `gpa` and `gap` have 0.67, `pretrained` and `drop_remainder` 0.58.
_MIN_SIMILARITY = 0.65
# Shortest prefix of a name, such as `vit_`, for which the name is suggested.
_MIN_PREFIX = 4


def as_pair(value, name):
    """Reads an `int` or an `(h, w)` pair of positive integers.

    Args:
        value: int or sequence of two ints.
        name: str. The argument's name, for the error.

    Returns:
        A tuple `(h, w)`.

    Raises:
        ValueError: if it is anything else.
    """
    pair = (value, value) if isinstance(value, numbers.Integral) else value
    valid = (
        isinstance(pair, tuple | list)
        and len(pair) == 2
        and all(isinstance(v, numbers.Integral) and not isinstance(v, bool) and v > 0 for v in pair)
    )
    if not valid:
        raise ValueError(f"{name} must be a positive int or a pair (h, w) of them. Received: {name}={value!r}")
    return tuple(int(v) for v in pair)


def check_choice(value, choices, name):
    """Raises a `ValueError` that lists `choices` and the nearest one unless `value` is among them."""
    if value not in choices:
        raise ValueError(
            f"{name} must be one of {sorted(choices, key=str)}{nearest(value, choices)} Received: {name}={value!r}"
        )
    return value


def check_rate(value, name):
    """Raises a `ValueError` unless `value` is a rate in [0, 1)."""
    if not is_number(value) or not 0 <= value < 1:
        raise ValueError(f"{name} must be a rate in [0, 1). Received: {name}={value!r}")
    return float(value)


def check_positive(value, name):
    """Raises a `ValueError` unless `value` is a positive int."""
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise ValueError(f"{name} must be a positive int. Received: {name}={value!r}")
    return value


def check_count(value, name):
    """Raises a `ValueError` unless `value` is an int of at least 0."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{name} must be an int of at least 0. Received: {name}={value!r}")
    return value


def is_number(value):
    """Returns whether a value is an int or a finite float, and no bool."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


def check_epsilon(value, name):
    """Raises a `ValueError` unless `value` is a number in (0, 1)."""
    if not is_number(value) or not 0 < value < 1:
        raise ValueError(f"{name} must be in (0, 1). Received: {name}={value!r}")
    return value


def check_divides(size, patch, size_name="image_size", patch_name="patch_size"):
    """Raises a `ValueError` unless both sides of `size` are multiples of those of `patch`."""
    if any(s % p for s, p in zip(size, patch, strict=True)):
        raise ValueError(
            f"{size_name} must be a multiple of {patch_name}. "
            f"Received: {size_name}={tuple(size)}, {patch_name}={tuple(patch)}"
        )


def check_heads(hidden_dim, num_heads):
    """Raises a `ValueError` unless the heads divide the width."""
    if hidden_dim % num_heads:
        raise ValueError(
            f"hidden_dim must be a multiple of num_heads. Received: hidden_dim={hidden_dim}, num_heads={num_heads}"
        )


def check_strategy(name):
    """Raises `ValueError` unless it is the name of a strategy, see `keras_vit.distribution.strategy`."""
    if not isinstance(name, str) or (name not in STRATEGIES[:-1] and not re.fullmatch(r"cpu:[1-9]\d*", name)):
        hint = "." if not isinstance(name, str) or name.lower().startswith("cpu") else nearest(name, STRATEGIES)
        raise ValueError(f"unknown strategy{hint} Received: name={name!r}, known: {list(STRATEGIES)}")


def replace_fields(instance, changes):
    """Copies a dataclass with some fields changed; an unknown one raises a `ValueError` with the nearest."""
    known = [field.name for field in dataclasses.fields(instance)]
    for name, value in changes.items():
        if name not in known:
            raise ValueError(
                f"unknown field of {type(instance).__name__}{nearest(name, known)} Received: {name}={value!r}"
            )
    return dataclasses.replace(instance, **changes)


def nearest(name, known):
    """Suggests a known name for an unknown one.

    Args:
        name: the unknown name; case is ignored.
        known: iterable of names. The one that `SYNONYMS` has for `name` precedes similar ones.

    Returns:
        The end of an error: `. Did you mean 'x'?`, or a full stop where no name is similar.
    """
    by_lower = {str(k).lower(): str(k) for k in known}
    text = str(name).lower()
    candidate = next((word for word in (text, SYNONYMS.get(text)) if word in by_lower), None)
    if candidate is None:
        candidate = next(iter(difflib.get_close_matches(text, by_lower, n=1, cutoff=_MIN_SIMILARITY)), None)
    if candidate is None and len(text) >= _MIN_PREFIX:
        candidate = next((word for word in by_lower if word.startswith(text)), None)
    return "." if candidate is None else f". Did you mean {by_lower[candidate]!r}?"
