"""The cases of `tests/distribution/test_one_device.py`, run by `distributed_runs.py`."""

import functools
import os

import distributed_faults
import keras
import numpy as np
import tensorflow as tf
from distributed_case import CLASSES, IMAGES, TARGETS, batches, compiled, fill, fit, prepared

from keras_vit.distribution import strategies as distribution
from keras_vit.layers import Dropout
from keras_vit.models import ViTConfig, build_model
from keras_vit.training import SGD, MaskedAutoencoder

RATE, SAMPLES, DRAWS = 0.25, 200, 5
FILES = 5  # File i has i + 1 lines; the tens digit of a number is that of its file.


def cases(kind, folder):
    """Functions from a strategy to a dict of arrays, by name."""
    if kind == "cpu:1":
        return {"xla": xla, "uncompiled": uncompiled}
    if kind == "mirrored":
        return {"clipnorm": functools.partial(small, "clipnorm"), "devices": devices}
    few = {"masks": masks, "rows": rows}
    if kind == "workers:3":
        return few
    smalls = {name: functools.partial(small, name) for name in SMALL}
    if not kind.startswith("workers"):
        smalls["masked"] = masked
    refused = {"xla": xla} if kind == "one" else {"refusals": refusals}
    if kind == "workers:2":
        few |= {f"by_{name}": functools.partial(of_files, name, folder) for name in ("file", "off")}
    # Workers on which Keras fails at different times may wait for each other: those cases are in the long tests.
    faults = {} if kind.startswith("workers") else distributed_faults.cases(kind)
    return {**few, **smalls, "on_batch": on_batch, **refused, **faults}


class OwnStep(keras.Model):
    """A model with its own `train_step`, whose logs differ between replicas."""

    def train_step(self, data):
        x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x, y, self(x, training=True), weights)
        variables = self.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return {"replica": tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.float32)}


_optimizers = keras.optimizers
SMALL = {
    "clipnorm": lambda: _optimizers.Adam(0.05, clipnorm=0.1),
    "clipvalue": lambda: _optimizers.SGD(0.3, clipvalue=0.02, weight_decay=0.1, gradient_accumulation_steps=2),
    "overwritten": lambda: _optimizers.SGD(0.3, global_clipnorm=0.1, use_ema=True, ema_overwrite_frequency=3),
    "loss_scale": lambda: _optimizers.LossScaleOptimizer(_optimizers.SGD(0.3, global_clipnorm=0.1), 64.0),
    "own_step": lambda: _optimizers.SGD(0.3, momentum=0.5),
    "eager": lambda: _optimizers.SGD(0.3, global_clipnorm=0.1),
}


def small(name, strategy):
    """Trains with Keras' own optimizers, a regularizer, sample weights, and a model's own `train_step`."""

    def make():
        if name == "own_step":
            return compiled(_dense(OwnStep), SMALL[name](), metrics=False)
        model = compiled(_dense(), SMALL[name](), weighted=True, steps_per_execution=3 if name == "overwritten" else 1)
        model.run_eagerly = name == "eager"
        return model

    return fit(strategy, make, batches(weighted=True), validates=name == "overwritten")[1]


class _ConstantMask(MaskedAutoencoder):
    """Masks the same patches in training and in evaluation, on any number of devices."""

    def _noise(self, patches, training):
        return super()._noise(patches, False)


def masked(strategy):
    """Trains a masked autoencoder; returns its weights and losses."""
    config = ViTConfig(image_size=8, patch_size=2, hidden_dim=8, num_layers=1, num_heads=2, mlp_dim=8, num_classes=0)

    def make():
        model = _ConstantMask(build_model(config), decoder_dim=8, decoder_layers=1, decoder_heads=2)
        fill(model)
        model.compile(SGD(0.05, global_clipnorm=0.5, momentum=0.9))
        return model

    model = prepared(strategy, make)
    logs = model.fit(batches(), epochs=2, verbose=0, shuffle=False).history["loss"]
    weights = {f"{i}: {v.path}": v.numpy() for i, v in enumerate(model.weights)}
    return {**weights, "losses": np.array(logs), "evaluated": np.array(model.evaluate(batches(), verbose=0))}


def _dense(kind=keras.Model):
    inputs = keras.Input((8, 8, 3))
    hidden = keras.layers.Dense(8, "tanh", kernel_regularizer="l2", name="hidden")(keras.layers.Flatten()(inputs))
    return kind(inputs, keras.layers.Dense(CLASSES, name="head")(hidden))


def xla(strategy):
    """Runs `fit`, `evaluate` and `predict` with steps compiled by XLA."""
    optimizer = functools.partial(_optimizers.Adam, 0.05, global_clipnorm=0.1)
    return fit(strategy, lambda: compiled(_dense(), optimizer(), xla=True), batches(), validates=True)[1]


