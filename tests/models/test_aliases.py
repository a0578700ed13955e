"""Words of Keras Applications and timm for the fields of a config."""

import pytest
from tiny import tiny_vit

import keras_vit
from keras_vit.models import SwinConfig, ViTConfig
from keras_vit.models.aliases import resolve_aliases

SMALL = {"num_layers": 1, "hidden_dim": 24, "mlp_dim": 8}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"input_shape": (32, 48, 1)}, {"image_size": (32, 48), "num_channels": 1}),
        ({"image_shape": (32, 48, 1)}, {"image_size": (32, 48), "num_channels": 1}),
        ({"img_size": 32, "in_chans": 4}, {"image_size": 32, "num_channels": 4}),
        ({"classes": 7}, {"num_classes": 7}),
        ({"include_top": False}, {"num_classes": 0}),
        ({"include_top": True}, {}),
        ({"pooling": "avg"}, {"pooling": "gap"}),
        ({"pooling": None}, {}),
        ({"global_pool": "token"}, {"pooling": "token"}),
        ({"global_pool": "avg"}, {"pooling": "gap", "pool_before_norm": True}),
        ({"embed_dim": 24, "depth": 3}, {"hidden_dim": 24, "num_layers": 3}),
        ({"attn_drop_rate": 0.1, "drop_path_rate": 0.2}, {"attention_dropout_rate": 0.1, "drop_path_rate": 0.2}),
        ({"patch_size": 8}, {"patch_size": 8}),
        ({"nonsense": 8}, {"nonsense": 8}),
    ],
    ids=str,
)
def test_a_word_that_means_the_same_is_the_field(given, expected):
    assert resolve_aliases(given, ViTConfig) == expected


def test_a_field_of_the_family_goes_before_an_alias():
    assert resolve_aliases({"embed_dim": 24, "mlp_ratio": 2.0}, SwinConfig) == {"embed_dim": 24, "mlp_ratio": 2.0}
    assert resolve_aliases({"pooling": "avg", "global_pool": "avg"}, SwinConfig) == {}
    assert resolve_aliases({"embed_dim": 24}) == {"embed_dim": 24}


@pytest.mark.parametrize(
    ("given", "advice"),
    [
        ({"pooling": "max"}, "GlobalMaxPooling1D.*pooling='max'"),
        ({"global_pool": ""}, "features.*global_pool=''"),
        ({"drop_rate": 0.1}, "dropout_rate=.*drop_rate=0.1"),
        ({"mlp_ratio": 4}, "mlp_dim=.*mlp_ratio=4"),
        ({"features_only": True}, "keras_vit.features.*features_only=True"),
        ({"input_shape": (None, None, 3)}, r"\(height, width, channels\).*None, None, 3"),
        ({"image_shape": (None, None, 3)}, r"image_shape must be \(height, width, channels\).*None, None, 3"),
        ({"input_shape": 32}, r"\(height, width, channels\).*32"),
        ({"img_size": 32, "image_size": 48}, "image_size must be given once.*img_size=32, image_size=48"),
        ({"input_shape": (32, 32, 3), "in_chans": 3}, "num_channels must be given once"),
    ],
    ids=str,
)
def test_a_word_that_means_something_else_names_ours(given, advice):
    with pytest.raises(ValueError, match=advice):
        resolve_aliases(given, ViTConfig)


def test_models_take_the_words_of_keras_applications_and_of_timm():
    model = keras_vit.ViTTiny(input_shape=(32, 48, 1), classes=5, pooling="avg", **SMALL)
    assert (model.input_shape, model.output_shape) == ((None, 32, 48, 1), (None, 5))
    assert keras_vit.metadata(model).config.pooling == "gap"
    model = keras_vit.create_model("vit_tiny_patch16_224", pretrained=False, img_size=32, in_chans=1, **SMALL)
    assert model.input_shape == (None, 32, 32, 1)
    assert keras_vit.ViTTiny(image_size=32, include_top=False, classes=5, **SMALL).output_shape == (None, 24)
    with pytest.raises(ValueError, match="image_size must be given once"):
        keras_vit.ViTTiny(image_size=32, img_size=48)


def test_pretrained_leaves_the_choice_to_weights():
    with pytest.raises(ValueError, match=r"weights=one of .*augreg_in21k_ft_in1k.*pretrained=True"):
        keras_vit.create_model("vit_base_patch16_224", pretrained=True)
    with pytest.raises(ValueError, match="no published ones"):
        keras_vit.create_model("vit_huge_patch8_224", pretrained=True)
    with pytest.raises(ValueError, match="a name with a tag"):
        keras_vit.create_model("vit_base_patch16_224.augreg_in21k_ft_in1k", pretrained=False)
    with pytest.raises(ValueError, match="weights must be given once"):
        keras_vit.create_model("vit_base_patch16_224", "a.npz", checkpoint_path="b.npz")


def test_a_checkpoint_takes_the_words_too(tmp_path):
    keras_vit.save_weights(tiny_vit(), tmp_path / "tiny.safetensors")
    model = keras_vit.from_checkpoint(tmp_path / "tiny.safetensors", img_size=(16, 16))
    assert model.input_shape == (None, 16, 16, 3)
    with pytest.raises(ValueError, match="dropout_rate"):
        keras_vit.from_checkpoint(tmp_path / "tiny.safetensors", drop_rate=0.1)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("vit_base_patch16_224.augreg_in21k_ft_in1", "Did you mean 'augreg_in21k_ft_in1k'"),
        ("ViT_Base_patch16_224", "Did you mean 'vit_base_patch16_224'"),
        ("vit_bse_patch16_224.augreg_in21k_ft_in1k", "Did you mean 'vit_base_patch16_224'"),
    ],
)
def test_a_misspelt_name_gets_a_suggestion(name, hint):
    with pytest.raises(ValueError, match=hint):
        keras_vit.create_model(name)


def test_a_misspelt_tag_in_weights_gets_a_suggestion():
    with pytest.raises(ValueError, match="Did you mean 'augreg_in21k_ft_in1k'"):
        keras_vit.create_model("vit_base_patch16_224", "augreg_in21k_ft_in1")
