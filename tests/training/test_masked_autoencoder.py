"""Masked autoencoders: against Hugging Face's, and as runs of recipes."""

import dataclasses
import pathlib

import keras
import numpy as np
import pytest
import safetensors.numpy

from keras_vit.config import (
    AugmentConfig,
    DataConfig,
    DistillationConfig,
    MaskingConfig,
    OptimizerConfig,
    Recipe,
    TrainingConfig,
    apply_overrides,
)
from keras_vit.experiment import runner as experiment
from keras_vit.models import SwinConfig, ViTConfig, build_model
from keras_vit.preprocessing import InputSpec
from keras_vit.training import AdamW, MaskedAutoencoder, initial_model, make_autoencoder
from keras_vit.weights import load_weights

GOLDEN = pathlib.Path(__file__).parents[1] / "goldens" / "training" / "masked_autoencoder.npz"
CONFIG = ViTConfig(image_size=16, patch_size=4, hidden_dim=12, num_layers=1, num_heads=2, mlp_dim=24, num_classes=0)
SWIN = {"image_size": 8, "patch_size": 2, "embed_dim": 8, "depths": (1,), "num_heads": (2,), "window_size": 4}
DECODER = {"decoder_dim": 8, "decoder_layers": 1, "decoder_heads": 2}
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.normal(size=(4, 16, 16, 3)).astype("float32")
RECIPE = Recipe(
    name="masked",
    model=dataclasses.replace(CONFIG, image_size=(8, 8), num_channels=1, num_classes=10, dropout_rate=0.1),
    data=DataConfig(name="digits", batch_size=100),
    augment=AugmentConfig(shift=1.0),
    optimizer=OptimizerConfig(learning_rate=1e-2, beta_2=0.95, weight_decay=0.05),
    training=TrainingConfig(epochs=2, steps_per_epoch=3, compiler="plain", precision="float32"),
    masking=MaskingConfig(ratio=0.5, **DECODER),
)


def _autoencoder(**options):
    return MaskedAutoencoder(build_model(CONFIG), **{**DECODER, **options})


# Our parts of a decoder, and Hugging Face's; of queries for all three.
DECODER_NAMES = {
    "decoder_embedding": "decoder_embed",
    "decoder_norm": "decoder_norm",
    "decoder_prediction": "decoder_pred",
    "decoder_block_0/attention/qkv": "decoder_layers.0.attention.attention.query",
    "decoder_block_0/attention/projection": "decoder_layers.0.attention.output.dense",
    "decoder_block_0/mlp/dense_1": "decoder_layers.0.intermediate.dense",
    "decoder_block_0/mlp/dense_2": "decoder_layers.0.output.dense",
    "decoder_block_0/attention_norm": "decoder_layers.0.layernorm_before",
    "decoder_block_0/mlp_norm": "decoder_layers.0.layernorm_after",
}


def _decoder_name(path):
    if path.endswith("mask_token"):
        return "decoder.mask_token"
    layer, _, kind = path.rpartition("/")
    return f"decoder.{DECODER_NAMES[layer]}." + ("bias" if kind in ("bias", "beta") else "weight")


def _of_hugging_face(golden, folder, normalize):
    """The model of the golden, its weights in ours."""
    state = {name.removeprefix("state/"): golden[name] for name in golden.files if name.startswith("state/")}
    encoder = build_model(CONFIG)
    path = folder / "model.safetensors"
    safetensors.numpy.save_file({name: np.ascontiguousarray(v) for name, v in state.items() if "vit." in name}, path)
    load_weights(encoder, path, "huggingface")
    model = MaskedAutoencoder(encoder, **DECODER, normalize_targets=normalize)
    known = {id(variable) for variable in encoder.variables}
    for variable in model.trainable_variables:
        if id(variable) in known:
            continue
        name = _decoder_name(variable.path)
        values = [
            state[name.replace("query", part)] for part in ("query", "key", "value")[: 3 if "query" in name else 1]
        ]
        value = np.concatenate(values, axis=0)
        variable.assign(value.T if variable.name == "kernel" else value)
    return model


