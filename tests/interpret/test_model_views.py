"""Attention distances, similarities of positions and filters, against goldens and formulas."""

import math

import keras
import numpy as np
import pytest
from golden import GOLDENS, load
from tiny import CONFIG, IMAGES, randomize, tiny_vit
from tiny_hybrids import tiny_hybrid

from keras_vit.interpret import attention_distance, attention_maps, patch_filters, position_similarity
from keras_vit.models import ConvNetConfig, SwinConfig, build_model

SWIN = SwinConfig(
    image_size=(16, 24), patch_size=2, window_size=4, embed_dim=8, depths=(1, 2), num_heads=(1, 2), num_classes=3
)


@pytest.fixture(scope="module")
def swin():
    model = build_model(SWIN)
    randomize(model)
    return model


def test_distances_and_positions_equal_the_golden():
    model, images, _ = load("timm/vit_token_nonsquare")
    golden = np.load(GOLDENS / "interpret" / "vit_token_nonsquare.npz")
    distances = np.stack(attention_distance(model, images, batch_size=1))
    np.testing.assert_allclose(distances, golden["attention_distance"], rtol=1e-5, atol=1e-4)
    similarity = position_similarity(model)
    np.testing.assert_allclose(similarity, golden["position_similarity"], atol=1e-5)


def test_distances_leave_out_what_is_no_patch():
    model = tiny_vit(num_registers=2, distillation_token=True)
    maps = attention_maps(model, IMAGES)["encoder_block_1"][:, :, -6:, -6:]
    centers = np.array([(row * 8, column * 8) for row in range(2) for column in range(3)])
    expected = (maps * np.linalg.norm(centers[:, None] - centers, axis=-1)).sum(-1).mean(-1)
    np.testing.assert_allclose(attention_distance(model, IMAGES)[1], expected, rtol=1e-4)


def test_patches_of_a_hybrid_are_as_far_apart_as_its_strides_make_them():
    model = tiny_hybrid()
    for block in model.layers:
        if block.name.startswith("encoder_block"):
            kernel = block.attention.qkv.kernel
            kernel.assign(np.zeros(kernel.shape))  # every token attends to every other alike
            block.attention.qkv.bias.assign(np.zeros(block.attention.qkv.bias.shape))
    height, width = model.get_layer("metadata").content.config.grid_size
    centers = np.array([(8 * row, 8 * column) for row in range(height) for column in range(width)])
    distances = np.linalg.norm(centers[:, None] - centers, axis=-1).sum() / len(centers) / (len(centers) + 1)
    images = np.zeros((1, 22, 36, 3), "float32")
    np.testing.assert_allclose(attention_distance(model, images)[0], distances, rtol=1e-4)


def test_distances_of_a_swin_are_those_inside_windows(swin):
    distances = attention_distance(swin, IMAGES, batch_size=1)
    assert [block.shape for block in distances] == [(2, 1), (2, 2), (2, 2)]
    tokens = keras.Model(swin.input, swin.get_layer("encoder_block_0").input)(IMAGES)
    _, attention = swin.get_layer("encoder_block_0")(tokens, return_attention=True)
    centers = np.array([(2 * row, 2 * column) for row in range(4) for column in range(4)])
    expected = (np.array(attention) * np.linalg.norm(centers[:, None] - centers, axis=-1)).sum(-1).mean(-1)
    np.testing.assert_allclose(distances[0], expected.reshape(2, 6, 1).mean(axis=1), rtol=1e-4)


def test_similarities_of_fixed_positions():
    similarity = position_similarity(tiny_vit(position_embedding="sincos2d", num_registers=1))
    assert similarity.shape == (*CONFIG.grid_size, *CONFIG.grid_size)
    np.testing.assert_allclose(similarity[1, 2, 1, 2], 1, atol=1e-5)
    assert similarity[0, 0, 0, 1] > similarity[0, 0, 1, 2]


@pytest.mark.parametrize(("build", "shape"), [("vit", (8, 8, 3)), ("swin", (2, 2, 3)), ("hybrid", (7, 7, 3))])
def test_filters_are_the_principal_components(build, shape, swin):
    from sklearn.decomposition import PCA

    model = {"vit": tiny_vit, "swin": lambda: swin, "hybrid": tiny_hybrid}[build]()
    filters = patch_filters(model, 4)
    assert filters.shape == (4, *shape)
    layer = model.get_layer("stem_root" if build == "hybrid" else "patch_encoder")
    kernel = next(np.array(w) for w in layer.weights if w.path.endswith("kernel"))
    expected = PCA(4).fit(kernel.reshape(math.prod(shape), -1).T).components_
    np.testing.assert_allclose(np.abs((filters.reshape(4, -1) * expected).sum(axis=1)), 1, atol=1e-3)
    assert (filters.reshape(4, -1).max(axis=1) >= np.abs(filters).reshape(4, -1).max(axis=1)).all()


@pytest.mark.parametrize("function", [position_similarity, patch_filters, lambda m: attention_distance(m, IMAGES)])
def test_models_without_patches_are_refused(function):
    convnet = build_model(ConvNetConfig(image_size=(16, 24), widths=(8,), depths=(0,), num_classes=2))
    with pytest.raises(ValueError, match="Received: model="):
        function(convnet)


def test_bad_arguments_are_refused(swin):
    with pytest.raises(ValueError, match=r"relative positions.* Received: model="):
        position_similarity(swin)
    with pytest.raises(ValueError, match="Received: components=0"):
        patch_filters(swin, 0)
    with pytest.raises(ValueError, match="Received: 0 images"):
        attention_distance(swin, IMAGES[:0])
