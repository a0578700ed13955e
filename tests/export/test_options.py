"""What an export can be asked for, and what it refuses."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hostile import encode, picture, with_orientation
from tiny import tiny_vit

import keras_vit
from keras_vit import InputSpec, features
from keras_vit.export import onnx_model, read_description, saved_model
from keras_vit.export.servable.options import ExportOptions
from keras_vit.export.servable.quantization_error import quantization_error, synthetic_pixels
from keras_vit.export.servable.servable import make_servable
from keras_vit.models import ConvNetConfig, build_model

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 16, 24, 3)).astype("uint8")
PHOTOS = [encode(picture(seed)) for seed in range(3)]


@pytest.fixture(autouse=True)
def _reproducible():
    """Instead of the seeds of other tests: TensorFlow forgets its functions with each seed."""


def _call(function, **inputs):
    return {name: output.numpy() for name, output in function(**inputs).items()}


def _probabilities(model, **options):
    """Of `PIXELS`, from the signature for uint8."""
    functions = make_servable(model, ExportOptions(**options)).signatures()
    return _call(functions["images_uint8"], images=tf.constant(PIXELS))["probabilities"]


def _expected(model):
    """What a model returns for `PIXELS`."""
    return np.array(model(keras_vit.metadata(model).input_spec.normalize(PIXELS)))


def _size(path):
    return sum(file.stat().st_size for file in (path / "variables").iterdir())


def _difference(path, model):
    """Of the logits of a SavedModel from those of its model, as a part of the largest."""
    logits = tf.saved_model.load(str(path)).signatures["images_uint8"](images=tf.constant(PIXELS))["logits"]
    return np.abs(logits - _expected(model)).max() / np.abs(_expected(model)).max()


def test_weights_of_bfloat16_take_half_of_the_bytes(tmp_path):
    published = "deit_tiny_distilled_patch16_224.fb_in1k"
    model = tiny_vit(hidden_dim=128, mlp_dim=512, origin=published, labels=["ä", "b", "c"])
    path = saved_model(model, tmp_path / "insects", weights="bfloat16", version=7, top_k=2)
    # Vectors stay float32; the rest is what a checkpoint tells of its variables.
    assert 2 < _size(path) / model.count_params() < 2.1
    told = read_description(path)
    assert 1e-4 < _difference(path, model) < 10 * told["difference"]["outputs_max"] < 0.3
    assert (told["name"], told["version"], told["labels"]) == ("insects", 7, ["ä", "b", "c"])
    assert told["weights"]["license"] == keras_vit.weights.catalog_entry(published).license
    assert told["weights"]["origin"] == published
    assert (told["options"]["weights"], told["options"]["top_k"]) == ("bfloat16", 2)
    assert told["signatures"]["serving_default"]["outputs"]["scores"] == {"dtype": "float32", "shape": [-1, 2]}
    assert told["signatures"]["images"]["inputs"]["images"] == {"dtype": "float32", "shape": [-1, -1, -1, 3]}
    assert InputSpec.from_config(told["input_spec"]) == InputSpec.symmetric((16, 24), 3)
    assert set(told["libraries"]) == {"keras_vit", "keras", "tensorflow", "python"}
    with pytest.raises(ValueError, match=r"must hold a readable assets\.extra"):
        read_description(tmp_path)


def test_weights_of_int8_take_a_quarter_and_are_judged_by_the_images_that_are_given(tmp_path):
    files = [tmp_path / f"{seed}.png" for seed in range(3)]
    for file, data in zip(files, PHOTOS, strict=True):
        file.write_bytes(data)
    model = tiny_vit(hidden_dim=128, mlp_dim=512, origin=str(tmp_path / "secret" / "own.npz"))
    path = saved_model(model, tmp_path / "insects", weights="int8", compare=files)
    assert 1 < _size(path) / model.count_params() < 1.15
    assert 1e-4 < _difference(path, model) < 0.1
    told = read_description(path)
    assert told["weights"]["origin"] == "own.npz"
    assert told["weights"]["license"] is None
    difference, spec = told["difference"], keras_vit.metadata(model).input_spec
    pixels = np.stack([spec.resize(file) for file in files])
    servable, images = make_servable(model, ExportOptions(weights="int8")), spec.normalize(pixels)
    ours, theirs = servable.runner(servable.model)(images).numpy(), np.array(model(images))
    probabilities = np.abs(tf.nn.softmax(ours) - tf.nn.softmax(theirs)).max()
    assert difference["images"] == 3
    assert difference["outputs_max"] == pytest.approx(np.abs(ours - theirs).max() / np.abs(theirs).max(), rel=1e-3)
    assert difference["probabilities_max"] == pytest.approx(probabilities, rel=1e-3)
    assert difference["top1_agreement"] == np.mean(ours.argmax(1) == theirs.argmax(1))
    assert quantization_error(make_servable(model), model, pixels)["outputs_max"] < 1e-6


def test_int8_is_rounded_by_output_channel():
    model = tiny_vit()
    kernel = model.get_layer("encoder_block_0").mlp.dense_1.kernel
    kernel.assign(np.where(np.arange(24) == 3, 0, kernel.numpy() * 10.0 ** np.arange(-12, 12)))
    servable, exact = make_servable(model, ExportOptions(weights="int8")), kernel.numpy()
    with servable.weights.scope():
        rounded = np.array(kernel)
    steps = np.abs(exact).max(axis=0) / 127
    assert (np.abs(rounded - exact) <= 0.501 * steps).all()
    numbers = rounded / np.where(steps, steps, 1)
    np.testing.assert_allclose(numbers, np.round(numbers), atol=1e-3)
    assert not rounded[:, 3].any()
    # Outside of the scope the model is as it was.
    assert (np.array(kernel) != rounded).any()


def test_bfloat16_computes_as_the_policy_does():
    model = tiny_vit(distillation_token=True, layer_scale_init=0.3)
    mixed = tiny_vit(distillation_token=True, layer_scale_init=0.3, dtype="mixed_bfloat16")
    expected = np.array(tf.nn.softmax(_expected(mixed)))
    probabilities = _probabilities(model, dtype="bfloat16")
    assert probabilities.dtype == "float32"
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    assert np.abs(probabilities - tf.nn.softmax(_expected(model))).max() > 1e-4
    np.testing.assert_allclose(_probabilities(mixed, dtype="float32"), tf.nn.softmax(_expected(model)), atol=1e-5)
    assert make_servable(model, ExportOptions(dtype="float32")).model.get_layer("head") is model.get_layer("head")


def test_noise_is_the_same_in_every_run():
    spec = InputSpec.symmetric((16, 24), 1)
    pixels = synthetic_pixels(spec)
    assert (pixels.shape, pixels.dtype) == ((16, 16, 24, 1), np.uint8)
    np.testing.assert_array_equal(pixels, synthetic_pixels(spec))
    assert pixels.std() > 20


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_models_that_end_in_probabilities_keep_them(activation):
    model = tiny_vit(classifier_activation=activation)
    functions = make_servable(model).signatures()
    outputs = _call(functions["images"], images=tf.constant(PIXELS, tf.float32))
    assert set(outputs) == {"probabilities"}
    np.testing.assert_allclose(outputs["probabilities"], _expected(model), atol=1e-5)
    other = {"softmax": "sigmoid", "sigmoid": "softmax"}[activation]
    with pytest.raises(ValueError, match=f"ends in {activation} already"):
        make_servable(model, ExportOptions(activation=other))


def test_logits_of_several_labels_and_a_single_logit_become_sigmoids():
    model, single = tiny_vit(), tiny_vit(num_classes=1)
    np.testing.assert_allclose(_probabilities(model, activation="sigmoid"), tf.sigmoid(_expected(model)), atol=1e-5)
    np.testing.assert_allclose(_probabilities(single), tf.sigmoid(_expected(single)), atol=1e-5)


@pytest.mark.parametrize(
    "fields",
    [{"pooling": "gap", "class_token": False}, {"pooling": "map", "pre_logits_dim": 8}, {"pool_before_norm": True}],
    ids=str,
)
def test_every_pooling(fields):
    model = tiny_vit(**fields)
    functions = make_servable(model).signatures()
    assert set(functions) >= {"serving_default", "explain", "embeddings"}
    outputs = _call(functions["embeddings"], image_bytes=tf.constant(PHOTOS))
    spec = keras_vit.metadata(model).input_spec
    images = np.stack([spec.load(picture(seed)) for seed in range(3)])
    name = (
        "encoder_norm" if model.get_layer("head").input is model.get_layer("encoder_norm").output else "representation"
    )
    expected = features(model, name)(images)[name]
    np.testing.assert_allclose(outputs["representation"], expected, atol=2e-2 * np.abs(expected).max())
    assert ("pool_before_norm" in fields) == (name == "encoder_norm")


def test_without_a_classifier_there_are_embeddings():
    model = tiny_vit(num_classes=0)
    functions = make_servable(model).signatures()
    assert set(functions) == {"serving_default", "embeddings"}
    outputs = _call(functions["serving_default"], image_bytes=tf.constant(PHOTOS))
    assert outputs["representation"].shape == (3, 16)
    with pytest.raises(ValueError, match="has no labels"):
        make_servable(model, ExportOptions(labels=["a"]))


def _own_heads(backbone):
    """Heads of one's own: on the outputs, in a `Sequential`, and behind a model inside a model."""
    images = keras.Input((16, 24, 3))
    return {
        "flat": keras.Model(backbone.input, keras.layers.Dense(4, activation="softmax")(backbone.output)),
        "sequential": keras.Sequential([backbone, keras.layers.Dropout(0.1), keras.layers.Dense(4)]),
        "nested": keras.Model(images, keras.layers.Dense(4)(keras.layers.Dense(5, "relu")(backbone(images)))),
    }


