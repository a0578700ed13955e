"""`backbone`: feature maps, beside the goldens of the blocks and stages that they are."""

import keras
import numpy as np
import pytest
from golden import cases, load, read_case
from tiny import IMAGES, tiny_vit
from tiny_hybrids import CONFIG as HYBRID
from tiny_hybrids import tiny_hybrid

import keras_vit
from keras_vit import backbone, metadata
from keras_vit.models import ConvNetConfig, build_model

VIT_CASES = [case for case in cases(swin=False) if "block_1" in read_case(case)[1]]
SWIN = keras_vit.SwinConfig(
    image_size=(40, 56), patch_size=4, embed_dim=8, depths=(2, 1, 1), num_heads=(2, 2, 4), window_size=4, num_classes=3
)


def _normed(tokens, layer):
    """Layer norm as its definition says."""
    tokens = tokens.astype("float64")
    centered = tokens - tokens.mean(-1, keepdims=True)
    scaled = centered / np.sqrt((centered**2).mean(-1, keepdims=True) + layer.epsilon)
    return scaled * np.array(layer.gamma) + np.array(layer.beta)


@pytest.mark.parametrize("case", VIT_CASES)
def test_maps_and_prefix_tokens_are_the_blocks_of_the_reference(case):
    model, images, expected = load(case)
    config = metadata(model).config
    count, (height, width) = config.num_prefix_tokens, config.grid_size
    for norm in (False, True):
        outputs = backbone(model, (0, 1), norm=norm, prefix="return")(images)
        assert len(outputs) == 2
        for i, output in enumerate(outputs):
            features, prefix = output if count else (output, None)
            block = expected[f"block_{i}"]
            if norm and config.norm_placement == "pre" and not config.pool_before_norm:
                block = _normed(block, model.get_layer("encoder_norm"))
            grid = block[:, count:].reshape(len(block), height, width, -1)
            np.testing.assert_allclose(features, grid, atol=5e-5, rtol=1e-5)
            if count:
                np.testing.assert_allclose(prefix, block[:, :count], atol=5e-5, rtol=1e-5)


@pytest.mark.parametrize("case", [case for case in cases(swin=True) if case.startswith("timm")])
def test_maps_of_swin_are_the_stages_of_timm(case):
    model, images, expected = load(case)
    last = len(metadata(model).config.depths) - 1
    names = [name for name in expected if name.startswith("stage_")]
    # Of version 2 rounding grows from block to block, see tests/weights/test_goldens_swin.py.
    tolerance = 3e-4 if metadata(model).config.version == 2 else 5e-5
    pyramid = backbone(model, tuple(int(name.removeprefix("stage_")) for name in names), norm=False)
    for info, name, features in zip(pyramid.feature_info, names, pyramid(images), strict=True):
        grid = expected[name].reshape(len(images), *info.grid_size, info.channels)
        np.testing.assert_allclose(features, grid, atol=tolerance, rtol=1e-5)
    normed = backbone(model, [last])(images)
    np.testing.assert_allclose(normed, expected["tokens"].reshape(normed.shape), atol=tolerance, rtol=1e-5)


