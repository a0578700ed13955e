"""Heads on frozen features: a linear classifier that costs one pass over the images."""

import math

import keras
import numpy as np

from keras_vit.training.initialization.warm_start import HEADS

_EPOCHS, _UPDATES, _BATCH = 20, 400, 128
_RATE, _DECAY, _BETA_1, _BETA_2 = 1e-2, 0.5, 0.9, 0.999


def head_inputs(model):
    """Builds the model that gives what the heads of another classify.

    Args:
        model: a model of this library with a classifier; it shares its weights.

    Returns:
        A `keras.Model` from images to a list of `(batch, features)`, one a head.

    Raises:
        ValueError: if the model has no head.
    """
    return keras.Model(model.inputs, [layer.input for layer in _heads(model)], name="features")


def fit_heads(model, features, labels, seed=0):
    """Fits the heads of a model to features that do not change, as multinomial logistic regression with weight decay.

    Features are standardized while it learns; the kernel takes that over, so the model stays as it is but for the
    weights of its heads.

    Args:
        model: a model of this library with a classifier of logits.
        features: list of float32 arrays `(examples, features)`, one a head, as `head_inputs` gives them.
        labels: int array `(examples,)`.
        seed: int. Of the order of the examples.
    """
    for layer, inputs in zip(_heads(model), features, strict=True):
        kernel, bias = _logistic_regression(np.asarray(inputs, "float32"), np.asarray(labels), layer.units, seed)
        layer.kernel.assign(kernel)
        if layer.bias is not None:
            layer.bias.assign(bias)


def _logistic_regression(features, labels, num_classes, seed):
    """`(kernel, bias)` of the features as they are; AdamW on minibatches, in NumPy: a graph would cost more."""
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    deviation = np.where(deviation > 1e-6, deviation, 1.0).astype("float32")
    inputs = np.c_[(features - mean) / deviation, np.ones(len(features), "float32")]  # the last column is the bias
    targets, generator = np.eye(num_classes, dtype="float32")[labels], np.random.default_rng(seed)
    weights, first, second = np.zeros((3, inputs.shape[1], num_classes), "float32")
    size = min(_BATCH, len(inputs))
    updates = max(_UPDATES, _EPOCHS * len(inputs) // size)
    rows = np.concatenate([generator.permutation(len(inputs)) for _ in range(updates * size // len(inputs) + 1)])
    for update in range(updates):
        batch = rows[update * size : (update + 1) * size]
        gradient = inputs[batch].T @ (_softmax(inputs[batch] @ weights) - targets[batch]) / size
        first += (1 - _BETA_1) * (gradient - first)
        second += (1 - _BETA_2) * (gradient**2 - second)
        rate = _RATE * (1 + math.cos(math.pi * update / updates)) / 2
        corrected = first / (1 - _BETA_1 ** (update + 1)), second / (1 - _BETA_2 ** (update + 1))
        weights[:-1] -= rate * _DECAY * weights[:-1]
        weights -= rate * corrected[0] / (np.sqrt(corrected[1]) + 1e-8)
    kernel = weights[:-1] / deviation[:, None]
    return kernel, weights[-1] - mean @ kernel


def _softmax(logits):
    exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponents / exponents.sum(axis=-1, keepdims=True)


def _heads(model):
    heads = [layer for layer in model.layers if layer.name in HEADS]
    if not heads:
        raise ValueError(f"a model must have a classifier to fit its head. Received: model={model.name!r}")
    return heads
