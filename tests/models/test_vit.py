"""The functional model: its stages, its options, and what Keras can do with it."""

import copy
import json

import keras
import numpy as np
import pytest
from tiny import CONFIG, IMAGES, randomize, tiny_vit

from keras_vit import InputSpec, create_model, features
from keras_vit.models import build_vit


def _names(**fields):
    return [layer.name for layer in build_vit(CONFIG.replace(**fields)).layers]


def test_layer_names():
    blocks = ["encoder_block_0", "encoder_block_1"]
    expected = ["images", "metadata", "patches", "patch_encoder", *blocks, "encoder_norm", "representation", "head"]
    assert _names() == expected


@pytest.mark.parametrize(
    ("fields", "tail"),
    [
        ({"pool_before_norm": True}, ["encoder_block_1", "representation", "encoder_norm", "head"]),
        ({"norm_placement": "post"}, ["encoder_block_1", "representation", "head"]),
        ({"pre_logits_dim": 4}, ["encoder_norm", "representation", "pre_logits", "head"]),
        ({"num_classes": 0}, ["encoder_block_1", "encoder_norm", "representation"]),
        ({"num_classes": 0, "pre_logits_dim": 4}, ["encoder_norm", "representation", "pre_logits"]),
        ({"distillation_token": True}, ["representation", "representation_dist", "head", "head_dist", "logits"]),
    ],
)
def test_layer_names_at_the_end(fields, tail):
    assert _names(**fields)[-len(tail) :] == tail


def test_embedding_norm_follows_the_patch_encoder():
    assert _names(embedding_norm=True)[2:5] == ["patches", "patch_encoder", "embedding_norm"]


OPTIONS = [
    {},
    {"num_channels": 1},
    {"num_channels": 5, "image_size": (8, 24), "patch_size": (4, 6)},
    {"pooling": "gap", "class_token": False},
    {"pooling": "gap", "pool_before_norm": True, "num_registers": 2},
    {"pooling": "map", "class_token": False, "activation": "gelu_tanh"},
    {"norm_placement": "post", "position_embedding": "sincos2d"},
    {"distillation_token": True, "pre_logits_dim": 4},
    {"activation": "swiglu", "qk_norm": True, "layer_scale_init": 0.5, "embedding_norm": True},
]


