"""What `test_distribution_fit.py` runs on one device and on several: see `distributed_runs.py`."""

import functools

import distributed_faults
import keras
import numpy as np
import tensorflow as tf

from keras_vit import distribution, experiment
from keras_vit.layers import Dropout
from keras_vit.models import SwinConfig, ViTConfig, build_model
from keras_vit.training import (
    SGD,
    AdamW,
    AugmentConfig,
    DataConfig,
    DistillationConfig,
    Distiller,
    DistributionConfig,
    Lamb,
    OptimizerConfig,
    Recipe,
    TrainingConfig,
    fused_training,
    trained_model,
)

CLASSES, BATCH, EPOCHS = 3, 12, 3
EXAMPLES = 3 * BATCH + 5  # of the last batch one of two replicas may get none
RATE, SAMPLES, DRAWS = 0.25, 200, 5
VIT = ViTConfig(image_size=8, patch_size=4, hidden_dim=16, num_layers=1, num_heads=2, mlp_dim=24, num_classes=CLASSES)
SWIN = SwinConfig(
    image_size=8, patch_size=2, embed_dim=8, depths=(2,), num_heads=(2,), window_size=2, num_classes=CLASSES
)
MIXING = (0.9, 0.6, 0.75, 0.5)  # mixup's weights of the batches
RECIPE = Recipe(
    name="recipe",
    model=VIT.replace(num_channels=1, num_classes=10),
    data=DataConfig(name="digits", batch_size=50, validation_fraction=0.1),
    augment=AugmentConfig(shift=1.0, erasing=0.5, mixup=0.5, cutmix=1.0, mixing="batch"),
    optimizer=OptimizerConfig(name="sgd", learning_rate=0.1, warmup_epochs=1, clip_norm=0.5, ema_momentum=0.8),
    training=TrainingConfig(epochs=3, steps_per_epoch=4, precision="float32", compiler="plain"),
    distillation=DistillationConfig(teacher=None),
)
LOGGED = ("loss", "accuracy", "val_loss", "val_accuracy")

_random = np.random.default_rng(0)
IMAGES = _random.normal(size=(EXAMPLES, 8, 8, 3)).astype("float32")
TARGETS = np.eye(CLASSES, dtype="float32")[_random.integers(0, CLASSES, EXAMPLES)]
WEIGHTS = _random.uniform(0.2, 2.0, EXAMPLES).astype("float32")


def cases(kind, folder):
    """The functions from a strategy to a dict of arrays."""
    few = {"masks": masks, "rows": rows}
    if kind == "workers:3":
        return {"vit": functools.partial(vit, False), **few}
    smalls = {name: functools.partial(small, name) for name in SMALL}
    run = functools.partial(recipe, "multi_worker" if kind.startswith("workers") else kind, folder)
    fits = {"vit": functools.partial(vit, True), "deit": deit, "swin": swin, "bfloat16": bfloat16, "recipe": run}
    refused = {} if kind == "one" else {"refusals": refusals}
    return {**few, **fits, **smalls, "on_batch": on_batch, **refused, **distributed_faults.cases(kind)}


def vit(fuses, strategy):
    """AdamW with all that it may have; as the small XLA programs of a CPU, or as plain operations."""

    def make():
        optimizer = AdamW(
            1e-2,
            weight_decay=0.1,
            global_clipnorm=0.5,
            use_ema=True,
            ema_momentum=0.8,
            ends_with_average=False,
            gradient_accumulation_steps=2,
        )
        return _compiled(build_model(VIT), optimizer, label_smoothing=0.1)

    with fused_training(fuses):
        model, arrays = _fit(strategy, make, _batches(), judges=True)
    averages = {f"average of {v.path}": a.numpy() for v, a in model.optimizer.averages()}
    return {**arrays, **averages}


def deit(strategy):
    """A student with two heads, a teacher, and mixed images."""

    def make():
        student, teacher = build_model(VIT.replace(distillation_token=True)), build_model(VIT)
        _fill(teacher)
        optimizer = Lamb(1e-2, weight_decay=0.1, global_clipnorm=0.3)
        return _compiled(Distiller(student, teacher), optimizer)

    def mix(weight, batch):
        return tuple(weight * x + (1 - weight) * tf.reverse(x, [0]) for x in batch)

    weights = tf.data.Dataset.from_tensor_slices(tf.constant(MIXING))
    return _fit(strategy, make, tf.data.Dataset.zip(weights, _batches()).map(mix))[1]


def swin(strategy):
    """Whose bias tables have sparse gradients."""

    def make():
        optimizer = SGD(0.05, momentum=0.9, nesterov=True, weight_decay=0.1, decay_peak=0.05, global_clipnorm=0.5)
        return _compiled(build_model(SWIN), optimizer)

    return _fit(strategy, make, _batches())[1]


def bfloat16(strategy):
    """Ten epochs of one step each, so that the loss of every step is told."""

    def make():
        model = build_model(VIT, dtype="mixed_bfloat16")
        return _compiled(model, AdamW(3e-3, weight_decay=0.1, global_clipnorm=0.5))

    model = _prepared(strategy, make)
    history = model.fit(_batches().repeat(), epochs=10, steps_per_epoch=1, verbose=0, shuffle=False).history
    return {"losses": np.array(history["loss"])}


class OwnStep(keras.Model):
    """A model with a step of its own, which tells what the replicas have to be averaged over."""

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
}


