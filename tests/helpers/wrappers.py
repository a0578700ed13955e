"""Models of one's own around one of the library, in every way in which Keras lets one build them."""

import keras
import numpy as np
from keras import layers

import keras_vit

SIZE = (16, 24)

PIXELS = np.random.default_rng(3).integers(0, 256, (2, *SIZE, 3)).astype("float32")


@keras.saving.register_keras_serializable(package="tests")
class Subclassed(keras.Model):
    """A model of one's own with everything as attributes."""

    def __init__(self, backbone, front, head):
        super().__init__()
        self.backbone, self.front, self.head = backbone, front, head

    def call(self, images, training=False):
        return self.head(self.backbone(self.front(images, training=training), training=training))


def _augmentation():
    return keras.Sequential([layers.RandomFlip("horizontal"), layers.RandomRotation(0.1), layers.RandomContrast(0.2)])


def _to_range():
    return layers.Rescaling(1 / 127.5, offset=-1.0)


def _functional(backbone):
    images = keras.Input((*SIZE, 3))
    x = backbone(_to_range()(_augmentation()(images)), training=False)
    return keras.Model(images, layers.Dense(4)(layers.Dropout(0.2)(x)))


def _nested_twice(backbone):
    images = keras.Input((*SIZE, 3))
    inside = keras.Sequential([_to_range(), backbone])
    return keras.Model(images, keras.Sequential([layers.Dense(5, "relu"), layers.Dense(4)])(inside(images)))


def _of_operations(backbone):
    images = keras.Input((*SIZE, 3))
    x = keras.ops.clip(images, 0, 255) / 127.5 - 1.0
    return keras.Model(images, layers.Dense(4)(backbone(x)))


def _of_preprocess_input(backbone):
    images = keras.Input((*SIZE, 3))
    return keras.Model(images, layers.Dense(4)(backbone(keras_vit.preprocess_input(images, backbone))))


def _normalized(backbone):
    normalization = layers.Normalization(mean=[127.5] * 3, variance=[127.5**2] * 3)
    return keras.Sequential([keras.Input((*SIZE, 3)), normalization, backbone, layers.Dense(4)])


# Each takes pixels 0 to 255 and has a head of its own of four units.
WRAPPERS = {
    "sequential": lambda backbone: keras.Sequential([_augmentation(), _to_range(), backbone, layers.Dense(4)]),
    "pipeline": lambda backbone: keras.Sequential(
        [keras.Input((*SIZE, 3)), layers.Pipeline([layers.RandomFlip(), _to_range()]), backbone, layers.Dense(4)]
    ),
    "functional": _functional,
    "nested twice": _nested_twice,
    "operations": _of_operations,
    "preprocess_input": _of_preprocess_input,
    "normalization": _normalized,
    "subclassed": lambda backbone: Subclassed(backbone, _to_range(), layers.Dense(4)),
    "uint8": lambda backbone: keras.Sequential(
        [keras.Input((*SIZE, 3), dtype="uint8"), _to_range(), backbone, layers.Dense(4)]
    ),
}
