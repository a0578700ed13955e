"""Augmentation policies of single images, named by the strings that recipes hold."""

import dataclasses
import functools
import inspect

import tensorflow as tf

from keras_vit.config.augment import parse_policy
from keras_vit.data.augment import pillow_color as operations
from keras_vit.data.augment.randaugment import TimmRandAugment, TPURandAugment


@dataclasses.dataclass(frozen=True)
class KerasCVPolicy:
    """A keras-cv layer that changes single images.

    Args:
        name: str. A class of `keras_cv.layers`. Default `RandAugment`.
        arguments: tuple of `(name, value)` pairs of its constructor; `value_range` is always 0 to 255.
    """

    name: str = "RandAugment"
    arguments: tuple = ()

    jitters = True

    def __call__(self, image, seed, fill, interpolation):
        """The changed image, uint8; `seed`, `fill` and `interpolation` are not used: the layer has its own."""
        del seed, fill, interpolation
        changed = _layer(self.name, self.arguments)(tf.cast(image, tf.float32), training=True)
        return tf.ensure_shape(tf.cast(tf.clip_by_value(tf.round(changed), 0, 255), tf.uint8), image.shape)


def mix(images, targets, name, alpha):
    """Mixes a batch by keras-cv's `MixUp` or `CutMix`.

    Args:
        images: float32 `(batch, height, width, channels)`.
        targets: float32 `(batch, classes)`.
        name: `MixUp` or `CutMix`.
        alpha: float.

    Returns:
        The mixed images and targets, of the same shapes.
    """
    mixed = _layer(name, (("alpha", alpha),))({"images": images, "labels": targets}, training=True)
    return tf.ensure_shape(mixed["images"], images.shape), tf.ensure_shape(mixed["labels"], targets.shape)


@functools.cache
def _layer(name, arguments):
    """A layer as a function, made once and outside of any graph: it owns a generator of random numbers."""
    import keras_cv

    kind = getattr(keras_cv.layers, name, None)
    if kind is None:
        raise ValueError(f"a keras_cv policy names a class of keras_cv.layers. Received: {name!r}")
    fields = dict(arguments)
    if "value_range" in inspect.signature(kind).parameters:
        fields["value_range"] = (0, 255)
    with tf.init_scope():
        layer = kind(**fields)
    return tf.function(layer)  # its `if`s on tensors need AutoGraph


@dataclasses.dataclass(frozen=True)
class ThreeAugment:
    """DeiT-III's 3-augment: one of gray, solarized from 128 and blurred (radius 0.1 to 2 pixels), each a third.

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
    """Changes brightness, contrast and saturation by random factors from 1 +- `strength`, in a random order.

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


_MAKERS = {
    "rand": TimmRandAugment,
    "randaugment": TPURandAugment,
    "three_augment": ThreeAugment,
    "keras_cv": KerasCVPolicy,
}


@functools.cache
def make_policy(text):
    """Makes the policy described by a text.

    Args:
        text: str, see `keras_vit.config.augment.parse_policy`.

    Returns:
        A function `(uint8 image, seed, fill, interpolation) -> uint8 image`, whose attribute `jitters` tells whether
        color jitter is applied too. The same text returns the same object.

    Raises:
        ValueError: if the text is invalid.
    """
    name, fields = parse_policy(text)
    return _MAKERS[name](**fields)
