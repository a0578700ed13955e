"""Models built around one of this library: found, fed, explained and refused alike, however they hold it."""

import pathlib
import re

import keras
import numpy as np
import pytest
from keras import layers
from tiny import CONFIG, tiny_vit
from wrappers import PIXELS, SIZE, WRAPPERS, Subclassed, _augmentation, _to_range

import keras_vit
from keras_vit.interpret import attention_maps, attention_model, rollout, rollout_model
from keras_vit.metadata import composition, describe_front, folded_spec, has_classifier, metadata, output
from keras_vit.models import features

LABELS = ("ant", "bee", "cat", "dog")


@pytest.fixture(scope="module")
def backbone():
    return tiny_vit(num_classes=0, labels=LABELS, origin="a test")


@pytest.fixture(scope="module", params=WRAPPERS)
def wrapped(request, backbone):
    model = WRAPPERS[request.param](backbone)
    return model, np.array(model(PIXELS, training=False))


def test_pixels_reach_the_model_as_they_are(wrapped, backbone):
    model, _ = wrapped
    content = metadata(model)
    np.testing.assert_allclose(content.input_spec.normalize(PIXELS), PIXELS, atol=1e-3)
    np.testing.assert_allclose(keras_vit.preprocess_input(PIXELS, model), PIXELS, atol=1e-3)
    assert folded_spec(composition(model)) == metadata(backbone).input_spec
    assert (content.labels, content.origin, content.config) == (LABELS, "a test", metadata(backbone).config)
    assert "the model takes pixels 0 to 255" in describe_front(model)


def test_the_head_is_described(wrapped):
    found = output(wrapped[0])
    assert (found.units, found.activation, found.has_head, found.is_own) == (4, None, True, True)


def test_stages_and_maps_are_those_of_the_model_inside(wrapped, backbone):
    model, outputs = wrapped
    normalized = metadata(backbone).input_spec.normalize(PIXELS)
    found = features(model, ["encoder_block_1", "representation"])(PIXELS)
    expected = features(backbone, ["encoder_block_1", "representation"])(normalized)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-4)
    np.testing.assert_allclose(
        attention_maps(model, PIXELS, -1)["encoder_block_1"],
        attention_model(backbone, -1)(normalized)["encoder_block_1"],
        atol=1e-5,
    )
    explained = rollout_model(model)(PIXELS)
    np.testing.assert_allclose(explained["outputs"], outputs, atol=1e-4)
    np.testing.assert_allclose(explained["heat_map"], rollout(backbone, normalized), atol=1e-5)
    np.testing.assert_allclose(model(PIXELS, training=False), outputs, atol=1e-6)


def test_taking_a_model_apart_changes_nothing(backbone):
    model = WRAPPERS["functional"](backbone)
    model.compile("sgd", "mse")
    config, names = model.get_config(), [weight.path for weight in model.weights]
    for _ in range(2):
        metadata(model), features(model, "representation"), rollout_model(model)
    assert model.get_config() == config
    assert ([weight.path for weight in model.weights], model.compiled) == (names, True)
    assert features(model, model.layers[-1].name)(PIXELS)


def test_pixels_from_zero_to_one_and_augmentation_alone(backbone):
    spec = metadata(backbone).input_spec
    images = PIXELS / 255
    shifted = keras.Sequential([layers.Rescaling(2.0, offset=-1.0), backbone])
    np.testing.assert_allclose(metadata(shifted).input_spec.normalize(PIXELS), images, atol=1e-6)
    augmented = keras.Sequential([_augmentation(), layers.GaussianNoise(0.1), backbone])
    assert metadata(augmented).input_spec == spec
    assert "without effect at inference" in describe_front(augmented)
    assert describe_front(backbone) is None


def test_another_normalization_than_that_of_the_weights_is_the_models_own(backbone):
    model = keras.Sequential([layers.Rescaling(1 / 255), layers.Normalization(mean=0.4, variance=0.09), backbone])
    folded = folded_spec(composition(model))
    np.testing.assert_allclose(folded.mean, 0.4, rtol=1e-4)
    np.testing.assert_allclose(folded.std, 0.3, rtol=1e-4)
    np.testing.assert_allclose(backbone(folded.normalize(PIXELS)), model(PIXELS), atol=1e-4)


@pytest.mark.parametrize(
    ("layer", "shape", "fields"),
    [
        (layers.Resizing(*SIZE), (None, None, 3), {"crop_fraction": None, "interpolation": "bilinear", "size": SIZE}),
        (layers.Resizing(*SIZE, "bicubic"), (40, 50, 3), {"crop_fraction": None, "size": (40, 50)}),
        (layers.Resizing(*SIZE, crop_to_aspect_ratio=True), (None, None, 3), {"crop_fraction": 1.0}),
        (layers.CenterCrop(*SIZE), (32, 48, 3), {"crop_fraction": 0.5, "size": (32, 48), "interpolation": "bicubic"}),
    ],
)
def test_resizing_and_crops_in_front(layer, shape, fields, backbone):
    model = keras.Sequential([keras.Input(shape), layer, _to_range(), backbone])
    spec = metadata(model).input_spec
    assert {name: getattr(spec, name) for name in fields} == fields
    assert folded_spec(composition(model)).size == SIZE
    found = features(model, "representation")(spec.load(np.zeros((64, 96, 3), "uint8"))[None])["representation"]
    np.testing.assert_allclose(found, model(np.zeros((1, *spec.size, 3)), training=False), atol=1e-5)


def _skip(backbone):
    images = keras.Input((*SIZE, 3))
    features = [backbone(_to_range()(images)), layers.GlobalAveragePooling2D()(images)]
    return keras.Model(images, layers.Dense(4)(layers.Concatenate()(features)))