def test_information_is_that_of_the_maps():
    for model, shape in ((tiny_vit(), (16, 24)), (build_model(SWIN), (40, 56)), (tiny_hybrid(), HYBRID.image_size)):
        config = metadata(model).config
        found = backbone(model, list(config.feature_maps()))
        assert [info.name for info in found.feature_info] == list(config.feature_maps())
        for info, features in zip(found.feature_info, found(np.zeros((1, *shape, 3), "float32")), strict=True):
            strides = info.stride if isinstance(info.stride, tuple) else (info.stride, info.stride)
            assert features.shape == (1, *info.grid_size, info.channels)
            assert info.grid_size == tuple(-(-side // stride) for side, stride in zip(shape, strides, strict=True))
    swin = backbone(build_model(SWIN), 3)
    assert [(info.index, info.channels, info.stride) for info in swin.feature_info] == [
        (0, 8, 4),
        (1, 16, 8),
        (2, 32, 16),
    ]


def test_the_backbone_ends_at_the_last_map_and_shares_its_weights():
    model = tiny_vit(num_layers=4)
    found = backbone(model, (0, 1), norm=False)
    names = [layer.name for layer in found.layers]
    assert names[:5] == ["images", "metadata", "patches", "patch_encoder", "encoder_block_0"]
    assert "encoder_block_1" in names
    assert not {"encoder_block_2", "encoder_norm", "representation", "head"} & set(names)
    assert {id(weight) for weight in found.weights} <= {id(weight) for weight in model.weights}
    assert "encoder_norm" in [layer.name for layer in backbone(model, (0,)).layers]
    # The model is as it was.
    assert [layer.name for layer in keras.models.clone_model(model).layers][-1] == "head"


def test_a_list_of_indices_is_answered_in_its_order():
    model = tiny_vit(num_layers=3, num_registers=1)
    maps = backbone(model, (-1, 0, "patch_encoder"))
    assert [(info.index, info.name) for info in maps.feature_info] == [
        (2, "encoder_block_2"),
        (0, "encoder_block_0"),
        (None, "patch_encoder"),
    ]
    last = backbone(model, 1)(IMAGES)
    np.testing.assert_array_equal(maps(IMAGES)[0], last)
    tokens = backbone(model, 1, layout="tokens", prefix="return")(IMAGES)
    assert [x.shape for x in tokens] == [(2, 6, 16), (2, 2, 16)]
    np.testing.assert_array_equal(np.reshape(tokens[0], last.shape), last)


def test_a_saved_backbone_keeps_its_maps_and_their_information(tmp_path):
    found = backbone(tiny_hybrid(), ("stem_stage_0", -1), prefix="return", layout="tokens")
    found.save(tmp_path / "backbone.keras")
    loaded = keras.models.load_model(tmp_path / "backbone.keras")
    assert loaded.feature_info == found.feature_info
    images = np.random.default_rng(0).normal(size=(1, *HYBRID.image_size, 3)).astype("float32")
    expected, actual = found(images), loaded(images)
    assert keras.tree.map_structure(np.shape, actual) == keras.tree.map_structure(np.shape, expected)
    for one, other in zip(keras.tree.flatten(actual), keras.tree.flatten(expected), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_pyramid_of_vitdet():
    backbone_of_one = backbone(tiny_vit(), 1)
    found = keras_vit.simple_feature_pyramid(backbone_of_one, channels=5)
    assert [(info.channels, info.stride, info.grid_size) for info in found.feature_info] == [
        (5, 2, (8, 12)),
        (5, 4, (4, 6)),
        (5, 8, (2, 3)),
        (5, 16, (1, 1)),
    ]
    maps = found(IMAGES)
    assert [x.shape for x in maps] == [(2, *info.grid_size, 5) for info in found.feature_info]
    layers = {layer.name: layer for layer in found.layers}
    # The map of scale 1 is two convolutions, each with a norm over the channels.
    x = np.array(backbone_of_one(IMAGES)) @ np.array(layers["pyramid_2_conv_1"].kernel)[0, 0]
    x = layers["pyramid_2_conv_3"](_normed(x, layers["pyramid_2_norm_1"]).astype("float32"))
    np.testing.assert_allclose(maps[2], _normed(np.array(x), layers["pyramid_2_norm_3"]), atol=1e-4)
    half = np.array(backbone_of_one(IMAGES))[:, :, :2].max((1, 2), keepdims=True)
    x = half @ np.array(layers["pyramid_3_conv_1"].kernel)[0, 0]
    x = layers["pyramid_3_conv_3"](_normed(x, layers["pyramid_3_norm_1"]).astype("float32"))
    np.testing.assert_allclose(maps[3], _normed(np.array(x), layers["pyramid_3_norm_3"]), atol=1e-4)
    assert [layers[f"pyramid_0_up{end}"].filters for end in ("_1", "")] == [8, 4]
    assert len(found.trainable_weights) > len(backbone_of_one.trainable_weights)


@pytest.mark.parametrize(
    ("indices", "layout", "scales", "message"),
    [(2, "NHWC", (1,), "one map"), (1, "tokens", (1,), "one map"), (1, "NHWC", (3,), "scales=")],
)
def test_a_pyramid_needs_one_map(indices, layout, scales, message):
    with pytest.raises(ValueError, match=message):
        keras_vit.simple_feature_pyramid(backbone(tiny_vit(), indices, layout=layout), scales=scales)


def test_layers_in_front_stay_in_front():
    model = tiny_vit()
    whole = keras.Sequential([keras.layers.Rescaling(1 / 127.5, -1), model, keras.layers.Dense(2)])
    pixels = (IMAGES + 1) * 127.5
    found = backbone(whole, 1)
    np.testing.assert_allclose(found(pixels), backbone(model, 1)(IMAGES), atol=1e-5)
    assert found.feature_info == backbone(model, 1).feature_info


def test_mixed_precision_gives_maps_of_the_compute_dtype():
    found = backbone(tiny_vit(dtype="mixed_bfloat16"), 2)
    assert {str(keras.backend.standardize_dtype(x.dtype)) for x in found(IMAGES)} == {"bfloat16"}


def test_a_new_head_trains_on_it():
    found = backbone(tiny_vit(), 1)
    model = keras.Model(found.input, keras.layers.Conv2D(2, 1)(found.output))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = np.array(found(IMAGES))
    model.fit(IMAGES, np.zeros((2, 2, 3), "int32"), verbose=0)
    assert np.abs(np.array(found(IMAGES)) - before).max() > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"indices": (2,)}, r"from -2 to 1.*Received: 2"),
        ({"indices": 3}, "at most the 2 stages"),
        ({"indices": (0, -2)}, "each once"),
        ({"indices": ()}, "at least one"),
        ({"indices": (True,)}, "Received: True"),
        ({"indices": "encoder_blok_1"}, "Did you mean 'encoder_block_1'"),
        ({"prefix": "keep"}, "prefix"),
        ({"layout": "NCHW"}, "layout"),
        ({"image_size": 32}, "image_size"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        backbone(tiny_vit(), **arguments)


def test_a_convolutional_network_has_no_feature_maps():
    with pytest.raises(ValueError, match="ConvNetConfig"):
        backbone(build_model(ConvNetConfig(image_size=32, widths=(4, 8), depths=(1, 1), num_classes=2)))


def test_names_are_loaded():
    with pytest.warns(UserWarning, match="random"):
        found = backbone("vit_tiny_patch16_224", 1, image_size=(32, 48), num_layers=1)
    assert [x.shape for x in found.outputs] == [(None, 2, 3, 192)]
