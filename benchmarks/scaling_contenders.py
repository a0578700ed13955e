"""Training steps under the strategies of keras_vit. Imported by a worker only."""

import contextlib

import tensorflow as tf
from keras_contenders import augmented, build

from keras_vit.config import DataConfig, OptimizerConfig, Recipe
from keras_vit.distribution import strategies as distribution
from keras_vit.models import ViTConfig
from keras_vit.training import compile_model, fused_training
from keras_vit.training.loop.hardware import choose_compiler


def train(task, strategy, devices):
    """Steps of `fit` as a recipe has them: clipping, schedule, exclusions, the compiler that the hardware chooses.

    Every device is a thread: operations have one, and as many of them run at once as there are devices in the process.

    Args:
        task: `Task`, whose batch is that of one device.
        strategy: str, as for `keras_vit.distribution.strategy`, or `None`: none at all.
        devices: int. Devices of all processes.

    Returns:
        A callable that does one step, and the number of weights.
    """
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1 if strategy == "multi_worker" else devices)
    chosen = distribution.strategy(strategy or "one")
    config = ViTConfig.from_config(task.config)
    settings = Recipe(
        name="benchmark",
        model=config,
        data=DataConfig(name="random", batch_size=task.batch * devices),
        optimizer=OptimizerConfig(learning_rate=1e-4, weight_decay=0.05, global_clipnorm=1.0),
    ).for_data(config.num_classes, config.num_channels)
    compiler = choose_compiler(settings, "cpu", devices)
    with chosen.scope() if strategy else contextlib.nullcontext():
        model = build(task, "keras_vit")
        compile_model(model, settings, steps_per_epoch=1000, compiler=compiler)
    distribution.prepare(model)
    whole = type(task)(task.label, task.config, task.batch * devices, task.precision, task.training)
    batches = augmented(whole, None).take(1).cache().repeat()
    iterator = None

    def step():
        nonlocal iterator
        if iterator is None:
            # The first step is a real `fit`, which makes the train function and compiles it.
            with fused_training(compiler == "fused"):
                model.fit(batches, steps_per_epoch=1, epochs=1, verbose=0, shuffle=False)
            iterator = iter(chosen.experimental_distribute_dataset(batches) if strategy else batches)
        else:
            float(model.train_function(iterator)["loss"])

    return step, model.count_params()
