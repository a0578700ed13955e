"""The strings that name an augmentation policy, read without TensorFlow: `keras_vit.data.policies` makes them."""

import ast
import re

from keras_vit.validation import check_count, is_number, nearest

_TIMM_KEYS = {
    "m": ("magnitude", float),
    "n": ("layers", int),
    "p": ("rate", float),
    "mstd": ("deviation", float),
    "mmax": ("maximum", float),
    "inc": ("increasing", lambda text: bool(int(text))),
}


def read_policy(text):
    """Reads a policy.

    Args:
        text: str. One of

            - `rand-m9-mstd0.5-inc1`, timm's RandAugment: `m` magnitude, `n` layers, `p` rate, `mstd` deviation,
              `mmax` largest magnitude, `inc1` stronger with the magnitude;
            - `randaugment(2, 10)`, big_vision's: layers and magnitude;
            - `three_augment`, DeiT-III's;
            - `keras_cv("RandAugment", magnitude=0.5)`: a layer of keras-cv's with its own arguments.

    Returns:
        `rand`, `randaugment`, `three_augment` or `keras_cv`, and a dict of the fields of its class.

    Raises:
        ValueError: if it is none of these.
    """
    if text.split("-")[0] == "rand":
        return "rand", _read_timm(text)
    try:
        tree = ast.parse(text, mode="eval").body
        call = tree if isinstance(tree, ast.Call) else ast.Call(tree, [], [])
        name = call.func.id
        arguments = [ast.literal_eval(value) for value in call.args]
        keywords = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
        return name, _CALLS[name](*arguments, **keywords)
    except (SyntaxError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(
            f"a policy is rand-<options> or one of {sorted(_CALLS)}, with arguments in brackets"
            f"{nearest(text.partition('(')[0], _CALLS)} Received: {text!r}"
        ) from error


def _read_timm(text):
    fields = {}
    for part in text.split("-")[1:]:
        found = re.fullmatch(r"([a-z]+)(\d+(?:\.\d+)?)", part)
        try:
            name, read = _TIMM_KEYS[found[1]]
            fields[name] = read(found[2])
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(
                f"a part of a rand- policy is one of {sorted(_TIMM_KEYS)} and a number. Received: {part!r} in {text!r}"
            ) from error
    return fields


def _randaugment(layers=2, magnitude=10.0):
    if not is_number(magnitude) or magnitude < 0:
        raise ValueError("a magnitude is a number of at least 0")
    return {"layers": check_count(layers, "layers"), "magnitude": magnitude}


def _three_augment():
    return {}


def _keras_cv(name="RandAugment", **arguments):
    return {"name": name, "arguments": tuple(sorted(arguments.items()))}


_CALLS = {"randaugment": _randaugment, "three_augment": _three_augment, "keras_cv": _keras_cv}
