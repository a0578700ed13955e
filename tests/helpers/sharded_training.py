"""Run by test_sharding.py in a process of its own, on the JAX backend with four logical CPUs.

Trains the same weights on the same batches without a distribution, data-parallel and model-parallel, and prints JSON
with the largest differences of the weights, of the logits, and where the weights were.
"""

import json

import keras
import numpy as np

from keras_vit import sharding
from keras_vit.models import SwinConfig, ViTConfig, build_model
from keras_vit.training import SGD, AdamW, Distiller, warmup_cosine

STEPS, BATCH = 10, 8
_VIT = ViTConfig(image_size=8, patch_size=4, hidden_dim=16, num_layers=2, num_heads=2, mlp_dim=24, num_classes=3)
_SWIN = SwinConfig(
    image_size=16, patch_size=2, embed_dim=8, depths=(1, 2), num_heads=(2, 2), window_size=4, num_classes=3
)
# Of AdamW the logits are compared too: it makes whole steps of the rounding that is the gradient of key biases.
CASES = {
    "vit": (_VIT, "adamw", False),
    "map": (_VIT.replace(num_layers=1, pooling="map", class_token=False, activation="swiglu"), "sgd", False),
    "deit": (_VIT.replace(num_layers=1, distillation_token=True), "sgd", True),
    "swin": (_SWIN, "sgd", False),
}


def _optimizer(name):
    rules = {
        "weight_decay": 0.05,
        "global_clipnorm": 0.5,
        "use_ema": True,
        "ema_momentum": 0.9,
        "ends_with_average": False,
        "gradient_accumulation_steps": 2,
    }
    schedule = warmup_cosine(1e-2, STEPS, 2)
    return AdamW(schedule, **rules) if name == "adamw" else SGD(schedule, momentum=0.9, **rules)


def _mixed(weights, values):
    """Every batch mixed with itself in the opposite order."""
    others = values.reshape(STEPS, BATCH, *values.shape[1:])[:, ::-1].reshape(values.shape)
    weights = weights.reshape(-1, *[1] * (values.ndim - 1))
    return weights * values + (1 - weights) * others


def train(config, optimizer, teacher, distribution):
    """Weights and their averages by path, logits under AdamW, and how many devices hold parts of each weight."""
    keras.distribution.set_distribution(distribution)
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(STEPS * BATCH, *config.image_size, 3)).astype("float32")
    targets = np.eye(config.num_classes, dtype="float32")[rng.integers(0, config.num_classes, len(images))]
    mixing = np.repeat(rng.uniform(0.2, 1.0, STEPS), BATCH).astype("float32")  # one weight a batch
    images, targets = (_mixed(mixing, values) for values in (images, targets))
    model = build_model(config)
    trainer = Distiller(model, build_model(config, name="teacher")) if teacher else model
    trainer.compile(_optimizer(optimizer), keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1))
    trainer.fit(images, targets, batch_size=BATCH, shuffle=False, verbose=0)
    logits = model.predict(images[:BATCH], batch_size=BATCH, verbose=0) if optimizer == "adamw" else 0
    pieces = {w.path: len({str(shard.index) for shard in w.value.addressable_shards}) for w in model.weights}
    variables = {w.path: w for w in model.weights}
    variables |= {f"average of {w.path}": average for w, average in trainer.optimizer.moving_averages()}
    assert len(variables) == len(model.weights) + len(model.trainable_weights)
    return {path: np.asarray(w.value) for path, w in variables.items()}, logits, pieces


def compare(config, optimizer, teacher):
    """The differences of both distributions from one device."""
    weights, logits, _ = train(config, optimizer, teacher, None)
    answer = {"steps": STEPS}
    for name, distribution in (
        ("data", sharding.data_parallel()),
        ("model", sharding.model_parallel(config, shards=2)),
    ):
        found, found_logits, pieces = train(config, optimizer, teacher, distribution)
        answer[name] = {
            "weights": {path: float(np.abs(found[path] - weights[path]).max()) for path in weights},
            "logits": float(np.max(np.abs(found_logits - logits))),
            "pieces": pieces,
        }
    return answer


if __name__ == "__main__":
    print(json.dumps({name: compare(*case) for name, case in CASES.items()}))
