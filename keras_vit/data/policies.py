"""Augmentation policies of single images, named by the strings that recipes hold."""

import ast
import dataclasses
import functools
import inspect
import re

import tensorflow as tf

from keras_vit.data import operations
from keras_vit.data.kerascv import KerasCVPolicy
from keras_vit.data.randaugment import TimmRandAugment, TPURandAugment

_TIMM_KEYS = {
    "m": ("magnitude", float),
    "n": ("layers", int),
    "p": ("rate", float),
    "mstd": ("deviation", float),
    "mmax": ("maximum", float),
    "inc": ("increasing", lambda text: bool(int(text))),
}


@dataclasses.dataclass(frozen=True)
class ThreeAugment:
    """DeiT-III's 3-augment: one of grey, solarised from 128 and blurred (radius 0.1 to 2 pixels), each a third.

    Source: Touvron et al., "DeiT III" (arXiv:2204.07118), deit `augment.py`, `new_data_aug_generator`.
    """

    jitters = True

    def __call__(self, image, seed, fill, interpolation):
        """The changed image; nothing moves, so `fill` and `interpolation` are not used."""
        del fill, interpolation
        number, position = tf.unstack(tf.random.stateless_uniform((2,), tf.random.fold_in(seed, 2)))
        branches = [
            lambda: operations.grayscale(image),
            lambda: operations.solarize(image),
            lambda: operations.gaussian_blur(image, 0.1 + 1.9 * position),
        ]
        return tf.ensure_shape(tf.switch_case(tf.cast(3 * number, tf.int32), branches), image.shape)


def color_jitter(image, strength, seed):
    """Brightness, contrast and saturation by factors drawn from 1 +- `strength`, in a drawn order.

    Args:
        image: uint8 `(height, width, 1 or 3)`.
        strength: float. Factors below 0 become 0.
        seed: int32 `(2,)`.

    Returns:
        uint8 of the same shape.

    Source: torchvision `ColorJitter(strength, strength, strength)`, as timm and DeiT call it.
    """
    changes = (operations.brightness, operations.contrast, operations.color)
    uniform = tf.random.stateless_uniform((2, 3), tf.random.fold_in(seed, 3))
    low = max(0.0, 1 - strength)
    factors = low + (1 + strength - low) * uniform[0]
    for index in tf.unstack(tf.argsort(uniform[1])):
        calls = [
            functools.partial(change, image, factor)
            for change, factor in zip(changes, tf.unstack(factors), strict=True)
        ]
        image = tf.ensure_shape(tf.switch_case(index, calls), image.shape)
    return image


def _keras_cv(*names, **arguments):
    return KerasCVPolicy(*names, arguments=tuple(sorted(arguments.items())))


_CALLS = {"randaugment": TPURandAugment, "three_augment": ThreeAugment, "keras_cv": _keras_cv}


@functools.cache
def parse_policy(text):
    """Reads a policy.

    Args:
        text: str. One of

            - `rand-m9-mstd0.5-inc1`, timm's RandAugment: `m` magnitude, `n` layers, `p` rate, `mstd` deviation,
              `mmax` largest magnitude, `inc1` stronger with the magnitude;
            - `randaugment(2, 10)`, big_vision's: layers and magnitude;
            - `three_augment`, DeiT-III's;
            - `keras_cv("RandAugment", magnitude=0.5)`: a layer of keras-cv's with its own arguments.

    Returns:
        A function `(uint8 image, seed, fill, interpolation) -> uint8 image`, whose attribute `jitters` says whether
        colour jitter stays active beside it. The same text gives the same object.

    Raises:
        ValueError: if it is none of these.
    """
    if text.split("-")[0] == "rand":
        return _parse_timm(text)
    try:
        tree = ast.parse(text, mode="eval").body
        call = tree if isinstance(tree, ast.Call) else ast.Call(tree, [], [])
        policy = _CALLS[call.func.id]
        arguments = [ast.literal_eval(value) for value in call.args]
        keywords = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
        inspect.signature(policy).bind(*arguments, **keywords)
    except (SyntaxError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(
            f"a policy is rand-<options> or one of {sorted(_CALLS)}, with arguments in brackets. Received: {text!r}"
        ) from error
    return policy(*arguments, **keywords)


def _parse_timm(text):
    fields = {}
    for part in text.split("-")[1:]:
        found = re.fullmatch(r"([a-z]+)(\d+(?:\.\d+)?)", part)
        if not found or found[1] not in _TIMM_KEYS:
            raise ValueError(
                f"a part of a rand- policy is one of {sorted(_TIMM_KEYS)} and a number. Received: {part!r} in {text!r}"
            )
        name, read = _TIMM_KEYS[found[1]]
        fields[name] = read(found[2])
    return TimmRandAugment(**fields)
