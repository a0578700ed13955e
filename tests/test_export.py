"""The SavedModel: preprocessing in the graph, signatures, versions."""

import io
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import keras_vit
from keras_vit.data.preprocess import decode, resize
from keras_vit.export import next_version, predict, saved_model, serving
from keras_vit.models import ViTConfig, build_vit

CONFIG = ViTConfig(image_size=16, patch_size=8, hidden_dim=16, num_layers=1, num_heads=2, mlp_dim=32, num_classes=3)
LABELS = ("ant", "bee", "cat")


def _picture(seed, size=(40, 30), mode="RGB"):
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (6, 5, 3)).astype("uint8")
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).convert(mode)


def _bytes(picture, format="PNG"):
    buffer = io.BytesIO()
    picture.save(buffer, format)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    model = build_vit(CONFIG, labels=LABELS)
    head = model.get_layer("head")
    head.kernel.assign(0.3 * np.random.default_rng(0).normal(size=head.kernel.shape))
    return model


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    return saved_model(model, tmp_path_factory.mktemp("models") / "insects")


@pytest.fixture(scope="module")
def loaded(exported):
    return tf.saved_model.load(str(exported))


@pytest.mark.parametrize(
    ("format", "mode"), [("PNG", "RGB"), ("PNG", "L"), ("JPEG", "RGB"), ("BMP", "RGB"), ("GIF", "P")]
)
def test_bytes_are_classified_as_the_model_does(model, loaded, format, mode):
    data = [_bytes(_picture(seed, mode=mode), format) for seed in range(3)]
    outputs = loaded.signatures["serving_default"](image_bytes=tf.constant(data))
    spec = keras_vit.metadata(model).input_spec
    images = np.stack([spec.load(io.BytesIO(d)) for d in data])
    expected = keras.ops.convert_to_numpy(keras.ops.softmax(model.predict(images, verbose=0)))
    scores = np.take_along_axis(expected, outputs["class_ids"].numpy(), axis=1)
    # The resize may differ from Pillow by one grey level, which moves these scores by up to 7e-3.
    np.testing.assert_allclose(outputs["scores"], scores, atol=2e-2)
    assert np.all(np.diff(outputs["scores"].numpy(), axis=1) <= 0)
    names = np.array(LABELS)[outputs["class_ids"].numpy()]
    assert (outputs["classes"].numpy().astype(str) == names).all()


def test_the_images_signature_gives_the_model_s_logits(model, loaded):
    images = np.random.default_rng(0).normal(size=(5, 16, 16, 3)).astype("float32")
    outputs = loaded.signatures["images"](images=tf.constant(images))
    np.testing.assert_allclose(outputs["logits"], model.predict(images, verbose=0), atol=1e-5)
    np.testing.assert_allclose(tf.reduce_sum(outputs["probabilities"], 1), 1, atol=1e-5)


def test_jpegs_are_decoded_as_by_pillow():
    data = _bytes(_picture(0, (97, 61)), "JPEG")
    np.testing.assert_array_equal(decode(data, 3), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("crop_fraction", [None, 0.875, 1.0])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(64, 48), (33, 90), (20, 20)])
def test_the_graph_resizes_as_pillow_does(crop_fraction, interpolation, size):
    spec = keras_vit.InputSpec(size=(24, 32), crop_fraction=crop_fraction, interpolation=interpolation)
    pixels = np.asarray(_picture(1, size))
    difference = np.abs(resize(tf.constant(pixels), spec).numpy() - spec.resize(pixels))
    assert difference.max() <= 1


def test_every_variable_is_stored_once(model, exported):
    stored = sum(f.stat().st_size for f in (exported / "variables").glob("variables.data*"))
    assert stored <= 1.05 * 4 * model.count_params() + 4096


def test_a_version_is_an_integer_and_is_never_overwritten(model, tmp_path):
    assert next_version(tmp_path) == 1
    assert saved_model(model, tmp_path).name == "1"
    assert saved_model(model, tmp_path).name == "2"
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["1", "2"]
    with pytest.raises(ValueError, match="never overwritten"):
        saved_model(model, tmp_path, version=2)


def test_a_failed_export_leaves_nothing(model, tmp_path, monkeypatch):
    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(serving, "_write", fail)
    with pytest.raises(OSError, match="disk full"):
        saved_model(model, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_a_classifier_cannot_be_exported(tmp_path):
    with pytest.raises(ValueError, match="only a model with a classifier"):
        saved_model(build_vit(CONFIG.replace(num_classes=0)), tmp_path)


def test_a_head_of_one_s_own_can_be_exported(tmp_path):
    features = build_vit(CONFIG.replace(num_classes=0))
    own = keras.Model(features.input, keras.layers.Dense(4, activation="softmax")(features.output))
    path = saved_model(own, tmp_path, labels=np.array(["a", "b", "c", "d"]))
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype("float32")
    outputs = tf.saved_model.load(str(path)).signatures["images"](images=tf.constant(images))
    np.testing.assert_allclose(outputs["probabilities"], own.predict(images, verbose=0), atol=1e-5)
    assert set(outputs) == {"probabilities"}


def test_a_model_that_changes_its_images_first_cannot_be_exported(model, tmp_path):
    images = keras.Input((16, 16, 3))
    wrapped = keras.Model(images, model(keras.layers.Rescaling(2.0)(images)))
    with pytest.raises(ValueError, match="export the inner model"):
        saved_model(wrapped, tmp_path)


@pytest.mark.parametrize("arguments", [{"top_k": 0}, {"version": 0}, {"version": -1}])
def test_bad_numbers_are_refused(model, tmp_path, arguments):
    with pytest.raises(ValueError, match="must be a positive int"):
        saved_model(model, tmp_path, **arguments)
    assert list(tmp_path.iterdir()) == []


def test_labels_must_fit(model, tmp_path):
    with pytest.raises(ValueError, match="2 labels for 3 classes"):
        saved_model(model, tmp_path, labels=["a", "b"])


def test_predict_takes_the_highest_version(exported, tmp_path):
    file = tmp_path / "image.png"
    file.write_bytes(_bytes(_picture(0)))
    assert predict(exported, [file]) == predict(exported.parent, [file])
    assert {name for name, _ in predict(exported, [file])[0]} == set(LABELS)


def test_predict_names_what_it_cannot_read(exported, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_text("no image")
    with pytest.raises(ValueError, match=r"bad.png"):
        predict(exported, [bad])
    with pytest.raises(ValueError, match="there must be a SavedModel"):
        predict(tmp_path, [bad])


def test_a_process_without_the_library_serves_it(exported, tmp_path):
    script = (
        "import sys\n"
        "sys.modules['keras_vit'] = sys.modules['keras'] = None\n"
        "import tensorflow as tf\n"
        "serve = tf.saved_model.load(sys.argv[1]).signatures['serving_default']\n"
        "data = open(sys.argv[2], 'rb').read()\n"
        "print(serve(image_bytes=tf.constant([data]))['classes'].shape)\n"
    )
    file = tmp_path / "image.png"
    file.write_bytes(_bytes(_picture(0)))
    answer = subprocess.run([sys.executable, "-c", script, str(exported), str(file)], capture_output=True, text=True)
    assert answer.stdout.strip() == "(1, 3)", answer.stderr
