"""RandAugment in its two published flavors: timm's and that of big_vision.

Both draw an operation a layer with replacement and run only that one. What they differ in is everything else: the
operations' arithmetic, whether they grow with the magnitude, whether a layer may pass, and the noise of the magnitude.

Source: Cubuk et al., "RandAugment" (arXiv:1909.13719).
"""

import dataclasses
import functools
import typing

import tensorflow as tf

from keras_vit.data.augment import pillow_color as operations
from keras_vit.data.augment import pillow_geometry as geometry
from keras_vit.data.augment import tpu_autoaugment as tpu_operations
from keras_vit.validation import check_choice


class Draw(typing.NamedTuple):
    """Random numbers for one operation.

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


INTERPOLATIONS = (*geometry.INTERPOLATIONS, "random")


def _whole(value):
    """Truncated to int32, as Python's `int`."""
    return tf.cast(value, tf.int32)


def timm_operations(increasing, fill, interpolation):
    """timm's fifteen operations.

    Args:
        increasing: bool. Stronger with the magnitude (`inc1`); otherwise posterize and solarize weaken with it and
            the enhancements run from 0.1 to 1.9.
        fill: ints, one a channel.
        interpolation: `bilinear`, `bicubic` or `random`, a coin for every operation.

    Returns:
        A dict of functions `(image, Draw) -> image`, also of batches, by timm's names without `Increasing`.

    Source: timm `data/auto_augment.py`, `_RAND_TRANSFORMS`, `_RAND_INCREASING_TRANSFORMS`, `LEVEL_TO_ARG`.
    """

    def enhance(operation):
        def apply(image, draw):
            away = tf.maximum(1 + draw.sign * draw.level * 0.9, 0.1)
            return operation(image, away if increasing else draw.level * 1.8 + 0.1)

        return apply

    def move(operation, amount):
        def apply(image, draw):
            def moved(interpolation):
                return lambda image, draw: operation(image, amount(image, draw.level) * draw.sign, fill, interpolation)

            if interpolation != "random":
                return moved(interpolation)(image, draw)
            coin = tf.cast(draw.uniform[..., 0] >= 0.5, tf.int32)
            return choose(coin, [moved(name) for name in geometry.INTERPOLATIONS], image, draw)

        return apply

    def posterize(image, draw):
        bits = _whole(draw.level * 4)
        return operations.posterize(image, 4 - bits if increasing else bits)

    def solarize(image, draw):
        threshold = tf.minimum(_whole(draw.level * 256), 256)
        return operations.solarize(image, 256 - threshold if increasing else threshold)

    return {
        "AutoContrast": lambda image, draw: operations.autocontrast(image),
        "Equalize": lambda image, draw: operations.equalize(image),
        "Invert": lambda image, draw: operations.invert(image),
        "Rotate": move(geometry.rotate, lambda image, level: level * 30),
        "Posterize": posterize,
        "Solarize": solarize,
        "SolarizeAdd": lambda image, draw: operations.solarize_add(image, tf.minimum(_whole(draw.level * 110), 128)),
        "Color": enhance(operations.color),
        "Contrast": enhance(operations.contrast),
        "Brightness": enhance(operations.brightness),
        "Sharpness": enhance(operations.sharpness),
        "ShearX": move(geometry.shear_x, lambda image, level: level * 0.3),
        "ShearY": move(geometry.shear_y, lambda image, level: level * 0.3),
        "TranslateXRel": move(geometry.translate_x, lambda image, level: level * 0.45 * image.shape[-2]),
        "TranslateYRel": move(geometry.translate_y, lambda image, level: level * 0.45 * image.shape[-3]),
    }


_TIMM_CHOICES = len(timm_operations(True, (), "bilinear"))


