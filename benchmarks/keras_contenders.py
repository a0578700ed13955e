"""keras_vit and KerasHub on TensorFlow. Imported by a worker only."""

import contextlib

import keras
import numpy as np
import tensorflow as tf

BATCHES = 40  # of a data set in memory


def fit(task, library, jit, padding=None):
    """Steps through the train function that `model.fit` itself uses, on a `tf.data` iterator.

    Everything is left at the default that a user of `compile` and `fit` gets, `jit_compile` aside. With `padding` the
    images come from the pipeline of keras_vit, whichever library the model is of.
    """
    model = build(task, library)
    sparse = padding is None
    loss = keras.losses.SparseCategoricalCrossentropy if sparse else keras.losses.CategoricalCrossentropy
    model.compile(
        optimizer=keras.optimizers.AdamW(1e-4, weight_decay=0.05),
        loss=loss(from_logits=True),
        jit_compile=True if jit else "auto",
    )
    if not sparse:
        return _steps(model, augmented(task, padding)), model.count_params()
    labels = np.random.default_rng(1).integers(task.config["num_classes"], size=task.batch)
    dataset = tf.data.Dataset.from_tensors((images(task), labels)).cache().repeat().prefetch(tf.data.AUTOTUNE)
    return _steps(model, dataset), model.count_params()


def augmented(task, padding):
    """Batches of keras_vit's pipeline: uint8 images in memory, shuffled; with `padding` cropped and mirrored too."""
    from keras_vit.config import AugmentConfig
    from keras_vit.data import Split, training_dataset
    from keras_vit.preprocessing import InputSpec

    count = task.batch if padding is None else BATCHES * task.batch
    random, shape = np.random.default_rng(1), (*task.config["image_size"], task.config["num_channels"])
    pixels = random.integers(256, size=(count, *shape), dtype="uint8")
    labels = random.integers(task.config["num_classes"], size=count)
    spec = InputSpec.symmetric(task.config["image_size"], task.config["num_channels"])
    changes = AugmentConfig() if padding is None else AugmentConfig(padding=padding, flip=True)
    split = Split(pixels, labels)
    return training_dataset(split, task.config["num_classes"], spec, task.batch, 1_000_000, 0, changes)[0]


def recipe(task, padding=None, checkpointed=False, repeated=False):
    """Steps as `keras_vit train` takes them: its compiled model with clipping, schedule and exclusions, the
    compiler chosen by the hardware, and batches that its own pipeline shuffles and normalizes, or with `repeated` the
    first of them again and again."""
    from keras_vit.config import DataConfig, OptimizerConfig, Recipe
    from keras_vit.models import ViTConfig
    from keras_vit.training import compile_model, fused_training
    from keras_vit.training.initialization.warm_start import remat_scope
    from keras_vit.training.loop.hardware import choose_compiler

    config = ViTConfig.from_config(task.config)
    settings = Recipe(
        name="benchmark",
        model=config,
        data=DataConfig(name="random", batch_size=task.batch),
        optimizer=OptimizerConfig(learning_rate=1e-4, weight_decay=0.05, global_clipnorm=1.0),
    ).for_data(config.num_classes, config.num_channels)
    device = "gpu" if tf.config.list_physical_devices("GPU") else "cpu"
    with remat_scope(config, checkpointed):
        model = build(task, "keras_vit")
    compiler = choose_compiler(settings, device, replicas=1)
    compile_model(model, settings, steps_per_epoch=1000, compiler=compiler)
    context = fused_training if compiler == "fused" else contextlib.nullcontext
    dataset = augmented(task, padding)
    dataset = dataset.take(1).cache().repeat() if repeated else dataset
    return _steps(model, dataset, context), model.count_params()


def _steps(model, dataset, context=contextlib.nullcontext):
    """A callable that does one step of the train function that `model.fit` itself uses."""
    iterator = None

    def step():
        nonlocal iterator
        if iterator is None:
            # The first step is a real `fit`, which makes the train function and compiles it.
            with context():
                model.fit(dataset, steps_per_epoch=1, epochs=1, verbose=0, shuffle=False)
            iterator = iter(dataset)
        else:
            float(model.train_function(iterator)["loss"])

    return step


def predict(task, library, jit):
    """`model.predict_on_batch` on NumPy images: the compiled predict function of Keras, arrays in and out."""
    model = build(task, library)
    model.compile(jit_compile=True if jit else "auto")
    batch = images(task)
    return lambda: model.predict_on_batch(batch), model.count_params()


def function(task, library, jit):
    """The model as a plain `tf.function` with a fixed signature."""
    model = build(task, library)
    batch = tf.constant(images(task))
    forward = tf.function(
        lambda x: model(x, training=False), jit_compile=jit, input_signature=[tf.TensorSpec(batch.shape)]
    )
    return lambda: forward(batch).numpy(), model.count_params()


def gemm(task, size):
    """One product of two square matrices, and no weights."""
    dtype = tf.dtypes.as_dtype(task.precision)
    left, right = (tf.cast(tf.random.normal((size, size), seed=seed), dtype) for seed in (0, 1))
    return lambda: tf.linalg.matmul(left, right), 0


def images(task):
    """A batch of random images, float32, channels last."""
    shape = (task.batch, *task.config["image_size"], task.config["num_channels"])
    return np.random.default_rng(0).standard_normal(shape, "float32")


def build(task, library):
    """The model of a library under the global dtype policy that belongs to the precision."""
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("mixed_bfloat16" if task.precision == "bfloat16" else "float32")
    return {"keras_vit": _keras_vit, "kerashub": kerashub_model}[library](task.config)


def _keras_vit(config):
    from keras_vit.models import ViTConfig, build_vit

    return build_vit(ViTConfig.from_config(config))


def kerashub_model(config):
    """KerasHub's backbone with a dense head on the class token, in float32 as Keras' guide on precision asks."""
    import keras_hub

    backbone = keras_hub.models.ViTBackbone(
        image_shape=(*config["image_size"], config["num_channels"]),
        patch_size=tuple(config["patch_size"]),
        num_layers=config["num_layers"],
        num_heads=config["num_heads"],
        hidden_dim=config["hidden_dim"],
        mlp_dim=config["mlp_dim"],
        layer_norm_epsilon=config["layer_norm_epsilon"],
    )
    logits = keras.layers.Dense(config["num_classes"], dtype="float32", name="head")(backbone.output[:, 0])
    return keras.Model(backbone.input, logits)
