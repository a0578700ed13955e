"""The same on every backend of Keras: choose it with `KERAS_BACKEND=jax|torch|tensorflow`.

The models in goldens/backends were saved by TensorFlow, with the logits that it gave for them.
`python tests/test_backends.py --write` writes them anew.
"""

import pathlib
import signal
import sys

import golden
import keras
import numpy as np
import pytest

from keras_vit import features, metadata
from keras_vit.config import DataConfig, OptimizerConfig, Recipe, TrainingConfig
from keras_vit.interpret import attention_maps, grad_cam, integrated_gradients, relevance, rollout
from keras_vit.models import ViTConfig, build_vit
from keras_vit.training import compile_model, fit
from keras_vit.training.loop import fit as run_module
from keras_vit.training.loop.checkpoint import load_checkpoint
from keras_vit.training.loop.preemption import Preempted
from keras_vit.training.loop.run_context import RunContext

FOLDER = pathlib.Path(__file__).with_name("goldens") / "backends"
BASE = ViTConfig(image_size=(8, 12), patch_size=4, hidden_dim=16, num_layers=2, num_heads=2, mlp_dim=24, num_classes=3)
CONFIGS = {
    "class_token_dropouts": BASE.replace(dropout_rate=0.2, attention_dropout_rate=0.2, drop_path_rate=0.2),
    "map": BASE.replace(pooling="map", class_token=False, position_embedding="sincos2d", activation="gelu_tanh"),
    "registers_layer_scale_swiglu": BASE.replace(
        num_registers=2, layer_scale_init=0.5, activation="swiglu", qk_norm=True, distillation_token=True
    ),
}
pytestmark = pytest.mark.backends


@pytest.fixture(params=CONFIGS)
def case(request):
    """The model that TensorFlow saved, images and its logits."""
    arrays = np.load(FOLDER / f"{request.param}.npz")
    return keras.models.load_model(FOLDER / f"{request.param}.keras"), arrays["images"], arrays["logits"]


def _numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


def test_the_configs_are_those_of_the_goldens(case, request):
    assert metadata(case[0]).config == CONFIGS[request.node.callspec.params["case"]]


def test_logits_equal_those_of_tensorflow(case):
    model, images, logits = case
    np.testing.assert_allclose(model.predict(images, verbose=0), logits, atol=1e-4)


