import keras
import numpy as np
import pytest

from keras_vit import metadata
from keras_vit.models import ConvNetConfig, build_convnet, features
from keras_vit.weights import save_weights

CONFIG = ConvNetConfig(image_size=(8, 12), widths=(4, 6, 8), depths=(1, 0, 2), num_classes=3)
IMAGES = np.random.default_rng(0).normal(size=(2, 8, 12, 3)).astype("float32")


def test_a_model_has_its_stages_and_survives_a_file(tmp_path):
    model = build_convnet(CONFIG, labels=("a", "b", "c"))
    stages = features(model, ["stage_0", "stage_1", "stage_2", "representation"])(IMAGES)
    assert [tuple(value.shape[1:]) for value in stages.values()] == [(8, 12, 4), (4, 6, 6), (2, 3, 8), (8,)]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(IMAGES), model(IMAGES))
    assert metadata(loaded) == metadata(model)
    assert metadata(loaded).config == CONFIG


def test_every_weight_learns():
    model = build_convnet(CONFIG)
    model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True))
    before = [weight.numpy() for weight in model.trainable_weights]
    model.fit(IMAGES, np.eye(3, dtype="float32")[:2], verbose=0)
    assert all(np.any(old != new) for old, new in zip(before, model.trainable_weights, strict=True))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"depths": (1, 1)}, r"depths=\(1, 1\)"),
        ({"image_size": 10}, "multiple of 4"),
        ({"widths": (4, 0, 8)}, "widths"),
        ({"widths": 32}, r"widths must hold one int a stage. Received: widths=32"),
        ({"depths": 1}, r"depths must hold one int a stage. Received: depths=1"),
    ],
)
def test_a_config_that_cannot_be_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        CONFIG.replace(**fields)


def test_no_layout_has_it(tmp_path):
    with pytest.raises(ValueError, match="no layout"):
        save_weights(build_convnet(CONFIG), tmp_path / "model.safetensors")
