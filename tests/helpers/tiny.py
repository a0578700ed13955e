"""The tiny model of the tests, with weights that are nowhere zero."""

import keras
import numpy as np

from keras_vit.models import ViTConfig, build_vit

CONFIG = ViTConfig(
    image_size=(16, 24), patch_size=8, hidden_dim=16, num_layers=2, num_heads=2, mlp_dim=24, num_classes=3
)
IMAGES = np.random.default_rng(7).uniform(-1, 1, size=(2, 16, 24, 3)).astype("float32")


def tiny_vit(*, dtype=None, labels=None, origin=None, **fields):
    """A tiny ViT whose every weight is random, the zero head included."""
    model = build_vit(CONFIG.replace(**fields), labels=labels, origin=origin, dtype=dtype)
    randomize(model)
    return model


def randomize(model):
    """Gives every weight random values, the same in every model of one config."""
    for seed, weight in enumerate(model.weights):
        stddev = weight.shape[0] ** -0.5 if weight.path.endswith("kernel") else 0.2
        mean = 1.0 if weight.path.endswith("gamma") else 0.0
        weight.assign(keras.random.normal(weight.shape, mean, stddev, seed=seed))