@pytest.mark.parametrize("kind", ["flat", "sequential", "nested"])
def test_heads_of_one_s_own(kind):
    model = _own_heads(tiny_vit(num_classes=0))[kind]
    servable = make_servable(model, ExportOptions(labels=np.array(["a", "b", "c", "d"]), top_k=2))
    functions = servable.signatures()
    assert "explain" in functions
    outputs = _call(functions["images"], images=tf.constant(PIXELS, tf.float32))
    expected = _expected(model)
    if kind != "flat":
        np.testing.assert_allclose(outputs["logits"], expected, atol=1e-5)
        expected = tf.nn.softmax(expected)
    np.testing.assert_allclose(outputs["probabilities"], expected, atol=1e-5)
    answer = functions["explain"].get_concrete_function().structured_outputs
    assert (answer["heat_map"].shape[1:], answer["class"].dtype) == ((2, 3), tf.string)
    assert servable.options.labels == ("a", "b", "c", "d")


def test_models_that_do_not_fit_are_refused():
    model, images = tiny_vit(), keras.Input((16, 24, 3))
    for wrapped in (
        keras.Model(images, model(keras.layers.Rescaling(2.0)(images))),
        keras.Sequential([keras.Input((16, 24, 3)), keras.layers.Rescaling(2.0), model]),
    ):
        with pytest.raises(ValueError, match="must take its images as keras_vit prepares them"):
            make_servable(wrapped)
    with pytest.raises(ValueError, match="one input and one output"):
        make_servable(features(model, ["encoder_block_0", "head"]))
    with pytest.raises(ValueError, match="one vector per image"):
        make_servable(keras.Model(model.input, model.get_layer("encoder_norm").output))
    quantized = tiny_vit()
    quantized.quantize("int8")
    with pytest.raises(ValueError, match="a quantized model computes as it was quantized"):
        make_servable(quantized, ExportOptions(dtype="bfloat16"))
    np.testing.assert_allclose(_probabilities(quantized), tf.nn.softmax(_expected(quantized)), atol=1e-5)