class InPython(keras.layers.Layer):
    """A layer that XLA cannot compile."""

    def call(self, inputs):
        return tf.ensure_shape(tf.numpy_function(lambda x: x, [inputs], tf.float32), inputs.shape)


def uncompiled(strategy):
    """The errors of a model that XLA cannot compile."""

    def make():
        inputs = keras.Input((8, 8, 3))
        outputs = keras.layers.Dense(CLASSES)(InPython()(keras.layers.Flatten()(inputs)))
        model = keras.Model(inputs, outputs)
        model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True), jit_compile=True)
        return model

    model, batch = prepared(strategy, make), batches().take(1)
    calls = {name: functools.partial(getattr(model, name), batch, verbose=0) for name in ("fit", "evaluate", "predict")}
    return {name: distributed_faults.failure(call) for name, call in calls.items()}


def devices(strategy):
    """The names of the devices of the strategy."""
    return {"devices": np.array(strategy.extended.worker_devices)}


def on_batch(strategy):
    """Runs `train_on_batch`, `test_on_batch` and `predict_on_batch`."""
    model = prepared(strategy, lambda: compiled(_dense(), _optimizers.SGD(0.3, global_clipnorm=0.1)))
    logs = [model.train_on_batch(IMAGES, TARGETS) for _ in range(3)]
    return {
        "logs": np.array(logs),
        "scores": np.array(model.test_on_batch(IMAGES, TARGETS)),
        "logits": model.predict_on_batch(IMAGES),
    }


def refusals(strategy):
    """The errors of what several replicas cannot compute correctly."""
    with strategy.scope():
        models = {name: _dense() for name in ("sum", "weighted", "xla", "foreign")}
    outside = _dense()
    losses = keras.losses.CategoricalCrossentropy
    models["sum"].compile("sgd", losses(reduction="sum"), jit_compile=False)
    models["weighted"].compile("sgd", [losses(reduction="mean_with_sample_weight")], jit_compile=False)
    models["xla"].compile("sgd", losses(), jit_compile=True)
    calls = {name: lambda model=models[name]: distribution.prepare(model).evaluate(batches()) for name in models}

    def prepare_outside():
        with strategy.scope():
            distribution.prepare(outside)

    def prepare_foreign():
        model = models["foreign"]
        model._distribute_strategy = tf.distribute.MultiWorkerMirroredStrategy()
        distribution.prepare(model)

    calls["outside"] = prepare_outside
    if type(strategy) is distribution.MultiWorkerStrategy:
        calls["foreign"] = prepare_foreign
    else:
        del calls["foreign"]
    return {name: distributed_faults.failure(call) for name, call in calls.items()}


def masks(strategy):
    """Dropout masks `(draws, replicas, samples)`, and the numbers of the replicas."""
    with strategy.scope():
        layer = Dropout(RATE, noise_shape=(None, 1), seed=1)

    @tf.function
    def draw():
        def on_replica():
            context = tf.distribute.get_replica_context()
            return layer(tf.ones((SAMPLES, 1)), training=True)[None], tf.stack([context.replica_id_in_sync_group])

        return tuple(strategy.gather(value, axis=0) for value in strategy.run(on_replica))

    values, replicas = zip(*(draw() for _ in range(DRAWS)), strict=True)
    return {"masks": np.stack(values)[..., 0], "replicas": np.stack(replicas)}


def rows(strategy):
    """The rows of a shuffled dataset that the replicas of this worker get."""
    numbers = tf.data.Dataset.range(23).shuffle(23)
    distributed = strategy.experimental_distribute_dataset(numbers.batch(7))
    return {f"batch {i}": _local(strategy, batch) for i, batch in enumerate(distributed)}


def of_files(sharding, folder, strategy):
    """The numbers from files that the replicas of this worker get."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [str(folder / f"{i}.txt") for i in range(FILES)]
    for i, name in enumerate(names):  # Every worker writes the same files.
        own = f"{name}-{os.getpid()}"
        with open(own, "w") as file:
            file.writelines(f"{10 * i + j}\n" for j in range(i + 1))
        os.replace(own, name)
    lines = tf.data.TextLineDataset(tf.data.Dataset.from_tensor_slices(names))
    numbers = lines.map(lambda line: tf.strings.to_number(line, tf.int64)).batch(4)
    distributed = strategy.experimental_distribute_dataset(distribution.with_sharding(numbers, sharding))
    return {f"batch {i}": _local(strategy, batch) for i, batch in enumerate(distributed)}


def _local(strategy, batch):
    """The rows of the replicas of this worker."""
    return np.concatenate([rows.numpy() for rows in strategy.experimental_local_results(batch)])