@pytest.mark.parametrize("normalize", [True, False])
def test_prediction_loss_and_gradients_are_those_of_hugging_face(normalize, tmp_path):
    import tensorflow as tf

    golden = np.load(GOLDEN)
    model = _of_hugging_face(golden, tmp_path, normalize)
    with tf.GradientTape() as tape:
        result = model(golden["images"], noise=golden["noise"])
        loss = model.compute_loss(golden["images"], None, result)
    masked = result["masked"].numpy()
    expected = np.take_along_axis(golden["logits"], masked[..., None], axis=1)
    np.testing.assert_allclose(result["prediction"], expected, atol=2e-5)
    np.testing.assert_array_equal(np.sort(masked), [np.flatnonzero(row) for row in golden["mask"]])
    assert float(loss) == pytest.approx(float(golden[f"loss_{normalize}"]), rel=1e-5)
    if normalize:
        variables = {variable.path: variable for variable in model.trainable_variables}
        kernel = next(v for path, v in variables.items() if path.endswith("encoder_block_0/mlp/dense_1/kernel"))
        token = next(v for path, v in variables.items() if path.endswith("mask_token"))
        of_kernel, of_token = tape.gradient(loss, [kernel.value, token.value])
        np.testing.assert_allclose(of_kernel, golden["grad_kernel"].T, atol=2e-5)
        np.testing.assert_allclose(of_token, golden["grad_mask_token"], atol=2e-5)


def test_fixed_positions_are_those_of_hugging_face():
    table = np.load(GOLDEN)["state/vit.embeddings.position_embeddings"]
    encoder = build_model(CONFIG.replace(position_embedding="sincos2d_moco"))
    np.testing.assert_allclose(encoder.get_layer("patch_encoder").positions, table, atol=1e-6)


def test_masked_patches_are_not_seen():
    model = _autoencoder()
    noise = np.tile(np.arange(16, dtype="float32"), (4, 1))  # The first four, the upper row, are visible.
    expected = model(IMAGES, noise=noise)["prediction"]
    images = IMAGES.copy()
    images[:, 4:] = 7.0
    np.testing.assert_array_equal(model(images, noise=noise)["prediction"], expected)
    images[:, 0, 0] = 7.0
    assert np.abs(model(images, noise=noise)["prediction"] - expected).max() > 1e-4


def test_masks_differ_in_training_and_stay_in_evaluation():
    model = _autoencoder(seed=3)
    first, second = (np.asarray(model(IMAGES, training=True)["masked"]) for _ in range(2))
    assert (first != second).any()
    assert (first[0] != first[1]).any()
    np.testing.assert_array_equal(model(IMAGES)["masked"], model(IMAGES)["masked"])
    for rows in (first, second):
        assert rows.shape == (4, 12)
        assert all(len(set(row)) == 12 for row in rows.tolist())


def test_weighted_examples_count_by_their_weight():
    model = _autoencoder()
    result = model(IMAGES)
    alone = [float(model.compute_loss(IMAGES, y_pred=result, sample_weight=np.eye(4)[i])) for i in range(4)]
    assert float(model.compute_loss(IMAGES, y_pred=result)) == pytest.approx(sum(alone), rel=1e-5)


def test_every_example_counts_once_in_an_evaluation():
    model = _autoencoder(seed=0)
    model.compile("sgd")
    alone = [float(model.compute_loss(one, y_pred=model(one))) for one in IMAGES[:, None]]
    found = model.evaluate(IMAGES, np.zeros(4), batch_size=3, verbose=0)
    assert found == pytest.approx(np.mean(alone), rel=1e-5)


def test_reconstructed_images_keep_visible_patches():
    model = _autoencoder()
    visible, reconstructed = model.reconstruct(IMAGES)
    masked = np.asarray(model(IMAGES)["masked"])
    is_masked = np.zeros((4, 16), bool)
    np.put_along_axis(is_masked, masked, True, axis=1)
    pixels = np.repeat(np.repeat(is_masked.reshape(4, 4, 4), 4, axis=1), 4, axis=2)
    np.testing.assert_array_equal(visible[~pixels], IMAGES[~pixels])
    np.testing.assert_array_equal(reconstructed[~pixels], IMAGES[~pixels])
    assert not visible[pixels].any()
    # With a perfect prediction the reconstruction is the image.
    model.call = lambda images, training=False, noise=None: {
        "prediction": keras.ops.take_along_axis(model.targets(images), masked[..., None], axis=1),
        "masked": masked,
    }
    np.testing.assert_allclose(model.reconstruct(IMAGES)[1], IMAGES, atol=1e-5)