def small(name, strategy):
    """Keras' own optimizers, a regulariser, weighted examples and a step of the model's own."""

    def make():
        if name == "own_step":
            return _compiled(_dense(OwnStep), SMALL[name](), metrics=False)
        steps = 3 if name == "overwritten" else 1
        return _compiled(_dense(), SMALL[name](), weighted=True, steps_per_execution=steps)

    return _fit(strategy, make, _batches(weighted=True), judges=name == "overwritten")[1]


def _dense(kind=keras.Model):
    inputs = keras.Input((8, 8, 3))
    hidden = keras.layers.Dense(8, "tanh", kernel_regularizer="l2")(keras.layers.Flatten()(inputs))
    return kind(inputs, keras.layers.Dense(CLASSES)(hidden))


def recipe(name, folder, strategy):
    """`experiment.run`, under a strategy of this name: its losses, scores and weights, and the files it leaves."""
    run = experiment.run(RECIPE.replace(distribution=DistributionConfig(name=name)), folder, log=lambda text: None)
    files = [path.name for path in folder.iterdir()] if run.is_chief else []
    logs = {f"logs of {key}": np.array([epoch[key] for epoch in run.record["epochs"]]) for key in LOGGED}
    scores = {key: np.array(run.evaluation[key]) for key in ("examples", "loss", "accuracy")}
    return {**logs, **scores, **{v.path: v.numpy() for v in run.model.weights}, "files": np.array(sorted(files), str)}


def on_batch(strategy):
    """`train_on_batch` and the like."""
    model = _prepared(strategy, lambda: _compiled(_dense(), _optimizers.SGD(0.3, global_clipnorm=0.1)))
    logs = [model.train_on_batch(IMAGES, TARGETS) for _ in range(3)]
    return {
        "logs": np.array(logs),
        "scores": np.array(model.test_on_batch(IMAGES, TARGETS)),
        "logits": model.predict_on_batch(IMAGES),
    }


def refusals(strategy):
    """What is said about what cannot be right."""
    with strategy.scope():
        models = {name: _dense() for name in ("sum", "weighted", "xla", "foreign")}
    outside = _dense()
    losses = keras.losses.CategoricalCrossentropy
    models["sum"].compile("sgd", losses(reduction="sum"), jit_compile=False)
    models["weighted"].compile("sgd", [losses(reduction="mean_with_sample_weight")], jit_compile=False)
    models["xla"].compile("sgd", losses(), jit_compile=True)
    calls = {name: lambda model=models[name]: distribution.prepare(model).evaluate(_batches()) for name in models}

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
    """What became of ones, `(draws, replicas, samples)`, and the numbers of the replicas."""
    with strategy.scope():
        layer = Dropout(RATE, noise_shape=(None, 1), seed=1)

    @tf.function
    def draw():
        def on_replica():
            context = tf.distribute.get_replica_context()
            return layer(tf.ones((SAMPLES, 1)), training=True)[None], tf.stack([context.replica_id_in_sync_group])

        return tuple(strategy.gather(value, axis=0) for value in strategy.run(on_replica))

    drawn, replicas = zip(*(draw() for _ in range(DRAWS)), strict=True)
    return {"masks": np.stack(drawn)[..., 0], "replicas": np.stack(replicas)}


def rows(strategy):
    """The rows of a shuffled data set that the replicas of this worker get, and those that arrays are shuffled to."""
    numbers = tf.data.Dataset.range(23).shuffle(23)
    distributed = strategy.experimental_distribute_dataset(numbers.batch(7))
    return {f"batch {i}": _local(strategy, batch) for i, batch in enumerate(distributed)}


def _local(strategy, batch):
    """The rows of the replicas of this worker."""
    return np.concatenate([rows.numpy() for rows in strategy.experimental_local_results(batch)])


def _batches(weighted=False):
    columns = (IMAGES, TARGETS, WEIGHTS) if weighted else (IMAGES, TARGETS)
    return tf.data.Dataset.from_tensor_slices(columns).batch(BATCH)


def _fill(model):
    """The same weights in every process."""
    for seed, weight in enumerate(model.weights):
        weight.assign(keras.random.normal(weight.shape, 0.0, 0.2, seed=seed))


def _compiled(model, optimizer, label_smoothing=0.0, steps_per_execution=1, metrics=True, weighted=False):
    _fill(trained_model(model))
    model.compile(
        optimizer,
        keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=label_smoothing),
        metrics=["accuracy"] if metrics else None,
        weighted_metrics=["accuracy"] if weighted else None,
        steps_per_execution=steps_per_execution,
        jit_compile=False,
    )
    return model


def _prepared(strategy, make):
    keras.utils.set_random_seed(1)
    with strategy.scope():
        model = make()
    return distribution.prepare(model)


def _fit(strategy, make, batches, judges=False):
    """A model and what can be told of its training: weights, logs of every epoch, and the logits of all examples."""
    model = _prepared(strategy, make)
    data = batches if judges else None
    history = model.fit(batches, epochs=EPOCHS, validation_data=data, verbose=0, shuffle=False).history
    trained = trained_model(model)
    logits = model.predict(batches, verbose=0) if judges else trained(IMAGES, training=False).numpy()
    weights = {v.path: v.numpy() for v in trained.weights}
    logs = {f"logs of {name}": np.array(values) for name, values in history.items()}
    return model, {**weights, **logs, "logits": logits}
