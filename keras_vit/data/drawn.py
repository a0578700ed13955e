"""Operations drawn for images: one of many is carried out, on one image or on those of a batch that drew it."""

import functools
import typing

import tensorflow as tf


class Draw(typing.NamedTuple):
    """What is drawn for one operation.

    Args:
        level: float64 scalar, the magnitude over 10.
        sign: float64 scalar, 1 or -1.
        uniform: float32 `(2,)` in [0, 1).

    Of a batch of images every field has one more dimension in front.
    """

    level: tf.Tensor
    sign: tf.Tensor
    uniform: tf.Tensor


def choose(numbers, functions, image, draw):
    """Carries out one of `functions` and none of the others; of a batch the one that each image is given.

    Args:
        numbers: int32 scalar, or `(batch,)`.
        functions: list of functions `(image, Draw) -> image`. Of a batch each is handed all images that are its own.
        image: uint8 `(height, width, channels)`, its shape known, or `(batch, height, width, channels)`.
        draw: `Draw` of the image or the batch.

    Returns:
        uint8 of the same shape.
    """
    if len(image.shape) == 3:
        branches = [functools.partial(function, image, draw) for function in functions]
        return tf.ensure_shape(tf.switch_case(numbers, branches), image.shape)

    def parted(values):
        return tf.dynamic_partition(values, numbers, len(functions))

    images, draws = parted(image), zip(*map(parted, draw), strict=True)
    changed = [function(*part) for function, *part in zip(functions, images, map(Draw._make, draws), strict=True)]
    return tf.ensure_shape(tf.dynamic_stitch(parted(tf.range(tf.size(numbers))), changed), image.shape)


def draw_layers(seed, choices, policy):
    """Draws the operations of an image.

    Args:
        seed: int32 `(2,)`.
        choices: int. How many operations there are.
        policy: `TimmRandAugment` or `TPURandAugment`.

    Returns:
        int32 `(layers,)`, the operations' numbers, `choices` where the layer passes; and a tuple of `Draw`.
    """
    count = policy.layers
    numbers, passes, sides, *rest = tf.unstack(tf.random.stateless_uniform((5, count), tf.random.fold_in(seed, 0)))
    magnitudes = tf.fill((count,), tf.constant(policy.magnitude, tf.float64))
    if policy.deviation > 100:
        magnitudes *= tf.random.stateless_uniform((count,), tf.random.fold_in(seed, 1), dtype=tf.float64)
    elif policy.deviation:
        noise = tf.random.stateless_normal((count,), tf.random.fold_in(seed, 1), dtype=tf.float64)
        magnitudes += policy.deviation * noise
    levels = tf.clip_by_value(magnitudes, 0, policy.maximum) / 10
    signs = tf.where(sides < 0.5, tf.constant(1, tf.float64), -1)
    uniform = tf.stack(rest, axis=1)
    indices = tf.where(passes < policy.rate, tf.cast(numbers * choices, tf.int32), choices)
    return indices, tuple(Draw(levels[i], signs[i], uniform[i]) for i in range(count))


def apply_layers(image, indices, draws, functions):
    """Carries out what `draw_layers` drew.

    Args:
        image: as for `choose`.
        indices: int32 `(layers,)`, or `(batch, layers)`.
        draws: a `Draw` a layer.
        functions: list of functions `(image, Draw) -> image`, as many as were drawn from.

    Returns:
        uint8 of the same shape.
    """
    functions = [*functions, lambda image, draw: tf.identity(image)]
    for layer, draw in enumerate(draws):
        image = choose(indices[..., layer], functions, image, draw)
    return image