@pytest.mark.parametrize(
    "front",
    [
        layers.Rescaling(2.0),
        layers.Rescaling(-1 / 127.5, offset=1.0),
        layers.Lambda(lambda x: x[..., ::-1] / 127.5 - 1),
        layers.Lambda(lambda x: (x / 255) ** 2),
        layers.LayerNormalization(axis=(1, 2, 3)),
        layers.Conv2D(3, 3, padding="same"),
        layers.AveragePooling2D(2, strides=1, padding="same"),
        layers.Cropping2D(0),
    ],
    ids=lambda layer: layer.name,
)
def test_what_is_not_known_in_front_is_refused_with_the_way_out(front, backbone):
    images = keras.Input((*SIZE, 3))
    model = keras.Model(images, layers.Dense(4, name="classes")(backbone(front(images))))
    if isinstance(front, layers.Cropping2D):
        assert metadata(model) == metadata(backbone)
        return
    uses = [metadata]
    if not isinstance(front, layers.Rescaling):
        uses += [rollout_model, lambda model: features(model, "representation")]
    for use in uses:
        with pytest.raises(ValueError, match=rf"get_layer\('{backbone.name}'\).*get_layer\('classes'\).*{front.name}"):
            use(model)


def test_where_it_is_cannot_be_seen_through(backbone):
    videos = keras.Input((5, *SIZE, 3))
    with pytest.raises(ValueError, match=r"\.layer. of a wrapper.*TimeDistributed"):
        metadata(keras.Model(videos, layers.TimeDistributed(backbone)(videos)))
    with pytest.raises(ValueError, match="also go around the inner model"):
        metadata(_skip(backbone))

    class Foreign(Subclassed):
        def call(self, images):
            return self.head(self.backbone(np.asarray(images)))

    with pytest.raises(ValueError, match=r"made of Keras layers and `keras.ops`.*a Foreign"):
        metadata(Foreign(backbone, _to_range(), layers.Dense(4)))


def test_branches_beside_the_model_are_kept(backbone):
    images = keras.Input((*SIZE, 3))
    parts = [backbone(layers.RandomFlip()(images)), layers.GlobalAveragePooling2D()(images)]
    model = keras.Model(images, layers.Dense(4)(layers.Concatenate()(parts)))
    normalized = metadata(model).input_spec.normalize(PIXELS)
    np.testing.assert_allclose(composition(model).core()(normalized), model(normalized, training=False), atol=1e-5)


def test_labels_of_a_head_that_is_gone_are_left_out():
    backbone = tiny_vit(labels=("a", "b", "c"))
    own = keras.Model(backbone.input, layers.Dense(4)(backbone.get_layer("representation").output))
    assert metadata(own).labels is None
    assert metadata(keras.Sequential([backbone, layers.Softmax()])).labels == ("a", "b", "c")


@pytest.mark.parametrize(
    ("ending", "activation", "has_head"),
    [
        ([layers.Dense(4, "softmax")], "softmax", True),
        ([layers.Dense(4), layers.Activation("sigmoid")], "sigmoid", True),
        ([layers.Dense(4), layers.Softmax(), layers.Activation("linear", dtype="float32")], "softmax", True),
        ([layers.Dense(4, "softmax"), layers.Dropout(0.1), layers.Reshape((4,))], "softmax", True),
        ([keras.Sequential([layers.Dense(8, "sigmoid"), layers.Dense(4)])], None, True),
        ([layers.Dense(1, "relu", name="head")], "linear", True),
        ([layers.UnitNormalization()], None, False),
        ([layers.LayerNormalization(), layers.Dropout(0.1)], None, False),
        ([layers.Dropout(0.1)], None, False),
    ],
)
def test_endings(ending, activation, has_head, backbone):
    model = keras.Sequential([backbone, *ending])
    found = output(model)
    assert (found.activation, found.has_head) == (activation, has_head)
    assert has_classifier(model) == has_head


def test_an_operation_may_end_the_model(backbone):
    scores = keras.ops.softmax(layers.Dense(4)(backbone.output))
    assert output(keras.Model(backbone.input, scores)).activation == "softmax"
    assert output(tiny_vit(num_classes=1)).units == CONFIG.replace(num_classes=1).num_classes


def test_pixels_are_prepared_inside_a_traced_function(backbone):
    import tensorflow as tf

    model = WRAPPERS["sequential"](backbone)
    dataset = tf.data.Dataset.from_tensors(PIXELS).map(lambda images: keras_vit.preprocess_input(images, model))
    np.testing.assert_allclose(next(iter(dataset)), PIXELS, atol=1e-3)


def test_a_wrapped_model_that_was_saved(backbone, tmp_path):
    model = WRAPPERS["functional"](backbone)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert metadata(loaded) == metadata(model)
    np.testing.assert_allclose(rollout_model(loaded)(PIXELS)["outputs"], model(PIXELS, training=False), atol=1e-5)


@pytest.mark.long
def test_the_page_shows_programs_that_run(tmp_path, monkeypatch, capsys):
    page = pathlib.Path(__file__).parents[1] / "docs" / "composition.md"
    programs = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names = {}
    for program in programs:
        exec(program, names)
    printed = capsys.readouterr().out
    assert len(programs) == 4
    assert printed.count("the model takes pixels 0 to 255") == 2
    assert set(names["stages"]) == {"encoder_block_3", "representation", "flowers"}
    assert sorted(path.name for path in (tmp_path / "saved_models" / "flowers").iterdir()) == ["1", "2"]
