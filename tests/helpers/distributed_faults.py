"""The behavior of Keras alone on several replicas, run beside the cases of `distributed_small.py`."""

import keras
import numpy as np
import tensorflow as tf

from keras_vit.distribution import strategies as distribution

_random = np.random.default_rng(0)
IMAGES = _random.normal(size=(41, 8)).astype("float32")
TARGETS = np.eye(3, dtype="float32")[_random.integers(0, 3, 41)]


def cases(kind):
    """Functions from a strategy to a dict of arrays, by name."""
    functions = (builds, reduces) if kind.startswith("workers") else (clips, weighs, accumulates, repeats, compiles)
    return {f"keras_{function.__name__}": function for function in functions}


def clips(strategy):
    """Clips gradients of batches that divide evenly."""
    return _weights(strategy, {"global_clipnorm": 0.1}, even=True)


def weighs(strategy):
    """Trains with a last batch that does not divide evenly."""
    return _weights(strategy, {})


def accumulates(strategy):
    """Accumulates gradients."""
    return {"error": failure(lambda: _weights(strategy, {"gradient_accumulation_steps": 2}, even=True))}


def repeats(strategy):
    """Predicts on one batch, whose rows every replica gets."""
    return {"times": np.array(len(_model(strategy, {}).predict_on_batch(IMAGES)) / len(IMAGES))}


def compiles(strategy):
    """Compiles the step with XLA."""
    return {"error": failure(lambda: _weights(strategy, {}, even=True, xla=True))}


def builds(strategy):
    """Fits on several workers."""
    return {"error": failure(lambda: _weights(strategy, {}))}


def reduces(strategy):
    """Fits on several workers with the first correction of `prepare` alone."""

    def fit():
        model = distribution.prepare(_model(strategy, {}))
        del model.make_train_function
        model.fit(_batches(), verbose=0, shuffle=False)

    return {"error": failure(fit)}


def failure(call):
    """The error of a call as text; empty if it succeeds."""
    try:
        call()
    except Exception as error:
        return np.array(f"{type(error).__name__}: {error}")
    return np.array("")


def _batches(even=False):
    return tf.data.Dataset.from_tensor_slices((IMAGES, TARGETS)).batch(12, drop_remainder=even)


def _model(strategy, options, xla=False):
    with strategy.scope():
        inputs = keras.Input((8,))
        model = keras.Model(inputs, keras.layers.Dense(3, kernel_initializer="zeros")(inputs))
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.5, **options), loss, jit_compile=xla)
    return model


def _weights(strategy, options, even=False, xla=False):
    model = _model(strategy, options, xla)
    model.fit(_batches(even), verbose=0, shuffle=False)
    return {"kernel": model.weights[0].numpy()}