def test_a_fit_reconstructs_better_and_can_be_saved(tmp_path):
    model = _autoencoder(seed=0, ratio=0.5, normalize_targets=False)
    model.compile(AdamW(1e-2))
    labels = np.zeros((4, 10), "float32")
    before = [np.array(v) for v in model.encoder.weights]
    first, *_, last = model.fit(IMAGES, labels, epochs=20, verbose=0).history["loss"]
    assert last < first - 0.1
    assert any((a != np.array(b)).any() for a, b in zip(before, model.encoder.weights, strict=True))
    expected = model.evaluate(IMAGES, labels, verbose=0, return_dict=True)
    assert set(expected) == {"loss"}
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(IMAGES)["prediction"], model(IMAGES)["prediction"])
    assert again.get_config().keys() == model.get_config().keys()
    assert again.evaluate(IMAGES, labels, verbose=0, return_dict=True) == pytest.approx(expected)


def test_decoder_weights_decay_but_biases_and_norms():
    model = _autoencoder(seed=0)
    model.compile(AdamW(0.0, weight_decay=0.5, decay_peak=1.0))
    model.optimizer.build(model.trainable_variables)
    kept = [v.path for v in model.trainable_variables if not model.optimizer._use_weight_decay(v)]
    assert {path.rpartition("/")[2] for path in kept} == {"bias", "beta", "gamma", "class_token", "position_embedding"}
    assert sum("decoder" in path for path in kept) == 12


@pytest.mark.parametrize("options", [{"loss": "mse"}, {"metrics": ["mae"]}])
def test_another_loss_is_refused(options):
    model = _autoencoder()
    model.compile("sgd", **options)
    with pytest.raises(ValueError, match="without loss and metrics"):
        model.fit(IMAGES, np.zeros((4, 10)), verbose=0)


def test_targets_and_masks_of_a_mixed_model_are_those_of_float32():
    images = 3 + 0.01 * IMAGES
    results = []
    for policy in ("float32", "mixed_bfloat16"):
        model = MaskedAutoencoder(build_model(CONFIG, dtype=policy), **DECODER)
        result = model(images)
        assert result["prediction"].dtype == "float32"
        results.append((model.targets(images), result["masked"]))
    for ours, expected in zip(*results, strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_a_decoder_is_checkpointed_too():
    recipe = RECIPE.replace(training=dataclasses.replace(RECIPE.training, gradient_checkpointing=True))
    model = make_autoencoder(initial_model(recipe), recipe)
    modes = [layer._remat_mode is not None for layer in (model.encoder.get_layer("encoder_block_0"), *model._decoder)]
    assert modes == [True, True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 0.0}, "ratio must.*16 patches"),
        ({"ratio": 0.99}, "ratio must.*16 patches"),
        ({"ratio": 2}, "ratio"),
        ({"decoder_layers": 0}, "decoder_layers"),
        ({"decoder_dim": 10}, "decoder_dim must be a multiple of 4 and of decoder_heads"),
        ({"decoder_heads": 3}, "decoder_dim must be a multiple of 4 and of decoder_heads"),
    ],
)
def test_what_makes_no_sense_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        _autoencoder(**options)


def test_other_encoders_are_refused():
    for config in (SwinConfig(**SWIN), CONFIG.replace(norm_placement="post")):
        with pytest.raises(ValueError, match="encoder must be a Vision Transformer with pre-norm blocks"):
            MaskedAutoencoder(build_model(config), **DECODER)


def test_a_recipe_names_what_does_not_go_with_masks():
    wrong = {
        "model": RECIPE.model.replace(pooling="map", pre_logits_dim=8, pool_before_norm=True),
        "training": TrainingConfig(loss="binary", label_smoothing=0.1, init_head_bias=-1.0, head_zeroinit=True),
        "augment": AugmentConfig(mixup=0.2, cutmix=1.0, mixup_mode="batch"),
        "optimizer": OptimizerConfig(ema_momentum=0.9, layer_decay=0.7),
        "distillation": DistillationConfig(teacher=None),
        "data": DataConfig(name="digits", validation_fraction=0.1, class_weights=(1.0,) * 10),
    }
    for name, config in wrong.items():
        with pytest.raises(ValueError, match=name):
            RECIPE.replace(**{name: config})
    with pytest.raises(ValueError) as failure:
        RECIPE.replace(**wrong)
    assert str(failure.value).partition("Received: ")[2].split(", ") == [
        "model.pooling",
        "model.pool_before_norm",
        "model.pre_logits_dim",
        "training.loss",
        "training.label_smoothing",
        "training.init_head_bias",
        "training.head_zeroinit",
        "distillation",
        "augment.mixup",
        "augment.cutmix",
        "optimizer.ema_momentum",
        "optimizer.layer_decay",
        "data.validation_fraction",
        "data.class_weights",
    ]
    for model in (SwinConfig(**SWIN), RECIPE.model.replace(norm_placement="post")):
        with pytest.raises(ValueError, match=r"Received: model(\.norm_placement)?$"):
            RECIPE.replace(model=model)
    assert apply_overrides(RECIPE, ["masking.ratio=0.6"]).masking.ratio == 0.6