def tpu_library_operations():
    """The sixteen operations of TensorFlow's AutoAugment library, as `timm_operations`.

    Source: big_vision `pp/autoaugment.py`, `distort_image_with_randaugment`: cutout_const 40, translate_const 100.
    """
    tpu = tpu_operations

    def enhance(operation):
        return lambda image, draw: operation(image, draw.level * 1.8 + 0.1)

    def move(amount, matrix):
        return lambda image, draw: tpu.transform(image, matrix(tf.cast(draw.level * draw.sign * amount, tf.float32)))

    return {
        "AutoContrast": lambda image, draw: tpu.autocontrast(image),
        "Equalize": lambda image, draw: operations.equalize(image),
        "Invert": lambda image, draw: operations.invert(image),
        "Rotate": lambda image, draw: tpu.rotate(image, draw.level * draw.sign * 30),
        "Posterize": lambda image, draw: tpu.posterize(image, _whole(draw.level * 4)),
        "Solarize": lambda image, draw: tpu.solarize(image, _whole(draw.level * 256)),
        "Color": enhance(tpu.color),
        "Contrast": enhance(tpu.contrast),
        "Brightness": enhance(tpu.brightness),
        "Sharpness": enhance(tpu.sharpness),
        "ShearX": move(0.3, lambda v: (1.0, v, 0.0, 0.0, 1.0, 0.0)),
        "ShearY": move(0.3, lambda v: (1.0, 0.0, 0.0, v, 1.0, 0.0)),
        "TranslateX": move(100, lambda v: (1.0, 0.0, v, 0.0, 1.0, 0.0)),
        "TranslateY": move(100, lambda v: (1.0, 0.0, 0.0, 0.0, 1.0, v)),
        "Cutout": lambda image, draw: tpu.cutout(image, _whole(draw.level * 40), tf.unstack(draw.uniform)),
        "SolarizeAdd": lambda image, draw: operations.solarize_add(image, tf.minimum(_whole(draw.level * 110), 255)),
    }


@dataclasses.dataclass(frozen=True)
class TimmRandAugment:
    """timm's RandAugment.

    Args:
        magnitude: float. Mean of every operation's magnitude. Default 10.
        layers: int. Operations drawn for an image. Default 2.
        rate: float in [0, 1]. Of the drawn operations, how many are carried out. Default 0.5.
        deviation: float. Standard deviation of the magnitude; above 100 it is drawn uniformly from 0 to `magnitude`.
            Default 0.
        maximum: float. Magnitudes are clipped to [0, maximum]. Default 10.
        increasing: bool. See `timm_operations`.

    Source: timm `rand_augment_transform`.
    """

    magnitude: float = 10.0
    layers: int = 2
    rate: float = 0.5
    deviation: float = 0.0
    maximum: float = 10.0
    increasing: bool = False

    jitters = False

    def draw(self, seed):
        """Draws the random numbers of an image for `apply`: nested tuples of tensors, which a batch stacks."""
        return draw_layers(seed, _TIMM_CHOICES, self)

    def apply(self, image, drawn, fill, interpolation):
        """The changed image, or a batch of them, whose operations are carried out on many images at once."""
        check_choice(interpolation, INTERPOLATIONS, "the interpolation of timm's RandAugment")
        return apply_layers(image, *drawn, timm_operations(self.increasing, fill, interpolation).values())

    def __call__(self, image, seed, fill, interpolation):
        """The changed image; `fill` and `interpolation` as in `timm_operations`."""
        return self.apply(image, self.draw(seed), fill, interpolation)


@dataclasses.dataclass(frozen=True)
class TPURandAugment:
    """big_vision's `randaug(layers, magnitude)`: every drawn operation is carried out, at one magnitude.

    It is made for 224 pixels: at magnitude 10 it moves images by 100 pixels and cuts 80 out of them, of any size.

    Args:
        layers: int. Default 2.
        magnitude: float, not clipped at 10. Default 10.
    """

    layers: int = 2
    magnitude: float = 10.0

    rate = 1.0
    deviation = 0.0
    maximum = float("inf")
    jitters = False

    def __call__(self, image, seed, fill, interpolation):
        """The changed image; this flavor fills with gray and takes the nearest pixel, whatever it is handed."""
        del fill, interpolation
        functions = tpu_library_operations().values()
        return apply_layers(image, *draw_layers(seed, len(functions), self), functions)
