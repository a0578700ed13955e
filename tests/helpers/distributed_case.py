"""The data, the models and the `fit` that the cases of `distributed_small.py` and `distributed_fits.py` share."""

import keras
import numpy as np
import tensorflow as tf

from keras_vit.distribution import strategies as distribution
from keras_vit.training import trained_model

CLASSES, BATCH, EPOCHS = 3, 12, 3
EXAMPLES = 3 * BATCH + 1  # One replica alone gets a row of the last batch.
_random = np.random.default_rng(0)
IMAGES = _random.normal(size=(EXAMPLES, 8, 8, 3)).astype("float32")
TARGETS = np.eye(CLASSES, dtype="float32")[_random.integers(0, CLASSES, EXAMPLES)]
WEIGHTS = _random.uniform(0.2, 2.0, EXAMPLES).astype("float32")


def batches(weighted=False):
    """Makes a dataset of all examples, in order; the last batch is short."""
    columns = (IMAGES, TARGETS, WEIGHTS) if weighted else (IMAGES, TARGETS)
    return tf.data.Dataset.from_tensor_slices(columns).batch(BATCH)


def fill(model):
    """Fills a model with the same weights in every process."""
    for seed, weight in enumerate(model.weights):
        weight.assign(keras.random.normal(weight.shape, 0.0, 0.2, seed=seed))


def compiled(model, optimizer, label_smoothing=0.0, steps_per_execution=1, metrics=True, weighted=False, xla=False):
    """Compiles a model that has the same weights in every process."""
    fill(trained_model(model))
    model.compile(
        optimizer,
        keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=label_smoothing),
        metrics=["accuracy"] if metrics else None,
        weighted_metrics=["accuracy"] if weighted else None,
        steps_per_execution=steps_per_execution,
        jit_compile=xla,
    )
    return model


def prepared(strategy, make):
    """Makes a model within the scope of the strategy, and prepares it."""
    keras.utils.set_random_seed(1)
    with strategy.scope():
        model = make()
    return distribution.prepare(model)


def fit(strategy, make, dataset, validates=False):
    """Trains a model; returns it, its weights, the logs of every epoch, and the logits of all examples."""
    model = prepared(strategy, make)
    data = dataset if validates else None
    history = model.fit(dataset, epochs=EPOCHS, validation_data=data, verbose=0, shuffle=False).history
    trained = trained_model(model)
    if validates:  # A `Distiller` returns the logits of each head.
        logits = np.concatenate(keras.tree.flatten(model.predict(dataset, verbose=0)), axis=-1)
    else:
        logits = trained(IMAGES, training=False).numpy()
    weights = {v.path: v.numpy() for v in trained.weights}
    logs = {f"logs of {name}": np.array(values) for name, values in history.items()}
    return model, {**weights, **logs, "logits": logits}


def pairs(runs, case, kinds):
    """The results of a case on one device, and those of every worker of other kinds, from `run_cases`."""
    (one,) = (worker[case] for worker in runs["one"])
    return one, [(kind, worker[case]) for kind in kinds for worker in runs[kind] if case in worker]


def assert_same(one, arrays, kind, but=(), adam=False):
    """Fails unless two dicts of arrays agree within 1e-4.

    With an optimizer like Adam the biases of keys are left out: their true gradient is zero, and Adam normalizes the
    rounding errors.
    """
    assert arrays.keys() == one.keys()
    for name in set(arrays) - set(but):
        expected, actual = (_without_keys(name, x[name]) if adam else x[name] for x in (one, arrays))
        np.testing.assert_allclose(actual, expected, atol=1e-4, rtol=0, err_msg=f"{kind}: {name}")


def _without_keys(name, array):
    return np.delete(array, np.s_[len(array) // 3 : len(array) // 3 * 2]) if name.endswith("qkv/bias") else array
