"""What Keras alone does on several replicas: run beside the cases of `distributed_small.py`."""

import keras
import numpy as np
import tensorflow as tf

from keras_vit.distribution import strategies as distribution

_random = np.random.default_rng(0)
IMAGES = _random.normal(size=(41, 8)).astype("float32")
TARGETS = np.eye(3, dtype="float32")[_random.integers(0, 3, 41)]


def cases(kind):
    """The functions from a strategy to a dict of arrays."""
    wanted = (builds, reduces) if kind.startswith("workers") else (clips, weighs, accumulates, repeats, compiles)
    return {f"keras_{function.__name__}": function for function in wanted}


def clips(strategy):
    """Gradients that are clipped, of batches that the replicas divide."""
    return _weights(strategy, {"global_clipnorm": 0.1}, even=True)


def weighs(strategy):
    """A last batch of which the replicas get different numbers of rows."""
    return _weights(strategy, {})


def accumulates(strategy):
    """Gradients that are accumulated."""
    return {"error": failure(lambda: _weights(strategy, {"gradient_accumulation_steps": 2}, even=True))}


def repeats(strategy):
    """The rows of a batch that every replica gets."""
    return {"times": np.array(len(_model(strategy, {}).predict_on_batch(IMAGES)) / len(IMAGES))}


def compiles(strategy):
    """A step that XLA is to compile."""
    return {"error": failure(lambda: _weights(strategy, {}, even=True, xla=True))}


def builds(strategy):
    """Any `fit` of several workers."""
    return {"error": failure(lambda: _weights(strategy, {}))}


def reduces(strategy):
    """And what comes next where `prepare` has mended that alone."""

    def fit():
        model = distribution.prepare(_model(strategy, {}))
        del model.make_train_function
        model.fit(_batches(), verbose=0, shuffle=False)

    return {"error": failure(fit)}


def failure(call):
    """What a call says where it fails; an empty str where it does not."""
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
