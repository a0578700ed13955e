"""LoRA: adapters beside frozen weights, merged, saved and loaded."""

import keras
import numpy as np
import pytest
from tiny import IMAGES, tiny_vit
from tiny_hybrids import tiny_hybrid

import keras_vit
from keras_vit import SwinConfig, add_lora, load_lora, merge_lora, save_lora
from keras_vit.models import build_model
from keras_vit.models.lora import adapters, lora_layers

SWIN = SwinConfig(image_size=32, embed_dim=8, depths=(1, 2), num_heads=(1, 2), window_size=4, num_classes=3, version=2)


def _trained(model, seed=3):
    """Gives the second factors values, as training does."""
    random = np.random.default_rng(seed)
    for layer in lora_layers(model).values():
        _, second = adapters(layer)
        second.assign(random.normal(size=second.shape) * 0.3)
    return model


def test_adapters_and_heads_are_trained_alone():
    model = tiny_vit(num_registers=1, layer_scale_init=0.1, distillation_token=True)
    outputs = np.array(model(IMAGES))
    paths = add_lora(model, rank=2, alpha=6)
    names = ("attention/projection", "attention/qkv", "mlp/dense_1", "mlp/dense_2")
    assert paths == [f"encoder_block_{i}/{name}" for i in range(2) for name in names]
    np.testing.assert_array_equal(model(IMAGES), outputs)
    trained = {variable.path for variable in model.trainable_variables}
    heads = {f"{head}/{name}" for head in ("head", "head_dist") for name in ("kernel", "bias")}
    assert trained == {f"{path}/lora_kernel_{x}" for path in paths for x in "ab"} | heads
    before = {v.path: np.array(v) for v in model.variables}
    model.compile(keras.optimizers.AdamW(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(IMAGES, np.array([0, 1]), epochs=2, verbose=0)
    changed = {v.path for v in model.variables if np.abs(np.array(v) - before[v.path]).max() > 0}
    assert changed == trained


@pytest.mark.parametrize("dtype", [None, "mixed_bfloat16"])
def test_the_formula(dtype):
    model = _trained(add_lora_to(tiny_vit(dtype=dtype), rank=3, alpha=6))
    layer = lora_layers(model)["encoder_block_1/mlp/dense_1"]
    first, second = (np.array(v, "float64") for v in adapters(layer))
    merged = merge_lora(model).get_layer("encoder_block_1").mlp.dense_1
    kernel = next(v for v in layer.variables if v.name == "kernel")
    np.testing.assert_allclose(merged.kernel.numpy(), np.array(kernel) + 6 / 3 * first @ second, rtol=1e-5, atol=1e-6)


def add_lora_to(model, **arguments):
    add_lora(model, **arguments)
    return model


@pytest.mark.parametrize("family", ["vit", "swin", "hybrid"])
def test_a_merged_model_is_plain_and_computes_the_same(family, tmp_path):
    model = {"vit": tiny_vit, "swin": lambda: build_model(SWIN), "hybrid": tiny_hybrid}[family]()
    names = [variable.path for variable in model.variables]
    size = keras_vit.metadata(model).config.image_size
    images = np.random.default_rng(0).normal(size=(2, *size, 3)).astype("float32")
    outputs = np.array(model(images))
    assert len(add_lora(model, rank=2)) == 4 * sum(keras_vit.metadata(model).config.stage_depths)
    tuned = np.array(_trained(model)(images))
    assert np.abs(tuned - outputs).max() > 1e-2
    plain = merge_lora(model)
    assert [variable.path for variable in plain.variables] == names
    assert len(plain.trainable_variables) == len(names)
    np.testing.assert_allclose(plain(images), tuned, atol=1e-5)
    assert keras_vit.metadata(plain) == keras_vit.metadata(model)
    assert merge_lora(plain) is plain
    model.save(tmp_path / "x.keras")
    loaded = keras.models.load_model(tmp_path / "x.keras")
    np.testing.assert_allclose(loaded(images), tuned, atol=1e-5)
    assert [v.path for v in loaded.trainable_variables] == [v.path for v in model.trainable_variables]
    for one, other in zip(loaded.weights, model.weights, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=one.path)


def test_files_of_weights_hold_adapters_and_what_they_were_trained_on(tmp_path):
    model = _trained(add_lora_to(tiny_vit(dtype="mixed_bfloat16"), rank=2))
    model.save_weights(tmp_path / "x.weights.h5")
    saved = {v.path: np.array(v) for v in model.weights}
    for variable in model.weights:
        variable.assign(variable + 1)
    model.load_weights(tmp_path / "x.weights.h5")
    for variable in model.weights:
        np.testing.assert_array_equal(variable, saved[variable.path], err_msg=variable.path)


def test_adapters_come_back(tmp_path):
    model = _trained(add_lora_to(tiny_vit(), rank=2, alpha=5.0))
    model.get_layer("head").bias.assign([3.0, 2.0, 1.0])
    save_lora(model, tmp_path / "lora.safetensors")
    for base in (tiny_vit(), add_lora_to(tiny_vit(), rank=2, alpha=5.0)):
        loaded = load_lora(base, tmp_path / "lora.safetensors")
        np.testing.assert_allclose(loaded(IMAGES), model(IMAGES), atol=1e-6)
        assert [v.path for v in loaded.trainable_variables] == [v.path for v in model.trainable_variables]


def test_targets_are_a_pattern():
    model = tiny_vit()
    assert add_lora(model, 1, targets=r"encoder_block_1/attention/qkv") == ["encoder_block_1/attention/qkv"]
    assert sum("lora" in variable.path for variable in model.trainable_variables) == 2


def test_layers_behind_the_model_are_trained():
    inner = tiny_vit(num_classes=0)
    model = keras.Sequential([inner, keras.layers.Dense(2, name="mine")])
    model.build((None, 16, 24, 3))
    add_lora(model, 1)
    assert "lora_kernel_a" in {v.name for v in model.trainable_variables}
    assert sum("lora" not in v.path for v in model.trainable_variables) == 2
    tuned = np.array(_trained(model)(IMAGES))
    np.testing.assert_allclose(merge_lora(model)(IMAGES), tuned, atol=1e-5)


def _quantized():
    model = tiny_vit()
    model.get_layer("encoder_block_0").mlp.dense_1.quantize("int8")
    return model


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda path: add_lora(tiny_vit(), 0), "rank"),
        (lambda path: add_lora(tiny_vit(), 2, alpha=-1), "alpha=-1"),
        (lambda path: add_lora(tiny_vit(), targets="encoder_block_0/attention/query"), "targets='encoder_block_0"),
        (lambda path: add_lora(tiny_vit(), targets="("), r"targets='\('"),
        (lambda path: add_lora(tiny_vit(), targets=["mlp"]), r"targets=\['mlp'\]"),
        (lambda path: add_lora(_quantized()), "encoder_block_0/mlp/dense_1.*int8"),
        (lambda path: add_lora(add_lora_to(tiny_vit(), rank=1)), "merge_lora"),
        (lambda path: save_lora(tiny_vit(), path), "add_lora"),
        (lambda path: save_lora(add_lora_to(tiny_vit(), rank=1), path.with_suffix(".npz")), "npz"),
        (lambda path: load_lora(_trained(add_lora_to(tiny_vit(), rank=3)), path), "rank 2"),
        (lambda path: load_lora(tiny_vit(num_classes=4), path), r"head/kernel': \(16, 4\)"),
        (lambda path: load_lora(tiny_vit(hidden_dim=24), path), "trained on"),
        (lambda path: load_lora(merge_lora(_trained(add_lora_to(tiny_vit(), rank=1))), path), "trained on"),
        (lambda path: load_lora(tiny_vit(), path.with_name("damaged.safetensors")), "damaged.safetensors"),
        (lambda path: load_lora(tiny_vit(), path.with_name("weights.safetensors")), "save_lora"),
    ],
)
def test_what_does_not_fit_is_one_clear_error(call, message, tmp_path):
    path = tmp_path / "lora.safetensors"
    save_lora(add_lora_to(tiny_vit(), rank=2), path)
    (tmp_path / "damaged.safetensors").write_bytes(path.read_bytes()[:200])
    keras_vit.save_weights(tiny_vit(), tmp_path / "weights.safetensors", "timm")
    with pytest.raises(ValueError, match=message):
        call(path)
