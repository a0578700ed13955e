"""Models by name, and the helpers of Keras Applications."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from tiny import IMAGES, tiny_vit

import keras_vit
from keras_vit.models import VARIANTS
from keras_vit.weights.hub.catalog import read_labels

SMALL = {"image_size": 32, "num_layers": 1, "hidden_dim": 24, "mlp_dim": 8, "num_classes": 2}
APPLICATIONS = {
    "ViTTiny": "vit_tiny_patch16_224",
    "ViTSmall": "vit_small_patch16_224",
    "ViTBase": "vit_base_patch16_224",
    "ViTLarge": "vit_large_patch16_224",
    "ViTHuge": "vit_huge_patch14_224",
    "DeiTTiny": "deit_tiny_distilled_patch16_224",
    "DeiTSmall": "deit_small_distilled_patch16_224",
    "DeiTBase": "deit_base_distilled_patch16_224",
}


def test_create_model_takes_fields_of_the_config():
    model = keras_vit.create_model("vit_small_patch16_224", num_classes=10, image_size=(32, 48), num_layers=1)
    config = keras_vit.metadata(model).config
    assert config == VARIANTS["vit_small_patch16_224"].replace(num_classes=10, image_size=(32, 48), num_layers=1)
    assert (model.input_shape, model.output_shape) == ((None, 32, 48, 3), (None, 10))
    assert model.name == "vit_small_patch16_224"


def test_create_model_takes_labels_input_spec_and_dtype():
    spec = keras_vit.InputSpec(32, crop_fraction=0.9)
    model = keras_vit.create_model(
        "vit_tiny_patch16_224", input_spec=spec, labels=["no", "yes"], dtype="mixed_bfloat16", **SMALL
    )
    content = keras_vit.metadata(model)
    assert (content.input_spec, content.labels, content.origin) == (spec, ("no", "yes"), None)
    assert model.get_layer("encoder_block_0").compute_dtype == "bfloat16"


def test_unknown_model_names_the_nearest():
    with pytest.raises(
        ValueError, match=r"unknown model. Did you mean 'vit_tiny_patch16_224'.*'vit_tinny_patch16_224'"
    ):
        keras_vit.create_model("vit_tinny_patch16_224")


def test_unknown_field_names_the_nearest():
    with pytest.raises(ValueError, match=r"unknown field of ViTConfig. Did you mean 'num_classes'.*num_clases=3"):
        keras_vit.create_model("vit_tiny_patch16_224", num_clases=3)


def test_a_tag_that_has_no_weights_names_those_that_there_are():
    with pytest.raises(ValueError, match=r"Its tags: augreg_in21k, augreg_in21k_ft_in1k. Received: name='vit_tiny_p"):
        keras_vit.create_model("vit_tiny_patch16_224.x")


def test_weights_are_loaded_and_are_the_origin(tmp_path):
    path = tmp_path / "a.weights.h5"
    model = keras_vit.create_model("vit_tiny_patch16_224", **SMALL)
    model.get_layer("head").kernel.assign(keras.random.normal((24, 2)))
    model.save_weights(path)
    again = keras_vit.create_model("vit_tiny_patch16_224", weights=path, **SMALL)
    images = np.ones((1, 32, 32, 3), "float32")
    np.testing.assert_array_equal(again(images), model(images))
    assert keras_vit.metadata(again).origin == str(path)


@pytest.mark.parametrize(
    ("name", "content", "rule"),
    [
        ("a.npz", b"", "a checkpoint must be readable. Received: .*a.npz"),
        ("missing.weights.h5", None, "a checkpoint must be a file. Received: .*missing"),
        ("broken.weights.h5", b"no HDF5", "a checkpoint must be readable. Received: .*broken"),
    ],
)
def test_weights_that_cannot_be_read_are_named(name, content, rule, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises((ValueError, FileNotFoundError), match=rule):
        keras_vit.create_model("vit_tiny_patch16_224", weights=tmp_path / name, **SMALL)


def test_weights_of_another_architecture_raise(tmp_path):
    path = tmp_path / "a.weights.h5"
    keras_vit.create_model("vit_tiny_patch16_224", **SMALL).save_weights(path)
    with pytest.raises(ValueError, match=r"~ encoder_norm/0  \(file \(24,\), model encoder_norm/gamma \(36,\)\)"):
        keras_vit.create_model("vit_tiny_patch16_224", weights=path, **{**SMALL, "hidden_dim": 36})
    with pytest.raises(
        ValueError, match=r"\+ encoder_block_1/attention_norm/beta  \(in the model, needs encoder_block"
    ):
        keras_vit.create_model("vit_tiny_patch16_224", weights=path, **{**SMALL, "num_layers": 2})


def test_list_models():
    assert keras_vit.list_models() == sorted(VARIANTS)
    assert keras_vit.list_models("vit_base_patch??_224") == [f"vit_base_patch{p}_224" for p in (14, 16, 32)]
    assert keras_vit.list_models("resnet*") == []
    assert keras_vit.list_models("swin_*") == sorted(name for name in VARIANTS if name.startswith("swin_"))
    assert "swin_tiny_patch4_window7_224.ms_in1k" in keras_vit.list_models("swin*", pretrained=True)
    small = keras_vit.list_models(["deit_tiny*", "VIT_TINY_PATCH16*"], exclude_filters="*distilled*")
    assert small == ["deit_tiny_patch16_224", "vit_tiny_patch16_224", "vit_tiny_patch16_384"]
    assert keras_vit.list_models("deit_tiny*", exclude_filters=["*distilled*", "*224"]) == []
    assert keras_vit.list_models("deit_tiny*.fb_in1k", pretrained=True, exclude_filters="*_distilled_*") == [
        "deit_tiny_patch16_224.fb_in1k"
    ]


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("vit_tiny", "vit_tiny_patch16_224"),
        ("vit_tiny_patch16_244", "Did you mean 'vit_tiny_patch16_224'"),
        ("timm/vit_tiny_patch16_224.x", "keras_vit.load_model\\('hub:timm/vit_tiny_patch16_224.x'\\)"),
        ("hf_hub:timm/vit_tiny", "keras_vit.load_model\\('hf_hub:timm/vit_tiny'\\)"),
        ("resnet50", "unknown model. Received"),
    ],
)
def test_an_unknown_name_says_what_was_meant(name, advice):
    with pytest.raises(ValueError, match=rf"{advice}.*name={name!r}|{advice}: name={name!r}"):
        keras_vit.create_model(name)


def test_random_weights_for_a_name_with_a_tag_say_the_name_without():
    with pytest.raises(ValueError, match=r"create_model\('vit_tiny_patch16_224'\).*pretrained=False"):
        keras_vit.create_model("vit_tiny_patch16_224.augreg_in21k", pretrained=False)


def _flip_a_weight(data):
    place = data.index(b"\x89HDF") + 20_000
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@pytest.mark.parametrize("damage", [lambda data: data[:-40], _flip_a_weight], ids=["cut", "flipped"])
def test_a_damaged_keras_file_is_named(damage, tmp_path):
    path = tmp_path / "a.keras"
    keras_vit.create_model("vit_tiny_patch16_224", **SMALL).save(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"a .keras file must be readable. Received: .*a\.keras"):
        keras_vit.load_model(path)


@pytest.mark.parametrize("name", APPLICATIONS)
def test_application_is_its_variant(name):
    application = getattr(keras_vit, name)
    patch = VARIANTS[APPLICATIONS[name]].patch_size[0]
    model = application(image_size=2 * patch, num_layers=1, hidden_dim=48, mlp_dim=8)
    expected = VARIANTS[APPLICATIONS[name]].replace(image_size=2 * patch, num_layers=1, hidden_dim=48, mlp_dim=8)
    assert keras_vit.metadata(model).config == expected
    assert application.__name__ == name
    assert f"Vision Transformer, the size of `{APPLICATIONS[name]}`." in application.__doc__


SWIN_APPLICATIONS = {
    "SwinTiny": "swin_tiny_patch4_window7_224",
    "SwinSmall": "swin_small_patch4_window7_224",
    "SwinBase": "swin_base_patch4_window7_224",
    "SwinLarge": "swin_large_patch4_window7_224",
    "SwinV2Tiny": "swinv2_tiny_window8_256",
    "SwinV2Small": "swinv2_small_window8_256",
    "SwinV2Base": "swinv2_base_window8_256",
    "SwinV2Large": "swinv2_large_window12_192",
}


@pytest.mark.parametrize("name", SWIN_APPLICATIONS)
def test_swin_application_is_its_variant(name):
    application, variant = getattr(keras_vit, name), SWIN_APPLICATIONS[name]
    fields = {"depths": (1, 1), "num_heads": (2, 2), "embed_dim": 8, "image_size": 56, "window_size": 7}
    model = application(include_top=False, **fields)
    assert keras_vit.metadata(model).config == VARIANTS[variant].replace(num_classes=0, **fields)
    assert (model.name, model.output_shape) == (variant, (None, 16))
    assert (application.__name__, application.__module__) == (name, "keras_vit.zoo.applications")
    assert f"version {2 if 'V2' in name else 1}, the size of `{variant}`" in application.__doc__


def test_create_model_builds_swin_transformers():
    fields = {"depths": (1, 1, 1, 1), "num_classes": 2, "image_size": (56, 112)}
    spec = keras_vit.InputSpec((56, 112), mean=(0.1, 0.2, 0.4), std=(0.5, 0.25, 1.0))
    model = keras_vit.create_model("swin_tiny_patch4_window7_224", input_spec=spec, labels=["no", "yes"], **fields)
    assert (model.input_shape, model.output_shape) == ((None, 56, 112, 3), (None, 2))
    white = np.full((1, 56, 112, 3), 255, "uint8")
    np.testing.assert_allclose(keras_vit.preprocess_input(white, model)[0, 0, 0], [1.8, 3.2, 0.6], rtol=1e-6)
    assert keras_vit.decode_predictions(model(np.zeros((1, 56, 112, 3))), top=1, model=model)[0][0][1] in ("no", "yes")
    with pytest.raises(ValueError, match=r"unknown field of SwinConfig. Did you mean 'window_size'"):
        keras_vit.create_model("swin_tiny_patch4_window7_224", window_sizes=3)


def test_application_options():
    fields = {"image_size": (16, 24), "patch_size": 8, "num_layers": 1, "hidden_dim": 24, "mlp_dim": 8}
    features = keras_vit.ViTTiny(include_top=False, pooling="gap", **fields)
    assert (features.output_shape, features.layers[-1].name) == ((None, 24), "representation")
    probabilities = keras_vit.ViTTiny(num_classes=4, classifier_activation="softmax", **fields)(IMAGES)
    np.testing.assert_allclose(np.sum(probabilities, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("convert", [np.asarray, keras.ops.convert_to_tensor], ids=["array", "tensor"])
def test_preprocess_input_brings_pixels_to_minus_one_and_one(convert):
    pixels = convert(np.array([0, 51, 255] * 32, "uint8").reshape(2, 4, 4, 3))
    expected = np.broadcast_to(np.array([-1, -0.6, 1], "float32"), (2, 4, 4, 3))
    outputs = keras_vit.preprocess_input(pixels)
    assert keras.backend.standardize_dtype(outputs.dtype) == "float32"
    np.testing.assert_allclose(outputs, expected, atol=1e-6)
    np.testing.assert_allclose(keras_vit.preprocess_input(pixels[0]), expected[0], atol=1e-6)


def test_preprocess_input_works_on_images_of_unknown_size_in_tf_data():
    import tensorflow as tf

    data = tf.data.Dataset.from_generator(
        lambda: [np.zeros((4, 6, 3), "uint8")], output_signature=tf.TensorSpec((None, None, 3), "uint8")
    )
    np.testing.assert_array_equal(next(iter(data.map(keras_vit.preprocess_input))), np.full((4, 6, 3), -1.0))


def test_preprocess_input_takes_lists_and_tensors_of_another_library():
    jax = pytest.importorskip("jax")
    pixels = np.array([0, 51, 255] * 32, "uint8").reshape(2, 4, 4, 3)
    expected = keras_vit.preprocess_input(pixels)
    np.testing.assert_array_equal(keras_vit.preprocess_input(pixels.tolist()), expected)
    outputs = keras_vit.preprocess_input(jax.numpy.asarray(pixels))
    assert isinstance(outputs, jax.Array)
    np.testing.assert_allclose(outputs, expected, atol=1e-6)
    scores = jax.numpy.asarray(SCORES)
    assert keras_vit.decode_predictions(scores, labels="abc") == keras_vit.decode_predictions(SCORES, labels="abc")


def test_preprocess_input_works_in_tf_data_on_another_backend():
    script = (
        "import keras_vit, numpy as np, tensorflow as tf\n"
        "pixels = np.arange(96, dtype='uint8').reshape(2, 4, 4, 3)\n"
        "model = keras_vit.ViTTiny(image_size=4, patch_size=4, num_layers=1, num_classes=2)\n"
        "data = tf.data.Dataset.from_tensor_slices(pixels).map(lambda x: keras_vit.preprocess_input(x, model))\n"
        "expected = keras_vit.preprocess_input(pixels, model)\n"
        "np.testing.assert_allclose(next(iter(data.batch(2))).numpy(), expected, atol=1e-6)\n"
        "model.predict(data.batch(2), verbose=0)\n"
    )
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    answer = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr


def test_preprocess_input_uses_the_mean_and_std_of_the_model():
    spec = keras_vit.InputSpec(32, mean=(0.1, 0.2, 0.4), std=(0.5, 0.25, 1.0))
    model = keras_vit.create_model("vit_tiny_patch16_224", input_spec=spec, **SMALL)
    white = np.full((1, 32, 32, 3), 255, "uint8")
    np.testing.assert_allclose(keras_vit.preprocess_input(white, model)[0, 0, 0], [1.8, 3.2, 0.6], rtol=1e-6)


@pytest.mark.parametrize(
    ("images", "received"),
    [
        (np.zeros((2, 3, 32, 32), "uint8"), r"with 3 channels, the last axis. Received: shape=\(2, 3, 32, 32\)"),
        (np.zeros((2, 32, 32, 4), "uint8"), r"with 3 channels, the last axis. Received: shape=\(2, 32, 32, 4\)"),
        ("photo.jpg", r"input_spec.load\(image\). Received: images='photo.jpg'"),
        (["photo.jpg"], r"must be numbers.*input_spec.load\(path\). Received: dtype=<U9, shape=\(1,\)"),
    ],
)
def test_preprocess_input_refuses_what_are_no_pixels_of_the_model(images, received):
    with pytest.raises(ValueError, match=received):
        keras_vit.preprocess_input(images, tiny_vit(image_size=32))


@pytest.mark.parametrize("decoder", ["decode_png", "decode_image"])  # (None, None, None), and no known rank
@pytest.mark.parametrize("has_model", [False, True])
def test_preprocess_input_takes_tensors_whose_channels_a_decoder_leaves_unknown(has_model, decoder):
    import tensorflow as tf

    model = tiny_vit() if has_model else None
    dataset = tf.data.Dataset.from_tensors(tf.io.encode_png(np.full((4, 6, 3), 255, "uint8")))
    dataset = dataset.map(getattr(tf.io, decoder)).map(lambda pixels: keras_vit.preprocess_input(pixels, model))
    np.testing.assert_array_equal(next(iter(dataset)), np.ones((4, 6, 3), "float32"))


SCORES = np.array([[0.1, 0.7, 0.2], [0.5, 0.1, 0.4]], "float32")


def test_decode_predictions_names_the_best():
    decoded = keras_vit.decode_predictions(SCORES, top=2, labels=["ant", "bee", "cat"])
    names = [[(column, name) for column, name, _ in row] for row in decoded]
    assert names == [[("1", "bee"), ("2", "cat")], [("0", "ant"), ("2", "cat")]]
    assert [row[0][2] for row in decoded] == pytest.approx([0.7, 0.5])


def test_decode_predictions_uses_the_labels_of_the_model():
    model = tiny_vit(labels=["ant", "bee", "cat"])
    assert keras_vit.decode_predictions(SCORES, top=1, model=model)[1][0][1] == "ant"
    assert keras_vit.decode_predictions(SCORES, top=1, model=model, labels="xyz")[1][0][1] == "x"


def test_decode_predictions_makes_probabilities_of_the_logits_of_a_model():
    model = tiny_vit(labels=["ant", "bee", "cat"])
    logits = np.log(SCORES) + 3
    for scores in (logits, SCORES):  # of the model, and after a softmax of one's own
        (best, *_), _ = keras_vit.decode_predictions(scores, model=model)
        assert best == ("1", "bee", pytest.approx(0.7, abs=1e-6))
    assert keras_vit.decode_predictions(logits, labels="abc")[0][0][2] == logits[0, 1]
    model.compile(loss=keras.losses.BinaryCrossentropy(from_logits=True))
    assert keras_vit.decode_predictions([[0.0, 2.0, -2.0]], model=model)[0] == [
        ("1", "bee", pytest.approx(0.880797)),
        ("0", "ant", 0.5),
        ("2", "cat", pytest.approx(0.119203)),
    ]


def test_decode_predictions_of_a_thousand_columns_are_those_of_imagenet():
    scores = np.zeros((1, 1000))
    scores[0, 1] = 1.0
    assert keras_vit.decode_predictions(scores, top=1) == [[("n01443537", "goldfish, Carassius auratus", 1.0)]]


def test_decode_predictions_of_a_model_without_labels_are_numbers():
    scores = np.zeros((1, 1000))
    scores[0, 1] = 1.0
    model = tiny_vit(num_classes=1000)
    assert keras_vit.decode_predictions(scores, top=1, model=model) == [[("1", "1", 1.0)]]


def test_decode_predictions_takes_wordnet_ids_for_class_ids():
    labels = read_labels("imagenet21k")
    scores = np.zeros((1, len(labels)))
    scores[0, 2] = 1.0
    assert keras_vit.decode_predictions(scores, 1, labels=labels) == [[(labels[2], labels[2], 1.0)]]
    decoded = keras_vit.decode_predictions(SCORES, 1, labels=["n00000001", "bee", "n00000002"])
    assert [row[0][0] for row in decoded] == ["1", "0"]


@pytest.mark.parametrize(
    ("scores", "labels", "rule"),
    [
        (SCORES[0], None, r"predictions must have the shape \(batch, num_classes\). Received: shape=\(3,\)"),
        (SCORES, None, "labels must name every column. Received: none for 3 columns"),
        (SCORES, ["ant"], "labels must name every column. Received: 1 for 3 columns"),
    ],
)
def test_decode_predictions_checks_its_input(scores, labels, rule):
    with pytest.raises(ValueError, match=rule):
        keras_vit.decode_predictions(scores, labels=labels)


def test_load_model_takes_whatever_names_a_model(tmp_path):
    model = tiny_vit(labels=["a", "b", "c"])
    (tmp_path / "run").mkdir()
    (tmp_path / "weights").mkdir()
    model.save(tmp_path / "run" / "model.keras")
    keras_vit.save_weights(model, tmp_path / "weights" / "model.safetensors")
    keras_vit.save_weights(model, tmp_path / "tiny.npz")
    for name in ("run", "run/model.keras", "weights", "weights/model.safetensors"):
        for path in (tmp_path / name, str(tmp_path / name)):
            loaded = keras_vit.load_model(path)
            np.testing.assert_allclose(loaded(IMAGES), model(IMAGES), atol=1e-5)
            assert keras_vit.metadata(loaded).labels == ("a", "b", "c")
    config = keras_vit.metadata(keras_vit.load_model(tmp_path / "tiny.npz", num_heads=2, image_size=(16, 24))).config
    assert config.hidden_dim == 16
    with pytest.warns(UserWarning, match="the head is new"):
        changed = keras_vit.load_model(tmp_path / "weights", num_classes=5, image_size=(32, 32))
    assert (changed.input_shape, changed.output_shape) == ((None, 32, 32, 3), (None, 5))


def test_load_model_says_that_an_architecture_has_random_weights():
    with pytest.warns(UserWarning, match="weights are random; published weights: vit_tiny_patch16_224.augreg_in21k,"):
        model = keras_vit.load_model("vit_tiny_patch16_224", num_layers=1)
    assert len([layer for layer in model.layers if layer.name.startswith("encoder_block")]) == 1


@pytest.mark.parametrize("place", ["", "1"])
def test_load_model_says_what_can_be_done_with_a_saved_model(place, tmp_path):
    folder = tmp_path / "served" / place
    folder.mkdir(parents=True)
    (folder / "saved_model.pb").touch()
    with pytest.raises(ValueError, match=r"load what it was exported from.*keras_vit predict.*served'"):
        keras_vit.load_model(tmp_path / "served")


def test_load_model_refuses_what_is_no_model(tmp_path):
    with pytest.raises(ValueError, match=r"Did you mean 'vit_tiny_patch16_224'\? Received: 'vit_tinny_patch16_224'"):
        keras_vit.load_model("vit_tinny_patch16_224")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"folder with model.safetensors.*Received: '.*empty'"):
        keras_vit.load_model(tmp_path / "empty")
    (tmp_path / "x.weights.h5").touch()
    with pytest.raises(ValueError, match=r"create_model\(architecture, weights="):
        keras_vit.load_model(tmp_path / "x.weights.h5")
    tiny_vit().save(tmp_path / "model.keras")


def test_load_model_gives_a_keras_file_another_head_and_size(tmp_path):
    model = tiny_vit()
    model.save(tmp_path / "model.keras")
    with pytest.warns(UserWarning, match=r"\(2, 3\) are resized to \(4, 2\).*the head is new: 2 classes"):
        read = keras_vit.load_model(tmp_path, num_classes=2, image_size=(32, 16))
    assert read.output_shape == (None, 2)
    np.testing.assert_array_equal(read.get_layer("encoder_norm").weights[0], model.get_layer("encoder_norm").weights[0])