def _run(directory, recipe=RECIPE):
    return experiment.run(recipe, directory, log=lambda text: None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return _run(tmp_path_factory.mktemp("masked"))


def test_a_run_leaves_an_encoder_and_its_loss(finished):
    assert finished.model.get_layer("encoder_norm")
    assert "head" not in {layer.name for layer in finished.model.layers}
    assert {"test_loss", "test_examples"} <= set(finished.record)
    assert "test_accuracy" not in finished.record
    assert [set(epoch) for epoch in finished.record["epochs"]] == [{"loss", "wall_seconds"}] * 2
    for name in ("curve.png", "model.keras", "record.json", "log.csv"):
        assert (finished.directory / name).exists()


@pytest.mark.long
def test_a_run_that_stopped_goes_on_with_decoder_and_masks(finished, tmp_path, monkeypatch):
    original = keras.Model.fit

    class _Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if self.model.optimizer.iterations.numpy() == 4:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        fit = lambda self, *a, **k: original(self, *a, **{**k, "callbacks": [*k["callbacks"], _Stop()]})  # noqa: E731
        patch.setattr(keras.Model, "fit", fit)
        steps = dataclasses.replace(RECIPE.training, save_steps=1)
        with pytest.raises(KeyboardInterrupt):
            _run(tmp_path, RECIPE.replace(training=steps))
    again = _run(tmp_path)
    assert again.record["resumed_from"] == 1
    for ours, theirs in zip(again.model.weights, finished.model.weights, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert again.evaluation["loss"] == pytest.approx(finished.evaluation["loss"], abs=1e-5)


def _assert_begins_with(model, encoder):
    ours = {v.path: np.array(v) for v in model.weights}
    for variable in encoder.weights:
        np.testing.assert_array_equal(ours[variable.path], variable)


def test_a_classifier_begins_with_the_encoder(finished):
    recipe = RECIPE.replace(name="tuned", masking=None, weights=str(finished.directory))
    with pytest.warns(UserWarning, match="the head is new"):
        model = initial_model(recipe, [str(i) for i in range(10)])
    assert model.output_shape == (None, 10)
    _assert_begins_with(model, finished.model)


@pytest.mark.parametrize("positions", ["learned", "sincos2d_moco"])
def test_a_classifier_begins_with_an_encoder_of_fixed_positions(positions, tmp_path):
    encoder = build_model(CONFIG.replace(position_embedding="sincos2d_moco"))
    encoder.save(tmp_path / "model.keras")
    config = CONFIG.replace(position_embedding=positions, num_classes=10, pooling="gap")
    recipe = RECIPE.replace(name="tuned", masking=None, model=config, weights=str(tmp_path))
    with pytest.warns(UserWarning, match="the head is new"):
        model = initial_model(recipe)
    _assert_begins_with(model, encoder)
    table = encoder.get_layer("patch_encoder").positions
    np.testing.assert_array_equal(model.get_layer("patch_encoder").positions, table)
    deeper = recipe.replace(model=config.replace(num_layers=2))
    with pytest.raises(ValueError, match=r"model\.num_layers=1 \(is 2\)"):
        initial_model(deeper)
    with pytest.raises(ValueError, match=r"model\.num_heads=\d \(is 3\)"):
        initial_model(recipe.replace(model=config.replace(num_heads=3, num_classes=0)))


def test_other_pixels_are_warned_of(tmp_path):
    build_model(CONFIG).save(tmp_path / "model.keras")
    spec = InputSpec(16, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    recipe = RECIPE.replace(name="tuned", masking=None, model=CONFIG, input_spec=spec, weights=str(tmp_path))
    with pytest.warns(UserWarning, match=r"0\.5.*the recipe has .*0\.485"):
        initial_model(recipe)
