"""A loss of probabilities on a model of logits is told, once, wherever the model is compiled."""

import functools
import pathlib
import warnings

import keras
import numpy as np
import pytest
from random_configs import swin
from tiny import IMAGES, tiny_vit

from keras_vit.models import build_model

LABELS = np.eye(3, dtype="float32")[[0, 2]]
PROBABILITY_LOSSES = {
    "name": "categorical_crossentropy",
    "class name": "CategoricalCrossentropy",
    "function": keras.losses.categorical_crossentropy,
    "object": keras.losses.CategoricalCrossentropy(label_smoothing=0.1),
    "sparse name": "sparse_categorical_crossentropy",
    "sparse object": keras.losses.SparseCategoricalCrossentropy(),
    "binary": "binary_crossentropy",
    "focal": keras.losses.BinaryFocalCrossentropy(),
    "partial": functools.partial(keras.losses.binary_crossentropy, label_smoothing=0.1),
    "list": ["categorical_crossentropy"],
}
LOGIT_LOSSES = [
    keras.losses.CategoricalCrossentropy(from_logits=True),
    keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    keras.losses.BinaryCrossentropy(from_logits=True),
    functools.partial(keras.losses.binary_crossentropy, from_logits=True),
    "categorical_hinge",
    "mse",
    None,
]


def _messages(act):
    """The warnings of `keras_vit` that an act gives."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        act()
    return [str(warning.message) for warning in caught if "loss of probabilities" in str(warning.message)]


def _fit(model, labels=LABELS):
    return _messages(lambda: model.fit(IMAGES, labels, epochs=2, verbose=0))


@pytest.mark.parametrize("loss", PROBABILITY_LOSSES.values(), ids=PROBABILITY_LOSSES)
def test_a_loss_of_probabilities_is_told_once_at_compile(loss):
    model = tiny_vit()
    (message,) = _messages(lambda: model.compile("sgd", loss))
    assert "from_logits=True" in message
    assert _messages(lambda: model.compile("sgd", loss)) == []


@pytest.mark.parametrize("loss", LOGIT_LOSSES, ids=range(len(LOGIT_LOSSES)))
def test_other_losses_are_not(loss):
    assert _messages(lambda: tiny_vit().compile("sgd", loss)) == []


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("distilled", [False, True])
def test_probabilities_take_a_loss_of_probabilities(activation, distilled):
    model = tiny_vit(classifier_activation=activation, distillation_token=distilled)
    assert _messages(lambda: model.compile("sgd", "categorical_crossentropy")) == []
    assert _fit(model) == []


def test_every_family_is_checked():
    for model in (tiny_vit(distillation_token=True), build_model(swin())):
        assert len(_messages(lambda model=model: model.compile("sgd", "categorical_crossentropy"))) == 1


def test_a_representation_is_not_judged():
    assert _messages(lambda: tiny_vit(num_classes=0).compile("sgd", "kl_divergence")) == []


def _sequential():
    return keras.Sequential([keras.Input((16, 24, 3)), keras.layers.RandomFlip("horizontal"), tiny_vit()])


def _with_head():
    base = tiny_vit(num_classes=0)
    return keras.Model(base.input, keras.layers.Dense(3)(keras.layers.Dropout(0.1)(base.output)))


@pytest.mark.parametrize("make", [_sequential, _with_head, lambda: keras.models.clone_model(tiny_vit())])
def test_models_around_ours_and_copies_are_checked_when_they_are_trained(make):
    model = make()
    model.compile("sgd", "categorical_crossentropy")
    assert len(_fit(model)) == 1
    assert _fit(model) == []


def test_a_softmax_behind_a_model_is_seen():
    model = keras.Sequential([keras.Input((16, 24, 3)), tiny_vit(), keras.layers.Softmax()])
    model.compile("sgd", "categorical_crossentropy")
    assert _fit(model) == []


@pytest.mark.parametrize("kind", [dict, list])
def test_each_output_has_its_own_loss(kind):
    base = tiny_vit(num_classes=0)
    outputs = [keras.layers.Dense(3, name="a")(base.output), keras.layers.Dense(3, "softmax", name="b")(base.output)]
    right = keras.losses.CategoricalCrossentropy(from_logits=True)
    for losses, count in (((right, "kld"), 0), (("kld", "kld"), 1)):
        model = keras.Model(base.input, dict(zip("ab", outputs, strict=True)) if kind is dict else outputs)
        model.compile("sgd", dict(zip("ab", losses, strict=True)) if kind is dict else list(losses))
        assert len(_fit(model, {"a": LABELS, "b": LABELS} if kind is dict else [LABELS, LABELS])) == count


def test_a_model_stays_plain_and_its_file_is_checked_too(tmp_path):
    model = tiny_vit()
    assert type(model) is type(keras.Model(model.input, model.output))
    model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert _fit(loaded) == []
    loaded.compile("sgd", "categorical_crossentropy")
    assert len(_fit(loaded)) == 1


def test_the_snippet_of_the_page_of_distribution_gives_no_warning():
    page = (pathlib.Path(__file__).parents[1] / "docs" / "distributed.md").read_text()
    (loss,) = [line.strip() for line in page.splitlines() if line.strip().startswith("loss = ")]
    names = {"keras": keras}
    exec(loss, names)
    assert _messages(lambda: tiny_vit().compile("sgd", names["loss"])) == []
