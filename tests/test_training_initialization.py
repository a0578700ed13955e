import numpy as np
import pytest

from keras_vit.models import SwinConfig, ViTConfig, build_model
from keras_vit.training.initialization import initialize

CONFIG = ViTConfig(
    image_size=16, patch_size=4, hidden_dim=48, num_layers=2, num_heads=3, mlp_dim=64, num_classes=5, pooling="token"
)


def weights(model):
    return {variable.path: variable.numpy() for variable in model.weights}


@pytest.fixture
def model():
    return build_model(CONFIG)


def test_truncated_normal_is_that_of_timm(model):
    before = weights(model)
    initialize(model, "truncated_normal", seed=1)
    after = weights(model)
    changed = {path for path in before if np.any(before[path] != after[path])}
    drawn = {path for path in before if path.endswith(("kernel", "class_token", "position_embedding"))}
    patches = {f"patch_encoder/projection/{name}" for name in ("kernel", "bias")}
    assert changed == drawn | patches
    for path in drawn - patches:
        assert after[path].std() == pytest.approx(0.02, rel=0.25), path
    # torch.nn.Conv2d's: uniform up to one over the root of the 4 * 4 * 3 inputs.
    kernel = after["patch_encoder/projection/kernel"]
    assert 0.95 * 48**-0.5 < np.abs(kernel).max() <= 48**-0.5
    assert kernel.std() == pytest.approx((3 * 48) ** -0.5, rel=0.05)


def test_big_vision_draws_positions_and_begins_with_tokens_of_zero(model):
    before = weights(model)
    initialize(model, "big_vision", seed=1)
    after = weights(model)
    changed = {path.rpartition("/")[2] for path in before if np.any(before[path] != after[path])}
    assert changed == {"class_token", "position_embedding"}
    assert not np.any(after["patch_encoder/class_token"])
    assert after["patch_encoder/position_embedding"].std() == pytest.approx(48**-0.5, rel=0.1)


def test_mimetic_products_are_near_the_identity(model):
    initialize(model, "mimetic", seed=1)
    after, width, size = weights(model), CONFIG.hidden_dim, CONFIG.hidden_dim // CONFIG.num_heads
    for block in range(CONFIG.num_layers):
        qkv = after[f"encoder_block_{block}/attention/qkv/kernel"]
        queries, keys, values = np.split(qkv, 3, axis=1)
        product = values @ after[f"encoder_block_{block}/attention/projection/kernel"]
        assert np.diag(product).mean() == pytest.approx(-0.4, abs=0.05)
        assert product[~np.eye(width, dtype=bool)].std() == pytest.approx(0.4 / width**0.5, rel=0.15)
        for head in range(CONFIG.num_heads):
            part = slice(head * size, (head + 1) * size)
            product = queries[:, part] @ keys[:, part].T
            assert np.linalg.matrix_rank(product, tol=1e-4) == size
            # The best approximation of a third of the rank keeps more than a third of the diagonal.
            assert np.diag(product).mean() > 0.7 / 3


def test_the_seed_decides_and_the_layers_are_left_alone(model):
    before = weights(model)
    initialize(model, "layers")
    assert all(np.array_equal(before[path], value) for path, value in weights(model).items())
    first, again, other = ({}, {}, {})
    for seed, found in ((3, first), (3, again), (4, other)):
        initialize(model, "mimetic", seed)
        found.update(weights(model))
    assert all(np.array_equal(first[path], again[path]) for path in first)
    path = "encoder_block_0/attention/qkv/kernel"
    assert not np.array_equal(first[path], other[path])


def test_what_cannot_be_is_refused(model):
    with pytest.raises(ValueError, match="scheme"):
        initialize(model, "orthogonal")
    swin = SwinConfig(image_size=16, patch_size=4, embed_dim=8, depths=(1,), num_heads=(2,), window_size=2)
    with pytest.raises(ValueError, match="mimetic"):
        initialize(build_model(swin.replace(num_classes=2)), "mimetic")