def test_other_backends_are_told(monkeypatch, tmp_path):
    model = tiny_vit()
    monkeypatch.setattr("keras.backend.backend", lambda: "jax")
    for write in (saved_model, onnx_model):
        with pytest.raises(ValueError, match=r"from the TensorFlow backend.* Received: KERAS_BACKEND=jax"):
            write(model, tmp_path / "insects.onnx")


def test_random_states_of_training_are_not_served():
    with keras.RematScope(None):
        model = tiny_vit(dropout_rate=0.1, drop_path_rate=0.2)
    for function in (make_servable(model).signatures()[name] for name in ("images", "explain")):
        variables = function.get_concrete_function().variables
        assert {variable.dtype for variable in variables} == {tf.float32}
        assert variables


def test_images_of_other_channels_are_not_encoded():
    model = tiny_vit(num_channels=5)
    functions = make_servable(model).signatures()
    assert set(functions) == {"serving_default", "images", "images_uint8"}
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 30, 50, 5)).astype("float32")
    outputs = _call(functions["serving_default"], images=tf.constant(pixels))
    assert outputs["logits"].shape == (2, 3)
    with pytest.raises(ValueError, match="without a classifier must take images of 1 or 3 channels"):
        make_servable(tiny_vit(num_channels=5, num_classes=0)).signatures()