def test_a_step_of_fit_moves_every_weight(case):
    model, images, _ = case
    before = {w.path: _numpy(w) for w in model.trainable_weights}
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01), loss)
    history = model.fit(images, np.array([0, 1, 2]), batch_size=3, epochs=1, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    for weight in model.trainable_weights:
        assert np.isfinite(_numpy(weight)).all(), weight.path
        # The softmax takes the offset of the key norm out again.
        assert weight.path.endswith("key_norm/beta") or (_numpy(weight) != before[weight.path]).any(), weight.path


def test_save_and_load(case, tmp_path):
    model, images, _ = case
    model.get_layer("head").bias.assign([1.0, 2.0, 3.0])
    model.save(tmp_path / "vit.keras")
    loaded = keras.models.load_model(tmp_path / "vit.keras")
    expected = model.predict(images, verbose=0)
    np.testing.assert_allclose(loaded.predict(images, verbose=0), expected, atol=1e-6)
    assert metadata(loaded) == metadata(model)


def test_weights_of_another_grid(case, tmp_path):
    model, *_ = case
    model.save_weights(tmp_path / "vit.weights.h5")
    larger = build_vit(metadata(model).config.replace(image_size=16))
    if metadata(model).config.position_embedding == "learned":
        with pytest.warns(UserWarning, match=r"positions of the grid \(2, 3\) are resized to \(4, 4\)"):
            larger.load_weights(tmp_path / "vit.weights.h5")
    assert np.isfinite(larger.predict(np.zeros((1, 16, 16, 3), "float32"), verbose=0)).all()


def test_attention_rows_sum_to_one(case):
    model, images, _ = case
    for attention in attention_maps(model, images).values():
        np.testing.assert_allclose(attention.sum(axis=-1), 1, atol=1e-5)


def test_heat_maps_follow_the_attention(case):
    """Of the class token and the distillation token the product of all blocks' `A + I`, of patches the last `A`."""
    model, images, _ = case
    maps, config = list(attention_maps(model, images).values()), metadata(model).config
    height, width = config.grid_size
    relevance, tokens = maps[-1].mean(axis=1), maps[-1].shape[-1]
    queries = slice(tokens - height * width, None)
    if config.pooling == "token":
        relevance, queries = np.eye(tokens), slice(1 + int(config.distillation_token))
        for attention in maps:
            relevance = (attention.mean(axis=1) + np.eye(tokens)) / 2 @ relevance
    expected = relevance[:, queries, -height * width :].mean(axis=1)
    expected = (expected / expected.sum(axis=1, keepdims=True)).reshape(-1, height, width)
    np.testing.assert_allclose(rollout(model, images), expected, rtol=1e-3)


def test_explanations_of_a_class_follow_its_score(case):
    model, images, logits = case
    attributions = integrated_gradients(model, images, 1, steps=64)
    gained = logits[:, 1] - _numpy(model(np.zeros_like(images)))[:, 1]
    np.testing.assert_allclose(attributions.sum(axis=(1, 2, 3)), gained, atol=1e-3)
    for maps in (relevance(model, images, 1), grad_cam(model, images, 1)):
        assert maps.shape == (3, *metadata(model).config.grid_size)
        assert maps.min() >= 0
        assert maps.std() > 0


def test_relevance_equals_the_golden():
    model, images, _ = golden.load("timm/vit_token_nonsquare")
    with np.load(golden.GOLDENS / "interpret" / "vit_token_nonsquare.npz") as file:
        expected = file["relevance_class_to_patches"]
        np.testing.assert_allclose(relevance(model, images, file["target"]), expected, atol=1e-5)


def test_attention_changes_no_output(case):
    """With the probabilities the plain path runs, without them the fused kernel where there is one."""
    model, images, _ = case
    outputs = features(model, ["encoder_block_0", "encoder_block_1"])(images)
    block = model.get_layer("encoder_block_1")
    plain, _ = block(outputs["encoder_block_0"], return_attention=True)
    np.testing.assert_allclose(_numpy(plain), _numpy(outputs["encoder_block_1"]), atol=1e-5)


@pytest.mark.parametrize(
    ("case", "policy"),
    [
        ("class_token_dropouts", "mixed_bfloat16"),
        ("map", "mixed_float16"),
        ("registers_layer_scale_swiglu", "mixed_bfloat16"),
        ("registers_layer_scale_swiglu", "mixed_float16"),
    ],
    indirect=["case"],
)
def test_mixed_precision(case, policy):
    model, images, logits = case
    mixed = build_vit(metadata(model).config, dtype=policy)
    mixed.set_weights([_numpy(w) for w in model.weights])
    outputs = mixed.predict(images, verbose=0)
    assert outputs.dtype == "float32"
    np.testing.assert_allclose(outputs, logits, atol=0.1)


@pytest.mark.long
@pytest.mark.parametrize("case", ["map"], indirect=True)
def test_quantized_model_can_be_saved(case, tmp_path):
    model, images, logits = case
    model.quantize("int8")
    quantized = model.predict(images, verbose=0)
    np.testing.assert_allclose(quantized, logits, atol=0.1 * np.abs(logits).max())
    model.save(tmp_path / "int8.keras")
    loaded = keras.models.load_model(tmp_path / "int8.keras")
    np.testing.assert_allclose(loaded.predict(images, verbose=0), quantized, atol=1e-6)


class _Signal(keras.callbacks.Callback):
    """Asks the process to end in the fifth step."""

    def on_train_batch_begin(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == 4:
            signal.raise_signal(signal.SIGTERM)


@pytest.mark.long
def test_a_run_goes_on_within_an_epoch(tmp_path, monkeypatch):
    """It ends as one that was not interrupted, to the state of dropout's random numbers."""
    optimizer = OptimizerConfig(learning_rate=1e-2, ema_momentum=0.9, global_clipnorm=1.0)
    training = TrainingConfig(epochs=2, steps_per_epoch=3)
    model = CONFIGS["class_token_dropouts"].replace(num_layers=1)
    recipe = Recipe(name="run", model=model, data=DataConfig(name="digits"), optimizer=optimizer, training=training)
    images = np.random.default_rng(0).normal(size=(6, 4, *BASE.image_size, 3)).astype("float32")
    targets = np.eye(3, dtype="float32")[np.arange(24).reshape(6, 4) % 3]

    def dataset(epoch, step):
        return (batch for batch in zip(images[3 * epoch + step :], targets[3 * epoch + step :], strict=True))

    def run(directory):
        keras.utils.set_random_seed(0)
        fit(compile_model(build_vit(recipe.model), recipe, 3, "plain"), recipe, dataset, 3, RunContext(directory))
        return load_checkpoint(directory / "checkpoint.npz")

    whole = run(tmp_path / "whole")
    usual = run_module._callbacks
    monkeypatch.setattr(run_module, "_callbacks", lambda *arguments: [_Signal(), *usual(*arguments)])
    with pytest.raises(Preempted, match="epoch 1 and 2 steps"):
        run(tmp_path / "parts")
    monkeypatch.undo()
    parts = run(tmp_path / "parts")
    for a, b in zip(parts.values, whole.values, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert parts.state["history"][1]["loss"] == pytest.approx(whole.state["history"][1]["loss"], abs=1e-5)


def write():
    """Writes the models and TensorFlow's logits."""
    assert keras.backend.backend() == "tensorflow"
    FOLDER.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for name, config in CONFIGS.items():
        model = build_vit(config)
        for weight in model.weights:
            scale = weight.shape[0] ** -0.5 if weight.path.endswith("kernel") else 0.2
            weight.assign(rng.normal(weight.path.endswith("gamma"), scale, weight.shape).astype("float32"))
        images = rng.uniform(-1, 1, size=(3, *config.image_size, 3)).astype("float32")
        model.save(FOLDER / f"{name}.keras")
        np.savez(FOLDER / f"{name}.npz", images=images, logits=_numpy(model(images)))


if __name__ == "__main__" and "--write" in sys.argv:
    write()
