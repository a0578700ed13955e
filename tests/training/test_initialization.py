import numpy as np
import pytest

from keras_vit.interpret import attention_maps
from keras_vit.models import SwinConfig, ViTConfig, build_model, features
from keras_vit.training.initialization.schemes import initialize

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


def test_local_heads_attend_to_one_neighbor_and_branches_begin_with_zero():
    config = CONFIG.replace(image_size=32, hidden_dim=192, num_heads=6, class_token=False, pooling="gap")
    model = build_model(config)
    initialize(model, "local", seed=2)
    images = np.random.default_rng(0).normal(size=(4, 4, 4, 3)).repeat(8, axis=1).repeat(8, axis=2).astype("float32")
    maps = attention_maps(model, images)
    inner = [8 * row + column for row in range(1, 7) for column in range(1, 7)]
    for block in range(config.num_layers):
        attention = np.mean(maps[f"encoder_block_{block}"], axis=0)[:, inner]  # (heads, 36, 64)
        moves = np.array(inner)[:, None] + [8 * row + column for row in (-1, 0, 1) for column in (-1, 0, 1)]
        of_moves = np.take_along_axis(attention, moves[None], axis=2).mean(axis=1)  # (heads, 9)
        # Heads that look at different neighbors, each at one of them, with most of what there is.
        assert len(set(of_moves.argmax(axis=1))) == config.num_heads
        assert np.all(of_moves.max(axis=1) > 0.4)
        assert np.all(np.sort(of_moves, axis=1)[:, -2] < 0.6 * of_moves.max(axis=1))
    stages = features(model, ["patch_encoder", "encoder_block_1"])(images)
    np.testing.assert_array_equal(stages["patch_encoder"], stages["encoder_block_1"])


def test_local_patches_are_of_the_norm_of_positions():
    model = build_model(CONFIG.replace(image_size=32, class_token=True))
    initialize(model, "local", seed=1)
    encoder = model.get_layer("patch_encoder")
    positions = encoder.positions.numpy()
    assert not np.any(positions[0, 0])  # the class token's
    assert positions[0, 1:].std() == pytest.approx(1, rel=0.01)
    assert not np.any(positions[0, 1:] @ encoder.projection.kernel.numpy().T > 1e-4)  # in another subspace
    # Of patches whose cosine transform falls off as that of photographs.
    smooth = np.cumsum(np.cumsum(np.random.default_rng(0).normal(size=(32, 32, 32, 1)), axis=1), axis=2)
    smooth = (smooth - smooth.mean()) / smooth.std() * np.ones(3) + 0.2 * np.random.default_rng(1).normal(
        size=(32, 1, 1, 3)
    )
    tokens = encoder(model.get_layer("patches")(smooth.astype("float32"))).numpy()[:, 1:] - positions[:, 1:]
    assert 0.5 < np.sqrt(np.square(tokens).mean()) < 2


def test_local_needs_learned_positions():
    model = build_model(CONFIG.replace(position_embedding="sincos2d"))
    with pytest.raises(ValueError, match="local initialization needs position_embedding"):
        initialize(model, "local")
