"""keras-cv's augmentation layers in the tf.data pipeline, for those who want them. Imported when first used.

Where they deviate from what recipes name, so that no published recipe is built of them (keras-cv 0.9;
`tests/test_data_kerascv.py` asks it):

- RandAugment has 10 operations (no invert, rotate, posterize, sharpness), magnitudes in [0, 1] of its own (shears up
  to 1, brightness and contrast drawn anew within the magnitude), three operations an image by default, of which one in
  eleven is left out, noise of 0.15, solarize with an addition, and fills what moves in by reflection instead of the
  mean.
- MixUp and CutMix draw one weight an image, not one a batch, and partners by a permutation.
- CutMix leaves the weight uncorrected where the border cuts its box: targets and areas then disagree.
- RandomCropAndResize draws the ratio uniformly, not its logarithm, and relative to the image's own; sides longer than
  the image are cut, not drawn anew; it reads single points of the crop, without antialiasing. It wants decoded images,
  of which most pixels are thrown away.
- RandomFlip mirrors every second image, as here.
- Their random numbers are stateful: the same seed does not give the same image, and a resumed run draws others.
"""

import dataclasses
import functools
import inspect

import tensorflow as tf


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
