"""Linear classification heads on frozen features, which need one pass over the images."""

import math

import keras
import numpy as np

from keras_vit.models.heads import HEADS

_EPOCHS, _UPDATES, _BATCH = 20, 400, 128
_RATE, _DECAY, _BETA_1, _BETA_2 = 1e-2, 0.5, 0.9, 0.999


def head_inputs(model):
    """Builds the model from images to the inputs of the heads.

    Args:
        model: a model of this library with a classifier; the new model shares its weights.

    Returns:
        A `keras.Model` from images to a list of `(batch, features)`, one per head.

    Raises:
        ValueError: if the model has no head.
    """
    return keras.Model(model.inputs, [layer.input for layer in _heads(model)], name="features")


def fit_heads(model, features, labels, seed=0, class_weights=None):
    """Fits the heads of a model to fixed features by multinomial logistic regression with weight decay.

    Features are standardized during the fit; the kernels include the scaling, so only the weights of the heads change.

    Args:
        model: a model of this library with a classifier of logits.
        features: list of float32 arrays `(examples, features)`, one per head, as `head_inputs` returns them.
        labels: int array `(examples,)`.
        seed: int. Seed of the order of the examples.
        class_weights: floats, the weight of each class, or `None`.
    """
    for layer, inputs in zip(_heads(model), features, strict=True):
        kernel, bias = _logistic_regression(
            np.asarray(inputs, "float32"), np.asarray(labels), layer.units, seed, class_weights
        )
        layer.kernel.assign(kernel)
        if layer.bias is not None:
            layer.bias.assign(bias)


def _logistic_regression(features, labels, num_classes, seed, class_weights):
    """Fits `(kernel, bias)` for unscaled features with AdamW on minibatches, in NumPy, which is faster than a graph."""
    mean, stddev = features.mean(axis=0), features.std(axis=0)
    stddev = np.where(stddev > 1e-6, stddev, 1.0).astype("float32")
    inputs = np.c_[(features - mean) / stddev, np.ones(len(features), "float32")]  # the last column is the bias
    weight = np.ones(num_classes) if class_weights is None else np.asarray(class_weights)
    weight = weight[labels, None].astype("float32")
    targets, generator = np.eye(num_classes, dtype="float32")[labels], np.random.default_rng(seed)
    weights, first, second = np.zeros((3, inputs.shape[1], num_classes), "float32")
    size = min(_BATCH, len(inputs))
    updates = max(_UPDATES, _EPOCHS * len(inputs) // size)
    rows = np.concatenate([generator.permutation(len(inputs)) for _ in range(updates * size // len(inputs) + 1)])
    for update in range(updates):
        batch = rows[update * size : (update + 1) * size]
        gradient = inputs[batch].T @ (weight[batch] * (_softmax(inputs[batch] @ weights) - targets[batch])) / size
        first += (1 - _BETA_1) * (gradient - first)
        second += (1 - _BETA_2) * (gradient**2 - second)
        rate = _RATE * (1 + math.cos(math.pi * update / updates)) / 2
        corrected = first / (1 - _BETA_1 ** (update + 1)), second / (1 - _BETA_2 ** (update + 1))
        weights[:-1] -= rate * _DECAY * weights[:-1]
        weights -= rate * corrected[0] / (np.sqrt(corrected[1]) + 1e-8)
    kernel = weights[:-1] / stddev[:, None]
    return kernel, weights[-1] - mean @ kernel


def _softmax(logits):
    exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponents / exponents.sum(axis=-1, keepdims=True)


def _heads(model):
    heads = [layer for layer in model.layers if layer.name in HEADS]
    if not heads:
        raise ValueError(f"model must have a classifier. Received: model={model.name!r}")
    return heads
