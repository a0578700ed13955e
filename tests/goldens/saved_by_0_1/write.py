"""Writes the files of this folder. It ran at version 0.1.0, commit f240271; a later version must read what it wrote.

python tests/goldens/saved_by_0_1/write.py
"""

import pathlib
import sys
import tempfile

import keras
import numpy as np
import tensorflow as tf

import keras_vit
from keras_vit import experiment
from keras_vit.models import ConvNetConfig, HybridConfig, SwinConfig, ViTConfig, build_model
from keras_vit.preprocessing import InputSpec
from keras_vit.training import (
    AugmentConfig,
    DataConfig,
    MaskingConfig,
    OptimizerConfig,
    Recipe,
    TrainingConfig,
    make_optimizer,
)

FOLDER = pathlib.Path(__file__).parent
VIT = ViTConfig(image_size=(16, 24), patch_size=8, hidden_dim=8, num_layers=1, num_heads=2, mlp_dim=12, num_classes=3)
CONFIGS = {
    "vit": VIT.replace(num_registers=1, layer_scale_init=0.1, qk_norm=True, dropout_rate=0.1, drop_path_rate=0.1),
    "deit": VIT.replace(distillation_token=True),
    "swin": SwinConfig(
        image_size=16, patch_size=2, embed_dim=4, depths=(1, 1), num_heads=(1, 2), window_size=4, num_classes=3
    ),
    "hybrid": HybridConfig(
        image_size=(16, 24),
        patch_size=1,
        hidden_dim=8,
        num_layers=1,
        num_heads=2,
        mlp_dim=12,
        stem_depths=(1,),
        stem_width=32,
        num_classes=3,
    ),
    "convnet": ConvNetConfig(image_size=16, num_classes=3, widths=(4, 8), depths=(0, 1)),
}
OPTIMIZERS = {
    "adamw": {"weight_decay": 0.05, "clip_norm": 1.0, "ema_momentum": 0.9},
    "adam": {},
    "sgd": {"weight_decay": 0.05, "momentum": 0.9},
    "lamb": {"weight_decay": 0.05},
    "lion": {"weight_decay": 0.05},
    "muon": {"weight_decay": 0.05, "accumulation_steps": 2},
}
LABELS = ["ant", "bee", "cat"]
RUN = Recipe(
    name="run",
    model=VIT,
    input_spec=InputSpec((16, 24)),
    data=DataConfig(name="digits", batch_size=8, repeats=2),
    augment=AugmentConfig(erasing=0.5, mixup=0.2, cutmix=1.0, mixing="sample", mixing_rate=0.75, cutmix_rate=0.25),
    optimizer=OptimizerConfig(
        name="muon",
        learning_rate=1e-3,
        reference_batch=16,
        schedule="epoch_cosine",
        late=True,
        warmup_epochs=1,
        weight_decay=0.05,
        independent_decay=True,
        momentum=0.95,
        adam_ratio=0.5,
        clip_norm=1.0,
        accumulation_steps=2,
    ),
    training=TrainingConfig(
        epochs=2,
        steps_per_epoch=2,
        evaluation_steps=1,
        head_bias=-1.0,
        zero_head=True,
        precision="float32",
        compiler="plain",
    ),
)


def batch(config, count=4):
    """Images and one-hot labels for a config, the same in every process."""
    generator = np.random.default_rng(7)
    images = generator.uniform(-1, 1, (count, *config.image_size, config.num_channels)).astype("float32")
    return images, np.eye(3, dtype="float32")[np.arange(count) % 3]


def randomize(model):
    """Draws every weight anew, so that no zero hides a mistake."""
    generator = np.random.default_rng(0)
    for variable in model.weights:
        variable.assign(generator.normal(1.0 if variable.path.endswith("gamma") else 0.0, 0.2, variable.shape))


def model_of(name):
    """A tiny model with labels and an origin."""
    config = CONFIGS[name]
    spec = InputSpec(config.image_size, crop_fraction=0.9, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    model = build_model(config, spec, LABELS, origin=f"random {name}", name=name)
    randomize(model)
    return model


def main():
    """Writes models, trained models, two runs and a SavedModel."""
    for name in CONFIGS:
        model = model_of(name)
        images, _ = batch(CONFIGS[name])
        model.save(FOLDER / f"{name}.keras")
        np.savez_compressed(FOLDER / f"{name}.npz", outputs=model.predict(images, verbose=0))
    for name, fields in OPTIMIZERS.items():
        images, labels = batch(VIT)
        model = build_model(VIT, labels=LABELS, name="vit")
        randomize(model)
        config = OptimizerConfig(name=name, learning_rate=0.01, warmup_steps=2, **fields)
        optimizer = make_optimizer(config, steps_per_epoch=2, epochs=4, batch_size=4, model=model)
        model.compile(optimizer, keras.losses.CategoricalCrossentropy(from_logits=True))
        fit = {"batch_size": 4, "shuffle": False, "verbose": 0}
        model.fit(images, labels, epochs=2, **fit)
        model.save(FOLDER / f"trained_{name}.keras")
        outputs = model.predict(images, verbose=0)
        model.fit(images, labels, epochs=2, **fit)
        np.savez_compressed(FOLDER / f"trained_{name}.npz", outputs=outputs, continued=model.predict(images, verbose=0))
    recipe = Recipe(
        name="masked",
        model=VIT.replace(position_embedding="sincos2d_moco"),
        input_spec=InputSpec((16, 24)),
        data=DataConfig(name="digits", batch_size=8, train_split="train", test_split="test"),
        augment=AugmentConfig(),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup_epochs=0),
        training=TrainingConfig(epochs=1, steps_per_epoch=2, evaluation_steps=1, precision="float32"),
        masking=MaskingConfig(decoder_dim=8, decoder_layers=1, decoder_heads=2),
    )
    with tempfile.TemporaryDirectory() as temporary:
        experiment.run(recipe, pathlib.Path(temporary) / "run", True, lambda text: None)
        (FOLDER / "masked.keras").write_bytes((pathlib.Path(temporary) / "run" / "model.keras").read_bytes())
        experiment.run(RUN, pathlib.Path(temporary) / "whole", True, lambda text: None)
        (FOLDER / "run").mkdir()
        (FOLDER / "run" / "checkpoint.npz").write_bytes(
            (pathlib.Path(temporary) / "whole" / "checkpoint.npz").read_bytes()
        )
    model = keras.models.load_model(FOLDER / "masked.keras", compile=False)
    images, _ = batch(VIT.replace(num_channels=1))
    np.savez_compressed(FOLDER / "masked.npz", outputs=model.predict(images, verbose=0))
    keras_vit.export.saved_model(model_of("vit"), FOLDER / "saved_model")
    pixels = np.random.default_rng(7).integers(0, 256, (2, 16, 24, 3), "uint8")
    served = tf.saved_model.load(FOLDER / "saved_model" / "1").signatures["images_uint8"](images=tf.constant(pixels))
    np.savez_compressed(FOLDER / "saved_model.npz", pixels=pixels, logits=served["logits"])


if __name__ == "__main__":
    sys.exit(main())
