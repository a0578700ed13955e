"""The linear segmentation head on the maps of every family."""

import keras
import numpy as np
import pytest

from keras_vit.models import HybridConfig, SwinConfig, ViTConfig, build_segmenter, build_vit
from keras_vit.models.segmentation import add_segmentation_head, num_segmentation_classes

VIT = {"hidden_dim": 16, "num_layers": 2, "num_heads": 2, "mlp_dim": 24, "num_registers": 2}
CONFIGS = {
    "vit": ViTConfig(image_size=(16, 24), patch_size=8, **VIT),
    "hybrid": HybridConfig(image_size=(16, 32), stem_width=32, **VIT),
    "swin": SwinConfig(image_size=(32, 48), patch_size=4, embed_dim=8, depths=(1, 1), num_heads=(1, 2), window_size=2),
}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("indices", [(-1,), (-2, -1)])
def test_logits_have_the_size_of_the_image(name, indices, tmp_path):
    config = CONFIGS[name]
    model = build_segmenter(config, 5, indices, labels=tuple("abcde"))
    images = np.random.default_rng(0).normal(size=(2, *config.image_size, 3)).astype("float32")
    logits = keras.ops.convert_to_numpy(model(images))
    assert logits.shape == (2, *config.image_size, 5)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(images), logits, atol=1e-6)
    assert num_segmentation_classes(loaded) == 5


def test_every_place_is_classified_by_its_own_tokens():
    backbone = build_vit(CONFIGS["vit"].replace(num_classes=0))
    model = add_segmentation_head(backbone, 3, batch_norm=False)
    images = np.random.default_rng(0).normal(size=(1, 16, 24, 3)).astype("float32")
    tokens = keras.ops.convert_to_numpy(keras.Model(backbone.inputs, backbone.get_layer("encoder_norm").output)(images))
    kernel, bias = (keras.ops.convert_to_numpy(v) for v in model.get_layer("segmentation_head").variables)
    places = (tokens[:, 3:] @ kernel + bias).reshape(1, 2, 3, 3)
    expected = keras.ops.image.resize(places, (16, 24), "bilinear", data_format="channels_last")
    np.testing.assert_allclose(model(images), expected, atol=1e-5)


def test_a_backbone_of_any_image_size_is_refused():
    backbone = build_vit(CONFIGS["vit"].replace(num_classes=0, dynamic_image_size=True))
    with pytest.raises(ValueError, match="dynamic_image_size=True"):
        add_segmentation_head(backbone, 3)


def test_a_classifier_is_no_segmentation_model():
    with pytest.raises(ValueError, match="Received: model='vit'"):
        num_segmentation_classes(build_vit(CONFIGS["vit"]))
