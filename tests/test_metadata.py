"""What travels inside a model, through everything Keras does with models."""

import keras
import numpy as np
import pytest
from tiny import CONFIG, tiny_vit

from keras_vit import InputSpec, metadata, update_metadata
from keras_vit.metadata import ModelMetadata, output_activation
from keras_vit.models import build_vit

SPEC = InputSpec((16, 24), 0.9, "bilinear", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
LABELS = ("ant", "bee", "cat")
EXPECTED = ModelMetadata(CONFIG, SPEC, LABELS, "a test")


def _model():
    return build_vit(CONFIG, SPEC, LABELS, "a test")


def _saved(model, tmp_path):
    model.save(tmp_path / "model.keras")
    return keras.models.load_model(tmp_path / "model.keras")


def _nested():
    inputs = keras.Input((16, 24, 3))
    return keras.Model(inputs, keras.layers.Softmax()(_model()(keras.layers.RandomFlip()(inputs))))


PATHS = {
    "fresh": lambda _: _model(),
    "saved": lambda folder: _saved(_model(), folder),
    "cloned": lambda _: keras.models.clone_model(_model()),
    "cloned and saved": lambda folder: _saved(keras.models.clone_model(_model()), folder),
    "nested": lambda _: _nested(),
    "nested and saved": lambda folder: _saved(_nested(), folder),
    "in a Sequential": lambda _: keras.Sequential([_model()]),
    "from its config": lambda _: keras.Model.from_config(_model().get_config()),
}


@pytest.mark.parametrize("path", PATHS)
def test_metadata_survives(path, tmp_path):
    assert metadata(PATHS[path](tmp_path)) == EXPECTED


def test_defaults():
    content = metadata(build_vit(CONFIG))
    assert content == ModelMetadata(CONFIG, InputSpec((16, 24)), None, None)


def test_default_input_spec_has_the_channels_of_the_config():
    assert metadata(tiny_vit(num_channels=5)).input_spec.num_channels == 5


def test_update_metadata_is_saved(tmp_path):
    model = tiny_vit()
    changed = update_metadata(model, labels=list(LABELS), origin="run 3")
    assert (changed.labels, changed.origin, changed.config) == (LABELS, "run 3", CONFIG)
    assert metadata(_saved(model, tmp_path)) == changed


def test_the_metadata_of_a_shared_model_are_changed_on_itself_alone():
    inner = _model()
    images = keras.Input((16, 24, 3))
    models = [keras.Sequential([images, inner]), keras.Sequential([keras.Sequential([images, inner])])]
    for outer in models:
        with pytest.raises(ValueError, match=f"is the layer {inner.name!r}. Received: model={outer.name!r}"):
            update_metadata(outer, origin="elsewhere")
    assert metadata(inner) == EXPECTED
    update_metadata(inner, origin="elsewhere")
    assert [metadata(outer).origin for outer in models] == ["elsewhere"] * 2


@pytest.mark.parametrize(
    ("origin", "saved"),
    [
        ("/home/ann/weights/S_16.npz", "S_16.npz"),
        (r"C:\Users\ann\S_16.npz", "S_16.npz"),
        ("weights/S_16.npz, taken for vit_small_patch16_224.x", "S_16.npz, taken for vit_small_patch16_224.x"),
        ("hub:ann/flowers", "hub:ann/flowers"),
        ("https://ann:secret@example.org/x.pth?token=1", "https://example.org/x.pth"),
        ("deit_tiny_patch16_224.fb_in1k", "deit_tiny_patch16_224.fb_in1k"),
        (None, None),
    ],
)
def test_a_saved_model_names_no_folders_of_this_machine(origin, saved, tmp_path):
    model = build_vit(CONFIG, SPEC, LABELS, origin)
    assert metadata(_saved(model, tmp_path)).origin == saved
    assert metadata(keras.models.clone_model(model)).origin == saved


def test_update_of_an_unknown_field_raises():
    with pytest.raises(ValueError, match="Did you mean 'labels'"):
        update_metadata(tiny_vit(), label=LABELS)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"labels": "abc"}, "sequence of names"),
        ({"input_spec": InputSpec(size=7)}, "must have the size and the channels"),
    ],
)
def test_an_update_must_fit_the_model(changes, rule):
    with pytest.raises(ValueError, match=rule):
        update_metadata(tiny_vit(), **changes)


def test_images_of_another_shape_are_refused_by_name():
    with pytest.raises(ValueError, match="images must have the shape"):
        tiny_vit().get_layer("metadata")(np.zeros((1, 3, 3, 3), "float32"))


def test_labels_must_name_every_class():
    rule = "labels must name every class. Received: 2 labels for num_classes=3"
    with pytest.raises(ValueError, match=rule):
        build_vit(CONFIG, labels=LABELS[:2])
    model = _model()
    with pytest.raises(ValueError, match=rule):
        update_metadata(model, labels=LABELS[:2])
    assert metadata(model) == EXPECTED


def test_a_model_without_metadata_raises():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)], name="plain")
    with pytest.raises(ValueError, match=r"exactly one keras_vit model.*Received: model='plain' with 0"):
        metadata(model)


def test_a_model_of_two_models_raises():
    inputs = keras.Input((16, 24, 3))
    models = [build_vit(CONFIG, name=name) for name in "ab"]
    both = keras.Model(inputs, keras.layers.add([model(inputs) for model in models]), name="two")
    with pytest.raises(ValueError, match="Received: model='two' with 2"):
        metadata(both)


@pytest.mark.parametrize("distillation_token", [False, True])
@pytest.mark.parametrize(
    ("activation", "found"), [(None, None), ("linear", None), ("softmax", "softmax"), ("sigmoid", "sigmoid")]
)
def test_the_output_activation_is_that_of_the_classifier(activation, found, distillation_token):
    model = tiny_vit(classifier_activation=activation, distillation_token=distillation_token)
    assert output_activation(model) == found


def test_the_output_activation_of_a_head_of_ones_own():
    model = tiny_vit(num_classes=0)
    head = keras.layers.Dense(4, activation="softmax")
    assert output_activation(keras.Sequential([model, head])) == "softmax"
