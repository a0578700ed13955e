"""Exports of models built around one of this library: layers in front, heads of one's own, LoRA, single outputs."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hostile import encode, picture
from keras import layers
from tiny import tiny_vit
from wrappers import PIXELS, WRAPPERS

import keras_vit
from keras_vit.cli.predictor import best_classes
from keras_vit.evaluation.classifier import classifier_of
from keras_vit.export import check, onnx_model, read_description, saved_model
from keras_vit.export import predict as saved_model_predict
from keras_vit.export.loaded_model import LoadedSavedModel
from keras_vit.export.runtimes import base as runtimes
from keras_vit.export.servable.functional import flat, with_compute_dtype, without_lora
from keras_vit.export.servable.options import ExportOptions
from keras_vit.export.servable.servable import make_servable
from keras_vit.metadata import metadata, update_metadata


def _call(function, **inputs):
    return {name: value.numpy() for name, value in function(**inputs).items()}


PHOTOS = [encode(picture(seed)) for seed in range(3)]


def _of_pixels(servable):
    return _call(servable.signatures()["images"], images=tf.constant(PIXELS))


@pytest.fixture(scope="module")
def backbone():
    return tiny_vit(num_classes=0)


OTHERS = ("functional", "nested twice", "normalization", "operations", "uint8")


@pytest.mark.parametrize(
    "kind", ["sequential", "subclassed", *(pytest.param(kind, marks=pytest.mark.long) for kind in OTHERS)]
)
def test_pixels_get_the_logits_of_the_whole_model(kind, backbone):
    model = WRAPPERS[kind](backbone)
    expected = np.array(model(PIXELS, training=False))
    servable = make_servable(model, ExportOptions(labels=list("abcd")))
    np.testing.assert_allclose(_of_pixels(servable)["logits"], expected, atol=1e-4)
    assert servable.front.endswith("the model takes pixels 0 to 255")
    prepared = runtimes.source(model)
    normalized = prepared.input_spec.normalize(PIXELS)
    np.testing.assert_allclose(prepared.function()(tf.constant(normalized))["logits"], expected, atol=1e-4)
    assert prepared.description()["input_spec"] == metadata(backbone).input_spec.get_config()


def test_layers_in_front_and_a_head_of_ones_own_reach_other_runtimes(backbone, tmp_path):
    import onnxruntime

    model = WRAPPERS["functional"](backbone)
    written = onnx_model(model, tmp_path / "model.onnx", labels=list("abcd"))
    session = onnxruntime.InferenceSession(str(written.path))
    (logits,) = session.run(["logits"], {"images": metadata(backbone).input_spec.normalize(PIXELS)})
    np.testing.assert_allclose(logits, model(PIXELS, training=False), atol=1e-4)


def test_a_head_on_tokens_has_embeddings_too(backbone):
    tokens = backbone.get_layer("encoder_norm").output
    model = keras.Model(backbone.input, layers.Dense(4)(layers.GlobalAveragePooling1D()(tokens)))
    outputs = _call(make_servable(model).signatures()["embeddings"], image_bytes=tf.constant(PHOTOS))
    spec = metadata(model).input_spec
    images = tf.constant(PIXELS)
    assert outputs["representation"].shape == (3, 16)
    np.testing.assert_allclose(
        _of_pixels(make_servable(model))["logits"], model(spec.normalize(np.array(images))), atol=1e-4
    )


def _with_lora(dtype=None, rank=2):
    model = tiny_vit(dtype=dtype)
    for i in range(2):
        block = model.get_layer(f"encoder_block_{i}")
        for seed, dense in enumerate((block.attention.qkv, block.mlp.dense_1)):
            dense.enable_lora(rank, lora_alpha=3)
            dense.lora_kernel_b.assign(keras.random.normal(dense.lora_kernel_b.shape, stddev=0.1, seed=seed))
    model.get_layer("head").enable_lora(rank)
    model.get_layer("head").lora_kernel_b.assign(keras.ops.ones((rank, 3)))
    return model


@pytest.mark.parametrize("policy", [None, "mixed_bfloat16"])
def test_lora_is_merged(policy):
    model = _with_lora(policy)
    images = metadata(model).input_spec.normalize(PIXELS)
    expected, paths = np.array(model(images)), [weight.path for weight in model.weights]
    merged = without_lora(flat(model))
    assert not [weight.path for weight in merged.weights if "lora" in weight.path]
    np.testing.assert_allclose(merged(images), expected, atol=0.1 if policy else 1e-5)
    for dtype in ("float32", "bfloat16"):
        copy = with_compute_dtype(flat(model), dtype)
        assert not [weight.path for weight in copy.weights if "lora" in weight.path]
        assert {layer.compute_dtype for layer in copy.layers if layer.name.startswith("encoder_block")} == {dtype}
        np.testing.assert_allclose(copy(images), expected, atol=0.1)
    assert [weight.path for weight in model.weights] == paths


@pytest.mark.parametrize(
    ("policy", "options"),
    [
        ("mixed_bfloat16", {"weights": "int8"}),
        pytest.param(None, {"dtype": "bfloat16"}, marks=pytest.mark.long),
        pytest.param("mixed_float16", {"dtype": "bfloat16"}, marks=pytest.mark.long),
    ],
)
def test_lora_is_exported_in_fewer_bits(policy, options, tmp_path):
    model = _with_lora(policy)
    path = saved_model(model, tmp_path / "m", batch_sizes=(), **options)
    outputs = tf.saved_model.load(str(path)).signatures["images"](images=tf.constant(PIXELS))
    expected = np.array(model(metadata(model).input_spec.normalize(PIXELS)))
    np.testing.assert_allclose(outputs["logits"], expected, atol=0.1 * np.abs(expected).max())
    assert 0 < read_description(path)["difference"]["outputs_max"] < 0.1


@pytest.mark.long
def test_a_quantized_model_under_a_mixed_policy_is_stored_in_fewer_bits(tmp_path):
    model = tiny_vit(dtype="mixed_bfloat16")
    model.quantize("int8")
    path = saved_model(model, tmp_path / "m", batch_sizes=(), weights="bfloat16")
    assert read_description(path)["difference"]["outputs_max"] < 0.1


def test_a_head_of_ones_own_computes_in_float32_beside_a_model_in_half(backbone):
    model = keras.Sequential(
        [backbone, keras.Sequential([layers.Dense(8), layers.BatchNormalization()]), layers.Dense(4)]
    )
    copy = with_compute_dtype(flat(model), "bfloat16")
    nested = next(layer for layer in copy.layers if isinstance(layer, keras.Sequential))
    assert {layer.compute_dtype for layer in (*nested.layers, copy.layers[-1])} == {"float32"}
    images = metadata(model).input_spec.normalize(PIXELS)
    np.testing.assert_allclose(copy(images), model(images, training=False), atol=0.1)
    assert with_compute_dtype(flat(model), "float32").weights[0] is flat(model).weights[0]


def _probability(logits):
    return 1 / (1 + np.exp(-np.array(logits, "float64")))


@pytest.mark.parametrize("ending", ["logit", pytest.param("sigmoid", marks=pytest.mark.long)])
def test_a_single_logit_tells_two_classes_apart(ending, backbone, tmp_path):
    head = layers.Dense(1, activation="sigmoid" if ending == "sigmoid" else None)
    model = keras.Sequential([backbone, head])
    update_metadata(backbone, labels=("no", "yes"))
    images = metadata(model).input_spec.normalize(PIXELS)
    outputs = np.array(model(images))
    second = outputs if ending == "sigmoid" else _probability(outputs)
    files = []
    for row, image in enumerate(PIXELS.astype("uint8")):
        files.append(tmp_path / f"{row}.png")
        keras.utils.save_img(files[-1], image, scale=False)
    path = saved_model(model, tmp_path / "m", batch_sizes=(), version=1)
    expected = np.hstack([1 - second, second])
    for row in (saved_model_predict(path, files), best_classes(model, outputs, 5)):
        assert [dict(answer) for answer in row] == [
            pytest.approx({"no": first, "yes": last}, abs=1e-4) for first, last in expected
        ]
    if ending == "sigmoid":  # half a minute
        assert all(result.passed is not False for result in check(path, model, files).results)
    decoded = keras_vit.decode_predictions(outputs, model=model)
    assert [row[0][1] for row in decoded] == [("no", "yes")[int(value > 0.5)] for value in second[:, 0]]
    scores = [{name: score for _, name, score in row} for row in decoded]
    assert [row["yes"] for row in scores] == pytest.approx(list(map(float, second[:, 0])), abs=1e-6)
    assert [row["no"] + row["yes"] for row in scores] == pytest.approx([1] * len(scores))
    classifier = classifier_of(model)
    logits = classifier.logits(classifier.predict(images))
    np.testing.assert_allclose(tf.nn.softmax(logits), expected, atol=1e-5)
    loaded = LoadedSavedModel(path)
    scores = loaded.keras_model()(PIXELS)
    np.testing.assert_allclose(tf.nn.softmax(scores) if loaded.has_logits else scores, expected, atol=1e-4)
    assert (loaded.num_classes, loaded.metadata.labels) == (2, ("no", "yes"))
    update_metadata(backbone, labels=None)


@pytest.mark.parametrize("units", [1, pytest.param(2, marks=pytest.mark.long)])
def test_a_regression_is_served_as_it_is(units, backbone, tmp_path):
    model = keras.Sequential([backbone, layers.Dense(units)])
    model.compile("sgd", "mse")
    expected = np.array(model(metadata(model).input_spec.normalize(PIXELS)))
    path = saved_model(model, tmp_path / "m", labels=["width", "height"][:units], batch_sizes=(), version=1)
    signatures = tf.saved_model.load(str(path)).signatures
    assert "classify" not in signatures
    np.testing.assert_allclose(signatures["images"](images=tf.constant(PIXELS))["values"], expected, atol=1e-4)
    keras.utils.save_img(tmp_path / "a.png", PIXELS[0], scale=False)
    (answer,) = saved_model_predict(path, [tmp_path / "a.png"])
    assert [name for name, _ in answer] == ["width", "height"][:units]
    assert [value for _, value in answer] == pytest.approx(list(map(float, expected[0])), abs=1e-4)
    if units == 2:
        assert all(result.passed is not False for result in check(path, model).results)
    assert [value for _, value in best_classes(model, expected, 1)[0]] == pytest.approx(list(map(float, expected[0])))
    with pytest.raises(ValueError, match="it is a regression"):
        classifier_of(model)
    assert runtimes.source(model).output == "values"
    if units == 1:
        with pytest.raises(ValueError, match="a regression has no classes"):
            keras_vit.decode_predictions(expected, model=model)


@pytest.mark.parametrize(
    ("layer", "loss", "options", "activation"),
    [
        (layers.Dense(1), "binary_crossentropy", {}, "sigmoid"),
        (layers.Dense(1), keras.losses.BinaryFocalCrossentropy(from_logits=True), {}, "sigmoid"),
        (layers.Dense(1), None, {"labels": ["no", "yes"]}, "sigmoid"),
        (layers.Dense(1), None, {"activation": "linear"}, "linear"),
        (layers.Dense(1), keras.losses.Huber(), {}, "linear"),
        (layers.Dense(1, "relu"), None, {}, "linear"),
        (layers.Dense(3), "mae", {}, "linear"),
        (layers.Dense(3), keras.losses.BinaryCrossentropy(from_logits=True), {}, "sigmoid"),
        (layers.Dense(3), keras_vit.training.SigmoidCrossEntropy(), {}, "softmax"),
        (layers.Dense(3), None, {}, "softmax"),
        (layers.Dense(3, "sigmoid"), "binary_crossentropy", {}, None),
    ],
)
def test_what_makes_scores_is_told_by_loss_labels_or_argument(layer, loss, options, activation, backbone):
    model = keras.Sequential([backbone, layer.from_config(layer.get_config())])
    if loss:
        model.compile("sgd", loss)
    assert make_servable(model, ExportOptions(**options)).options.activation == activation


def test_what_nothing_tells_is_asked_for(backbone):
    model = keras.Sequential([backbone, layers.Dense(1)])
    for use in (make_servable, lambda model: best_classes(model, np.zeros((1, 1)), 1)):
        with pytest.raises(ValueError, match=r"activation='sigmoid'.*activation='linear'"):
            use(model)
    column = np.array([[0.2], [0.9]])
    decoded = keras_vit.decode_predictions(column, labels=["no", "yes"])
    assert [row[0] for row in decoded] == [("0", "no", 0.8), ("1", "yes", 0.9)]
    with pytest.raises(ValueError, match="model=None"):
        keras_vit.decode_predictions(5 * column, labels=["no", "yes"])
