"""Heat maps, against the formulas written out in NumPy."""

import json

import keras
import numpy as np
import pytest
from tiny import CONFIG, IMAGES, tiny_vit

from keras_vit.interpret import attention_model, rollout, rollout_model
from keras_vit.models import ConvNetConfig, HybridConfig, SwinConfig, build_model

GRID = CONFIG.grid_size


def _maps(model, fusion="mean", discard_ratio=0.0):
    return np.array(rollout_model(model, fusion, discard_ratio)(IMAGES)["heat_map"])


def _attention(model):
    """The probabilities of all blocks in their order, each `(batch, heads, tokens, tokens)`."""
    return [np.array(maps) for maps in attention_model(model)(IMAGES).values()]


def _fused(attention, fusion="mean", discard_ratio=0.0):
    """One image: heads of `(heads, tokens, tokens)` together, the smallest values zero."""
    fused = {"mean": np.mean, "max": np.max, "min": np.min}[fusion](attention.astype("float64"), axis=0)
    least = np.sort(fused, axis=None)[int(discard_ratio * fused.size)]
    return np.where(fused < least, 0, fused)


def _reference_rollout(maps, queries, fusion="mean", discard_ratio=0.0):
    """Multiplies the normalized `A + I` of all blocks, the last one leftmost, and takes the rows of `queries`."""
    result = []
    for image in range(len(maps[0])):
        total = np.eye(maps[0].shape[-1])
        for block in maps:
            flow = _fused(block[image], fusion, discard_ratio) + np.eye(len(total))
            total = flow / flow.sum(axis=1, keepdims=True) @ total
        row = total[queries].mean(axis=0)[-GRID[0] * GRID[1] :]
        result.append((row / row.sum()).reshape(GRID))
    return np.array(result)


@pytest.mark.parametrize("fusion", ["mean", "max", "min"])
@pytest.mark.parametrize("discard_ratio", [0.0, 0.6])
def test_rollout_of_the_class_token(fusion, discard_ratio):
    model = tiny_vit(num_layers=3)
    maps = _attention(model)
    expected = _reference_rollout(maps, [0], fusion, discard_ratio)
    np.testing.assert_allclose(_maps(model, fusion, discard_ratio), expected, rtol=1e-4)
    # The heads differ and the maps are not flat, or the comparison would tell little.
    assert expected.std() > 1e-3


@pytest.mark.parametrize(
    ("fields", "queries"),
    [
        ({"distillation_token": True}, [0, 1]),
        ({"distillation_token": True, "num_registers": 2}, [0, 1]),
        ({"num_registers": 3}, [0]),
        ({"pooling": "token_gap"}, [0]),
        ({"norm_placement": "post"}, [0]),
    ],
    ids=str,
)
def test_tokens_in_front_of_the_patches_are_asked_or_left_out(fields, queries):
    model = tiny_vit(**fields)
    maps = _attention(model)
    np.testing.assert_allclose(_maps(model), _reference_rollout(maps, queries), rtol=1e-4)


@pytest.mark.parametrize("pooling", ["gap", "map"])
@pytest.mark.parametrize("class_token", [True, False])
def test_pooled_patches_show_the_attention_that_they_receive(pooling, class_token):
    model = tiny_vit(pooling=pooling, class_token=class_token, num_registers=1)
    attention = _attention(model)[-1]
    patches = GRID[0] * GRID[1]
    received = attention.astype("float64").mean(axis=1)[:, -patches:, -patches:].mean(axis=1)
    expected = (received / received.sum(axis=1, keepdims=True)).reshape(-1, *GRID)
    np.testing.assert_allclose(_maps(model), expected, rtol=1e-4)


def test_the_outputs_are_those_of_the_model_which_stays_as_it_is():
    model = tiny_vit(num_layers=3, distillation_token=True)
    config, expected = json.dumps(model.get_config()), np.array(model(IMAGES))
    explained = rollout_model(model)(IMAGES)
    np.testing.assert_allclose(explained["outputs"], expected, atol=1e-6)
    assert explained["heat_map"].shape == (2, *GRID)
    assert json.dumps(model.get_config()) == config
    np.testing.assert_array_equal(model(IMAGES), expected)


def test_heads_of_one_s_own_and_hybrids():
    backbone = tiny_vit(num_classes=0)
    own = keras.Model(backbone.input, keras.layers.Dense(2)(backbone.output))
    np.testing.assert_array_equal(_maps(own), _maps(backbone))
    fields = {name: getattr(CONFIG, name) for name in ("hidden_dim", "num_layers", "num_heads", "mlp_dim")}
    hybrid = build_model(HybridConfig(image_size=32, stem_width=32, patch_size=(2, 4), **fields))
    assert rollout_model(hybrid).output["heat_map"].shape == (None, 4, 2)


def test_images_are_explained_in_batches():
    model, images = tiny_vit(), np.concatenate([IMAGES] * 3)[:5]
    maps = rollout(model, images, "max", batch_size=2)
    np.testing.assert_allclose(maps[:2], _maps(model, "max"), rtol=1e-4)
    np.testing.assert_allclose(maps[4], maps[0], rtol=1e-4)


def test_maps_of_mixed_precision_are_float32():
    maps = rollout_model(tiny_vit(dtype="mixed_bfloat16"))(IMAGES)["heat_map"]
    assert maps.dtype == "float32"
    np.testing.assert_allclose(maps, _maps(tiny_vit()), atol=5e-3)
    np.testing.assert_allclose(np.sum(maps, axis=(1, 2)), 1, atol=1e-6)


def test_equal_values_are_discarded_together_or_not_at_all():
    model = tiny_vit(num_layers=1)
    kernel = model.get_layer("encoder_block_0").attention.qkv.kernel
    kernel.assign(np.zeros(kernel.shape))  # every token attends to every other alike
    np.testing.assert_allclose(_maps(model, discard_ratio=0.99), 1 / (GRID[0] * GRID[1]), rtol=1e-5)


def test_the_model_of_maps_can_be_saved(tmp_path):
    maps = rollout_model(tiny_vit(num_registers=1), "max", 0.3)
    maps.save(tmp_path / "maps.keras")
    loaded = keras.models.load_model(tmp_path / "maps.keras")(IMAGES)
    for name, expected in maps(IMAGES).items():
        np.testing.assert_array_equal(loaded[name], expected)


def test_models_without_global_attention_are_refused():
    swin = SwinConfig(
        image_size=16, patch_size=2, window_size=4, embed_dim=8, depths=(1, 1), num_heads=(1, 2), num_classes=2
    )
    for config in (swin, ConvNetConfig(image_size=8, widths=(8,), depths=(0,), num_classes=2)):
        with pytest.raises(ValueError, match="every token attends to every other"):
            rollout_model(build_model(config))


@pytest.mark.parametrize("arguments", [{"fusion": "median"}, {"discard_ratio": 1.0}, {"discard_ratio": -0.1}])
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match=r"Received: (fusion|discard_ratio)="):
        rollout_model(tiny_vit(), **arguments)
