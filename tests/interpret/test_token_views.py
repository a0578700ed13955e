"""Principal components and similarities of tokens."""

import numpy as np
import pytest
from tiny import IMAGES, randomize, tiny_vit

from keras_vit import features
from keras_vit.interpret import cosine_map, token_pca
from keras_vit.models import SwinConfig, build_model


@pytest.fixture(scope="module")
def model():
    return tiny_vit(num_registers=2)


def _tokens(model, stage, patches=6):
    tokens = np.array(features(model, stage)(IMAGES)[stage], "float64")
    return tokens[:, -patches:]


def test_components_are_those_of_scikit_learn(model):
    from sklearn.decomposition import PCA

    found = token_pca(model, IMAGES, foreground=False)
    assert found.foreground.all()
    assert found.colors.shape == (2, 2, 3, 3)
    assert (found.colors.min(), found.colors.max()) == (0, 1)
    expected = PCA(3).fit_transform(_tokens(model, "encoder_norm").reshape(12, -1))
    np.testing.assert_allclose(np.abs(found.components.reshape(12, 3)), np.abs(expected), atol=1e-3)


def test_the_background_is_black_and_does_not_count(model):
    from sklearn.decomposition import PCA

    found = token_pca(model, IMAGES, "encoder_block_0")
    tokens = _tokens(model, "encoder_block_0").reshape(12, -1)
    first = PCA(1).fit_transform(tokens).reshape(2, 2, 3) > 0
    assert (found.foreground == first).all() or (found.foreground == ~first).all()
    assert 0 < found.foreground.sum() < 12
    assert not found.colors[~found.foreground].any()
    expected = PCA(3).fit(tokens[found.foreground.reshape(-1)]).transform(tokens)
    np.testing.assert_allclose(np.abs(found.components.reshape(12, 3)), np.abs(expected), atol=1e-3)


def test_an_object_in_the_middle_is_the_foreground():
    """Patches of two kinds: the object in the middle, whichever sign the component has, is kept."""
    model = tiny_vit(image_size=(40, 40), class_token=False, pooling="gap", position_embedding="sincos2d")
    images = np.full((1, 40, 40, 3), -1, "float32")
    images[:, 16:24, 8:32] = 1
    for polarity in (1, -1):
        found = token_pca(model, polarity * images, "patches")
        np.testing.assert_array_equal(np.argwhere(found.foreground[0]), [[2, 1], [2, 2], [2, 3]])


def test_cosines_are_those_of_the_tokens(model):
    found = cosine_map(model, IMAGES, (1, 2), batch_size=1)
    tokens = _tokens(model, "encoder_norm")
    tokens /= np.linalg.norm(tokens, axis=-1, keepdims=True)
    expected = np.einsum("bnc,bc->bn", tokens, tokens[:, 5]).reshape(2, 2, 3)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(found[:, 1, 2], 1, atol=1e-5)


def test_stages_of_a_swin():
    config = SwinConfig(
        image_size=(16, 24), patch_size=2, window_size=4, embed_dim=8, depths=(1, 1), num_heads=(1, 2), num_classes=2
    )
    swin = build_model(config)
    randomize(swin)
    assert cosine_map(swin, IMAGES, (0, 0)).shape == (2, 4, 6)
    assert cosine_map(swin, IMAGES, (7, 11), "stage_0").shape == (2, 8, 12)
    assert token_pca(swin, IMAGES).colors.shape == (2, 4, 6, 3)


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (token_pca, {"stage": "encoder_nrom"}, "Did you mean 'encoder_norm'.* Received: stage='encoder_nrom'"),
        (token_pca, {"stage": "representation"}, "Received: stage='representation'"),
        (token_pca, {"images": IMAGES[:0]}, "Received: 0 images"),
        (cosine_map, {"patch": (2, 0)}, r"2 by 3 patches. Received: patch=\(2, 0\)"),
    ],
)
def test_bad_arguments_are_refused(model, function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(**{"model": model, "images": IMAGES, **arguments})
