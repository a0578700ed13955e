"""The checks that every room shares. Pure Python; an error states the rule, then what came."""

import dataclasses
import difflib
import math
import numbers
import re

# Strategies of tf.distribute by name, see `keras_vit.distribution.strategy`.
STRATEGIES = ("auto", "one", "mirrored", "multi_worker", "tpu", "cpu:<n>")


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
    """Whether a value is an int or a finite float, and no bool."""
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
    """A copy of a dataclass with some fields changed; an unknown one raises a `ValueError` with the nearest."""
    known = [field.name for field in dataclasses.fields(instance)]
    for name, value in changes.items():
        if name not in known:
            raise ValueError(
                f"unknown field of {type(instance).__name__}{nearest(name, known)} Received: {name}={value!r}"
            )
    return dataclasses.replace(instance, **changes)


def nearest(name, known):
    """The end of an error about an unknown name: `. Did you mean 'x'?`, or a full stop."""
    matches = difflib.get_close_matches(str(name), [str(k) for k in known], n=1, cutoff=0.5)
    return f". Did you mean {matches[0]!r}?" if matches else "."
