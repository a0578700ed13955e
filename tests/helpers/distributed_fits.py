"""The cases of `tests/distribution/test_trainer.py`, run by `distributed_runs.py`."""

import functools

import distributed_faults
import numpy as np
import tensorflow as tf
from distributed_case import CLASSES, batches, compiled, fill, fit, prepared

from keras_vit.config import (
    AugmentConfig,
    DataConfig,
    DistillationConfig,
    DistributionConfig,
    OptimizerConfig,
    Recipe,
    TrainingConfig,
)
from keras_vit.experiment import runner as experiment
from keras_vit.models import SwinConfig, ViTConfig, build_model
from keras_vit.training import SGD, AdamW, Distiller, Lamb, fused_training

VIT = ViTConfig(image_size=8, patch_size=4, hidden_dim=16, num_layers=1, num_heads=2, mlp_dim=24, num_classes=CLASSES)
SWIN = SwinConfig(
    image_size=8, patch_size=2, embed_dim=8, depths=(2,), num_heads=(2,), window_size=2, num_classes=CLASSES
)
MIXING = (0.9, 0.6, 0.75, 0.5)  # the mixup weight of each batch
RECIPE = Recipe(
    name="recipe",
    model=VIT.replace(num_channels=1, num_classes=10),
    data=DataConfig(name="digits", batch_size=50, validation_fraction=0.1),
    augment=AugmentConfig(shift=1.0, random_erasing_prob=0.5, mixup=0.5, cutmix=1.0, mixup_mode="batch"),
    optimizer=OptimizerConfig(name="sgd", learning_rate=0.1, warmup_epochs=1, global_clipnorm=0.5, ema_momentum=0.8),
    training=TrainingConfig(epochs=3, steps_per_epoch=4, precision="float32", compiler="plain"),
    distillation=DistillationConfig(teacher=None),
)
OPTIONS = {
    "weight_decay": 0.1,
    "use_ema": True,
    "ema_momentum": 0.8,
    "ends_with_average": False,
    "gradient_accumulation_steps": 2,
}
NORMS = {"vit": 0.5, "deit": 0.3, "swin": 0.5}  # the norms to which gradients are clipped
LOGGED = ("loss", "accuracy", "val_loss", "val_accuracy")


def cases(kind, folder):
    """Functions from a strategy to a dict of arrays, by name."""
    if kind == "workers:3":
        return {"vit": functools.partial(vit, False), "deit": deit, "swin": swin}
    run = functools.partial(recipe, "multi_worker" if kind.startswith("workers") else kind, folder)
    fits = {"vit": functools.partial(vit, True), "deit": deit, "swin": swin, "recipe": run}
    fits |= {f"bfloat16_{name}": functools.partial(bfloat16, name) for name in NORMS}
    if kind == "one":
        unclipped = {"vit": functools.partial(vit, True), "deit": deit, "swin": swin}
        return {**fits, **{f"unclipped_{name}": functools.partial(fit, norm=None) for name, fit in unclipped.items()}}
    return {**fits, **(distributed_faults.cases(kind) if kind.startswith("workers") else {})}


def vit(fused, strategy, norm=NORMS["vit"]):
    """Trains with all options of AdamW, in fused programs or in plain operations."""

    def make():
        optimizer = AdamW(1e-2, global_clipnorm=norm, **OPTIONS)
        return compiled(build_model(VIT), optimizer, label_smoothing=0.1)

    with fused_training(fused):
        return _with_averages(*fit(strategy, make, batches(), validates=True))


def _with_averages(model, arrays):
    averages = {f"average of {v.path}": a.numpy() for v, a in model.optimizer.moving_averages()}
    assert averages
    return {**arrays, **averages}


def mixed(data):
    """Mixes each batch with itself in reverse order, with a weight of its own."""

    def mix(weight, batch):
        return tuple(weight * x + (1 - weight) * tf.reverse(x, [0]) for x in batch)

    weights = tf.data.Dataset.from_tensor_slices(tf.constant(MIXING))
    return tf.data.Dataset.zip(weights, data).map(mix)


def deit(strategy, norm=NORMS["deit"]):
    """Distills a student with two heads on mixed images."""

    def make():
        return compiled(_distiller(), Lamb(1e-2, global_clipnorm=norm, **OPTIONS), label_smoothing=0.1)

    return _with_averages(*fit(strategy, make, mixed(batches()), validates=True))


def _distiller(dtype=None):
    student, teacher = build_model(VIT.replace(distillation_token=True), dtype=dtype), build_model(VIT, dtype=dtype)
    fill(teacher)
    return Distiller(student, teacher)


def swin(strategy, norm=NORMS["swin"]):
    """Trains a Swin Transformer, whose bias tables have sparse gradients."""

    def make():
        optimizer = SGD(0.05, momentum=0.9, nesterov=True, decay_peak=0.05, global_clipnorm=norm, **OPTIONS)
        return compiled(build_model(SWIN), optimizer, label_smoothing=0.1)

    return _with_averages(*fit(strategy, make, mixed(batches()), validates=True))


def bfloat16(name, strategy):
    """Trains ten epochs of one step each, so that the history has the loss of every step."""

    def make():
        dtype = "mixed_bfloat16"
        model = _distiller(dtype) if name == "deit" else build_model({"vit": VIT, "swin": SWIN}[name], dtype=dtype)
        return compiled(model, AdamW(3e-3, weight_decay=0.1, global_clipnorm=0.5))

    model = prepared(strategy, make)
    history = model.fit(batches().repeat(), epochs=10, steps_per_epoch=1, verbose=0, shuffle=False).history
    return {"losses": np.array(history["loss"])}


def recipe(name, folder, strategy):
    """Runs a recipe under a strategy; returns its losses, scores, weights and files."""
    run = experiment.run(RECIPE.replace(distribution=DistributionConfig(name=name)), folder, log=lambda text: None)
    files = [path.name for path in folder.iterdir()] if run.is_chief else []
    logs = {f"logs of {key}": np.array([epoch[key] for epoch in run.record["epochs"]]) for key in LOGGED}
    scores = {key: np.array(run.evaluation[key]) for key in ("examples", "loss", "accuracy")}
    return {**logs, **scores, **{v.path: v.numpy() for v in run.model.weights}, "files": np.array(sorted(files), str)}