@pytest.mark.parametrize("fields", OPTIONS, ids=lambda f: "-".join(f) or "default")
def test_saved_model_is_equal_without_custom_objects(fields, tmp_path):
    model = tiny_vit(**fields)
    images = np.random.default_rng(0).normal(size=(2, *model.input_shape[1:])).astype("float32")
    outputs = np.array(model(images))
    assert outputs.shape == (2, 3)
    assert np.abs(outputs[0] - outputs[1]).max() > 1e-3
    model.save(tmp_path / "vit.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "vit.keras")(images), outputs)


@pytest.mark.parametrize("fields", [*OPTIONS, {"dropout_rate": 0.1, "attention_dropout_rate": 0.1}], ids=str)
def test_every_weight_receives_a_gradient(fields):
    import tensorflow as tf

    model = tiny_vit(**fields)
    images = np.random.default_rng(0).normal(size=(3, *model.input_shape[1:])).astype("float32")
    with tf.GradientTape() as tape:
        loss = keras.ops.mean(keras.ops.square(model(images, training=True) - images.mean()))
    gradients = tape.gradient(loss, [w.value for w in model.trainable_weights])
    for weight, gradient in zip(model.trainable_weights, gradients, strict=True):
        assert gradient is not None, weight.path
        assert np.isfinite(gradient).all(), weight.path
        # The softmax takes the offset of the key norm out again.
        assert weight.path.endswith("key_norm/beta") or np.abs(gradient).max() > 1e-8, weight.path


@pytest.mark.parametrize("fields", [{"num_classes": 0}, {"num_classes": 0, "pooling": "map"}])
def test_without_classes_the_representation_is_returned(fields):
    model, stage = tiny_vit(**fields), "representation"
    assert model.output_shape == (None, 16)
    np.testing.assert_array_equal(model(IMAGES), features(model, stage)(IMAGES)[stage])


@pytest.mark.parametrize(("activation", "function"), [("softmax", keras.ops.softmax), ("sigmoid", keras.ops.sigmoid)])
def test_classifier_activation(activation, function):
    probabilities = tiny_vit(classifier_activation=activation)(IMAGES)
    np.testing.assert_allclose(probabilities, function(tiny_vit()(IMAGES)), atol=1e-6)


def test_pooling_takes_the_class_token_or_the_mean_of_the_patches():
    for pooling, take in (("token", lambda t: t[:, 0]), ("gap", lambda t: t[:, 3:].mean(axis=1))):
        model = tiny_vit(pooling=pooling, num_registers=2)
        outputs = features(model, ["encoder_norm", "representation"])(IMAGES)
        np.testing.assert_allclose(outputs["representation"], take(np.array(outputs["encoder_norm"])), atol=1e-5)


def test_distilled_logits_are_the_mean_of_both_heads():
    model = tiny_vit(distillation_token=True, class_token=True)
    outputs = features(model, ["encoder_norm", "representation_dist", "head", "head_dist", "logits"])(IMAGES)
    np.testing.assert_array_equal(outputs["representation_dist"], outputs["encoder_norm"][:, 1])
    assert np.abs(np.array(outputs["head"] - outputs["head_dist"])).max() > 1e-2
    np.testing.assert_allclose(outputs["logits"], (outputs["head"] + outputs["head_dist"]) / 2, atol=1e-6)
    np.testing.assert_allclose(model(IMAGES), outputs["logits"], atol=1e-6)


def test_new_models_predict_nearly_uniformly_but_every_weight_can_learn():
    logits = keras.ops.convert_to_numpy(build_vit(CONFIG)(IMAGES))
    assert 0 < np.abs(logits).max() < 1


def test_drop_path_rates_reach_the_blocks():
    model = tiny_vit(num_layers=3, drop_path_rate=0.2)
    rates = [model.get_layer(f"encoder_block_{i}").drop_path_rate for i in range(3)]
    assert rates == pytest.approx([0, 0.1, 0.2])


def test_every_norm_has_the_epsilon_of_the_config():
    model = tiny_vit(layer_norm_epsilon=1e-4, qk_norm=True, embedding_norm=True, pooling="map")
    block = model.get_layer("encoder_block_1")
    norms = [block.attention_norm, block.mlp_norm, block.attention.query_norm, block.attention.key_norm]
    norms += [model.get_layer("embedding_norm"), model.get_layer("encoder_norm")]
    norms += [model.get_layer("representation").norm]
    assert [norm.epsilon for norm in norms] == [1e-4] * 7


def test_mixed_precision_logits_are_float32_and_close():
    mixed, full = tiny_vit(dtype="mixed_bfloat16"), tiny_vit()
    logits = mixed(IMAGES)
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    assert {w.dtype for w in mixed.weights} == {"float32"}
    tokens = features(mixed, "encoder_block_1").output["encoder_block_1"]
    assert tokens.dtype == "bfloat16"
    difference = np.abs(np.array(logits) - np.array(full(IMAGES))).max()
    assert 0 < difference < 0.05


def test_global_policy_is_the_default():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build_vit(CONFIG)
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.get_layer("encoder_block_0").dtype_policy.name == "mixed_bfloat16"


@pytest.mark.parametrize(
    "spec", [InputSpec((24, 16)), InputSpec((16, 24), mean=(0.5,), std=(0.5,))], ids=["size", "channels"]
)
def test_input_spec_must_fit_the_config(spec):
    with pytest.raises(ValueError, match=r"input_spec must have the size and the channels of the config. Received"):
        build_vit(CONFIG, spec)


def test_clone_model_has_the_same_stages_and_takes_the_weights():
    model = tiny_vit(qk_norm=True)
    clone = keras.models.clone_model(model)
    assert clone.get_config() == model.get_config()
    clone.set_weights(model.get_weights())
    np.testing.assert_array_equal(clone(IMAGES), model(IMAGES))


def test_freezing():
    model = tiny_vit(layer_scale_init=0.1, pooling="map")
    count = len(model.weights)
    assert len(model.trainable_weights) == count
    model.trainable = False
    assert model.trainable_weights == []
    assert len(model.non_trainable_weights) == count


def test_freezing_all_but_the_head_trains_only_the_head():
    model = tiny_vit()
    for layer in model.layers[:-1]:
        layer.trainable = False
    before = {w.path: w.numpy() for w in model.weights}
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    model.fit(IMAGES, np.array([0, 1]), verbose=0)
    assert {w.path for w in model.weights if (w.numpy() != before[w.path]).any()} == {"head/kernel", "head/bias"}


def _dense_sublayers(model):
    for i in range(2):
        block = model.get_layer(f"encoder_block_{i}")
        yield from (block.attention.qkv, block.attention.projection, block.mlp.dense_1, block.mlp.dense_2)


def test_lora_trains_its_own_weights_and_is_merged_when_saved(tmp_path):
    model = tiny_vit()
    outputs = np.array(model(IMAGES))
    for dense in _dense_sublayers(model):
        dense.enable_lora(2)
    np.testing.assert_allclose(model(IMAGES), outputs, atol=1e-6)
    paths = [w.path for w in model.trainable_weights]
    assert sum("lora" in path for path in paths) == 16
    assert not [path for path in paths if path.startswith("encoder_block") and path.endswith("dense_1/kernel")]
    for weight in model.trainable_weights:
        if "lora_kernel_b" in weight.path:
            weight.assign(keras.ops.ones_like(weight))
    tuned = np.array(model(IMAGES))
    assert np.abs(tuned - outputs).max() > 1e-2
    model.save(tmp_path / "lora.keras")
    np.testing.assert_allclose(keras.models.load_model(tmp_path / "lora.keras")(IMAGES), tuned, atol=1e-4)


def _changed_after_build(dtype=None):
    """A model with LoRA in every block, one MLP frozen, and adapters that are not zero."""
    model = tiny_vit(dtype=dtype)
    for seed, dense in enumerate(_dense_sublayers(model)):
        dense.enable_lora(2, lora_alpha=6)
        dense.lora_kernel_b.assign(keras.random.normal(dense.lora_kernel_b.shape, seed=seed))
    model.get_layer("encoder_block_1").mlp.trainable = False
    return model


def _saved_and_loaded(model, folder):
    model.save(folder / "model.keras")
    return keras.models.load_model(folder / "model.keras")


@pytest.mark.parametrize("dtype", [None, "mixed_bfloat16"])
@pytest.mark.parametrize("quantized", [False, True])
def test_what_is_done_to_sublayers_survives_copies(dtype, quantized, tmp_path):
    model = _changed_after_build(dtype)
    if quantized:
        model.get_layer("encoder_block_0").mlp.dense_1.quantize("int8")
    outputs = np.array(model(IMAGES))
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    for twin in (clone, copy.deepcopy(model), _saved_and_loaded(model, tmp_path)):
        assert [w.path for w in twin.weights] == [w.path for w in model.weights]
        assert [w.path for w in twin.trainable_weights] == [w.path for w in model.trainable_weights]
        for name in ("encoder_block_0", "encoder_block_1"):
            assert twin.get_layer(name).get_config()["sublayers"] == model.get_layer(name).get_config()["sublayers"]
        # A file holds merged kernels, rounded to the steps of a quantized one.
        np.testing.assert_allclose(twin(IMAGES), outputs, atol=0.05 if quantized or dtype else 1e-5)


def test_adapters_of_a_loaded_model_can_be_trained(tmp_path):
    loaded = _saved_and_loaded(_changed_after_build(), tmp_path)
    before = [np.array(dense.kernel) for dense in _dense_sublayers(loaded)]
    loaded.compile("sgd", "mse")
    loaded.fit(IMAGES, np.eye(3)[:2], verbose=0)
    changed = [
        np.abs(dense.kernel - old).max() > 0 for dense, old in zip(_dense_sublayers(loaded), before, strict=True)
    ]
    assert changed == [True, True, True, True, True, True, False, False]


@pytest.mark.parametrize(
    ("fields", "kernels"),
    [
        ({}, 10),
        ({"pooling": "map", "activation": "swiglu", "layer_scale_init": 0.5}, 15),
    ],
)
@pytest.mark.long
def test_quantized_model_is_close_and_can_be_saved(fields, kernels, tmp_path):
    model = tiny_vit(**fields)
    outputs = np.array(model(IMAGES))
    model.quantize("int8")
    quantized = np.array(model(IMAGES))
    assert sum(w.dtype == "int8" for w in model.weights) == kernels
    assert 0 < np.abs(quantized - outputs).max() < 0.1 * np.abs(outputs).max()
    model.save(tmp_path / "int8.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "int8.keras")(IMAGES), quantized)


def test_summary_names_every_stage():
    lines = []
    tiny_vit().summary(print_fn=lines.append)
    text = "\n".join(lines)
    assert all(layer.name in text for layer in tiny_vit().layers)


def test_fit_lowers_the_loss():
    model = tiny_vit(dropout_rate=0.1, drop_path_rate=0.1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss, jit_compile=False)
    history = model.fit(IMAGES, np.array([0, 2]), epochs=15, verbose=0).history["loss"]
    assert history[-1] < 0.5 * history[0]


def test_config_of_the_model_is_json():
    assert json.loads(json.dumps(tiny_vit().get_config()))["name"] == "vit"


def test_weights_of_another_image_size(tmp_path):
    small = create_model("vit_tiny_patch16_224", image_size=32, num_layers=1, hidden_dim=24, mlp_dim=8, num_classes=2)
    randomize(small)
    small.save_weights(tmp_path / "vit.weights.h5")
    fields = {"image_size": (48, 32), "num_layers": 1, "hidden_dim": 24, "mlp_dim": 8, "num_classes": 2}
    with pytest.warns(UserWarning, match=r"positions of the grid \(2, 2\) are resized to \(3, 2\)"):
        large = create_model("vit_tiny_patch16_224", weights=tmp_path / "vit.weights.h5", **fields)
    np.testing.assert_array_equal(large.get_layer("head").kernel, small.get_layer("head").kernel)
    assert large.get_layer("patch_encoder").positions.shape == (1, 7, 24)