def test_models_of_one_channel_and_networks_without_attention():
    gray = tiny_vit(num_channels=1)
    answer = _call(make_servable(gray).signatures()["serving_default"], image_bytes=tf.constant(PHOTOS))
    images = np.stack([keras_vit.metadata(gray).input_spec.load(picture(seed)) for seed in range(3)])
    expected = np.array(tf.nn.softmax(gray(images)))
    np.testing.assert_allclose(answer["scores"], np.take_along_axis(expected, answer["class_ids"], axis=1), atol=2e-2)
    convnet = build_model(ConvNetConfig(image_size=8, widths=(8,), depths=(0,), num_classes=2))
    assert "explain" not in make_servable(convnet).signatures()


def test_labels_and_numbers():
    model = tiny_vit()
    serve = make_servable(model, ExportOptions(top_k=2)).signatures()["serving_default"]
    answer = _call(serve, image_bytes=tf.constant(PHOTOS))
    np.testing.assert_array_equal(answer["classes"].astype(int), answer["class_ids"])
    for labels, message in (
        (["a", "b"], "2 labels for 3 classes"),
        (["a", "b", "c" * 2**20], "labels must have at most"),
    ):
        with pytest.raises(ValueError, match=message):
            make_servable(model, ExportOptions(labels=labels))


def test_another_preprocessing():
    spec = InputSpec((16, 24), crop_fraction=None, interpolation="bilinear", mean=(0.1, 0.2, 0.3), std=(0.3, 0.2, 0.4))
    model = tiny_vit()
    answer = _call(
        make_servable(model, ExportOptions(input_spec=spec)).signatures()["serving_default"],
        image_bytes=tf.constant(PHOTOS),
    )
    expected = np.array(tf.nn.softmax(model(np.stack([spec.load(picture(seed)) for seed in range(3)]))))
    np.testing.assert_allclose(answer["scores"], np.take_along_axis(expected, answer["class_ids"], axis=1), atol=5e-3)
    with pytest.raises(ValueError, match="input_spec must have the size and the channels"):
        make_servable(model, ExportOptions(input_spec=spec.replace(size=32)))


def test_limits_formats_and_orientation_reach_the_graph():
    options = {"formats": ["jpeg", "jpeg"], "max_pixels": 1200, "apply_exif_orientation": False}
    serve = make_servable(tiny_vit(), ExportOptions(**options)).signatures()["serving_default"]
    rotated, upright = with_orientation(picture(0), 6), with_orientation(picture(0), 1)
    data = [rotated, upright, encode(picture(1)), encode(picture(2, (41, 30)), "JPEG")]
    answer = _call(serve, image_bytes=tf.constant(data))
    assert list(answer["valid"]) == [True, True, False, False]
    np.testing.assert_allclose(answer["scores"][0], answer["scores"][1], atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"top_k": 0}, "top_k must be a positive int"),
        ({"max_pixels": 0}, "max_pixels must be a positive int"),
        ({"max_pixels": 383}, "max_pixels must allow an image of the model's own size.*max_pixels=383 for 16 x 24"),
        ({"dtype": "float16"}, "dtype must be one of"),
        ({"weights": "int4"}, "weights must be one of"),
        ({"activation": "relu"}, "activation must be one of"),
        ({"formats": ("jpg",)}, "Did you mean 'jpeg'"),
        ({"formats": ()}, "formats must name at least one"),
        ({"version": 0}, "version must be a positive int"),
        ({"version": -1}, "version must be a positive int"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        saved_model(tiny_vit(), tmp_path, **arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("policy", ["mixed_float16", "float16", "bfloat16"])
def test_outputs_are_float32_whatever_the_model_computes_in(policy):
    found = set()
    for signature in make_servable(tiny_vit(dtype=policy)).signatures().values():
        found |= {output.dtype for output in signature.get_concrete_function().structured_outputs.values()}
    assert found == {tf.float32, tf.int32, tf.string, tf.bool}
