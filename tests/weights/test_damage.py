"""Damaged, malformed and unusual checkpoints: an error that says so, and a model as it was."""

import collections
import zipfile

import numpy as np
import pytest
import safetensors.numpy
from golden import GOLDENS, load
from tiny import tiny_vit

import keras_vit
from keras_vit.weights import from_checkpoint, load_weights, save_weights
from keras_vit.weights.files import readers
from keras_vit.weights.files.checkpoint import open_checkpoint, write_checkpoint
from keras_vit.weights.layouts.detect import detect_layout
from keras_vit.weights.layouts.transforms import check_exact

LEGACY = GOLDENS / "torchvision/vit_legacy_mlp_keys/checkpoint.safetensors"
KEYS = sorted(open_checkpoint(LEGACY))
SCAN = GOLDENS / "big_vision/map_scan/checkpoint.npz"


def _weights(model):
    return {variable.path: np.array(variable) for variable in model.weights}


def _assert_unchanged(model, before):
    for path, value in _weights(model).items():
        np.testing.assert_array_equal(value, before[path], err_msg=path)


@pytest.fixture
def blank():
    """A model of the torchvision case whose weights are not the file's, and those weights."""
    model = from_checkpoint(LEGACY, num_heads=8)
    for variable in model.weights:
        variable.assign(variable * 0 + 7)
    return model, _weights(model)


@pytest.mark.parametrize(
    "key", ["conv_proj.weight", "encoder.layers.encoder_layer_1.mlp.linear_1.bias", "heads.head.bias"]
)
@pytest.mark.parametrize("value", [np.nan, -np.inf], ids=str)
def test_a_bad_value_anywhere_leaves_the_model_as_it_was(key, value, blank, tmp_path):
    model, before = blank
    tensors = safetensors.numpy.load_file(LEGACY)
    tensors[key].flat[-1] = value
    safetensors.numpy.save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=rf"weights must be finite. Received: '{key}' with 1 NaN or infinite"):
        load_weights(model, tmp_path / "x.safetensors")
    _assert_unchanged(model, before)


def test_a_damaged_member_leaves_the_model_as_it_was(tmp_path):
    path, model = tmp_path / "x.npz", tiny_vit()
    save_weights(model, path, "google")
    before = _weights(model)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda info: info.file_size)
    content[largest.header_offset + largest.file_size] ^= 0xFF
    path.write_bytes(content)
    for variable in model.weights:
        variable.assign(variable * 0 + 7)
    before = _weights(model)
    with pytest.raises(
        ValueError, match=rf"a checkpoint must be readable. Received: .*'{largest.filename[:-4]}' .*checksum"
    ):
        load_weights(model, path)
    _assert_unchanged(model, before)


@pytest.mark.parametrize("shape", [(), (5,), (0,), (2, 3), (1, 2, 3, 4, 5)], ids=str)
def test_arrays_of_another_number_of_axes_are_a_difference_not_a_crash(shape, blank, tmp_path):
    model, before = blank
    tensors, path = safetensors.numpy.load_file(LEGACY), tmp_path / "x.safetensors"
    for key in KEYS:
        if tensors[key].shape == shape:
            continue
        safetensors.numpy.save_file({**tensors, key: np.ones(shape, "float32")}, path)
        with pytest.raises(ValueError, match=rf"(?s)a checkpoint must fit the model.*~ {key}  \(file"):
            load_weights(model, path)
    _assert_unchanged(model, before)


@pytest.mark.parametrize("shape", [(), (5,), (1, 2, 3, 4, 5)], ids=str)
@pytest.mark.parametrize(
    ("case", "key"),
    [
        ("torchvision/vit_legacy_mlp_keys", "conv_proj.weight"),
        ("torchvision/vit_legacy_mlp_keys", "encoder.pos_embedding"),
        ("timm/vit_small_activations", "patch_embed.proj.weight"),
        ("timm/vit_small_activations", "blocks.0.mlp.fc2.weight"),
        ("google/vit_token", "embedding/kernel"),
        ("google/vit_token", "head/bias"),
        ("huggingface/vit_model_pooler", "embeddings.patch_embeddings.projection.weight"),
        ("huggingface/siglip_vision", "vision_model.embeddings.patch_embedding.weight"),
        ("timm/swin_padded", "patch_embed.proj.weight"),
        ("timm/swin_padded", "layers.0.blocks.0.attn.relative_position_bias_table"),
        ("microsoft/swin", "layers.0.blocks.0.attn.relative_position_bias_table"),
        ("timm/swinv2_pretrained_window", "layers.0.blocks.0.attn.logit_scale"),
    ],
)
def test_an_architecture_that_cannot_be_read_off_is_a_clear_error(case, key, shape, tmp_path):
    (source,) = (GOLDENS / case).glob("checkpoint.*")
    checkpoint, path = open_checkpoint(source), tmp_path / "x.safetensors"
    changed = np.ones(shape, "float32")
    write_checkpoint(path, {**{name: checkpoint[name] for name in checkpoint}, key: changed})
    told = {"image_size": 64, "window_size": 4} if "swin" in case else {"num_heads": 8}
    rules = (
        "kernel must have four",
        "must have the axes",
        "must fit the model",
        "table must be",
        "biases must have two",
        "multiple of num_heads",
    )
    with pytest.raises(ValueError, match="|".join(rules)):
        from_checkpoint(path, **told)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_finite_values_whose_squares_are_not_are_good(dtype):
    largest = np.finfo(dtype if dtype != "float64" else "float32").max
    check_exact(np.full((3, 1000), largest, dtype).T, "x")
    check_exact(np.full(3, -largest, dtype), "x")
    for bad in (np.nan, np.inf, -np.inf):
        values = np.full(1000, largest, dtype)
        values[-1] = bad
        with pytest.raises(ValueError, match="'x' with 1 NaN or infinite values"):
            check_exact(values, "x")
    with pytest.raises(ValueError, match="'x' with 2 NaN or infinite values"):
        check_exact(np.array([1e39, -1e39, 1e38]), "x")


@pytest.mark.parametrize("compressed", [False, True])
def test_stacked_blocks_are_read_once_each_time_the_file_is_gone_through(compressed, tmp_path, monkeypatch):
    checkpoint, path, reads = open_checkpoint(SCAN), tmp_path / "x.npz", collections.Counter()
    (np.savez_compressed if compressed else np.savez)(path, **{key: checkpoint[key] for key in checkpoint})
    read = readers._Member.read

    def counted(member, buffer):
        reads[member._info.filename] += 1
        return read(member, buffer)

    expected = load("big_vision/map_scan")[0]
    monkeypatch.setattr(readers._Member, "read", counted)
    model = from_checkpoint(path)
    # Once to look for damage, once to fill.
    assert max(reads.values()) == 2
    for ours, theirs in zip(model.weights, expected.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("pattern", ["Transformer/encoderblock/LayerNorm_0/", r"encoderblock_\d+/LayerNorm_0/"])
def test_skip_knows_stacked_blocks_by_both_names(pattern):
    model = from_checkpoint(SCAN)
    report = load_weights(model, SCAN, skip=[pattern])
    blocks = keras_vit.metadata(model).config.num_layers
    assert len(report.skipped) == 2 * blocks
    assert all("/LayerNorm_0/" in key for key in report.skipped)
    assert set(report.new) == {
        f"encoder_block_{i}/attention_norm/{n}" for i in range(blocks) for n in ("gamma", "beta")
    }


def test_a_mapped_file_is_not_written_to(tmp_path):
    for name, layout in (("x.safetensors", "timm"), ("x.npz", "google")):
        path = tmp_path / name
        save_weights(tiny_vit(), path, layout)
        content, checkpoint = path.read_bytes(), open_checkpoint(path)
        for key in checkpoint:
            array = checkpoint[key]
            if array.flags.writeable:
                array[...] = 0
        assert path.read_bytes() == content


def test_arrays_in_the_order_of_fortran_and_of_other_widths_are_read(tmp_path):
    values = np.arange(6, dtype="float64").reshape(2, 3)
    arrays = {
        "a": np.asfortranarray(values),
        "b": values.astype("float16"),
        "c": np.array(2, "float32"),
        "d": np.zeros((0, 3)),
    }
    np.savez(tmp_path / "x.npz", **arrays)
    write_checkpoint(tmp_path / "x.safetensors", {**arrays, "e": np.arange(3, dtype="uint8")})
    for name in ("x.npz", "x.safetensors"):
        checkpoint = open_checkpoint(tmp_path / name)
        for key, value in arrays.items():
            np.testing.assert_array_equal(checkpoint[key], value)
            assert (checkpoint[key].dtype, checkpoint.shapes[key]) == (value.dtype, np.shape(value))
    np.testing.assert_array_equal(checkpoint["e"], [0, 1, 2])


def test_an_npz_of_objects_runs_no_code(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.array([print], dtype=object))
    with pytest.raises(ValueError, match="a checkpoint must be readable"):
        open_checkpoint(tmp_path / "x.npz")["a"]


def test_a_pooler_beside_a_head_is_refused_with_the_reason(tmp_path):
    for fields in ({"pre_logits_dim": 16}, {"pre_logits_dim": 8, "num_classes": 0}):
        with pytest.raises(
            ValueError, match=r"layout 'huggingface' cannot hold this model.* is the pooler of a ViT without"
        ):
            save_weights(tiny_vit(**fields), tmp_path / "x.safetensors", "huggingface")
    model = tiny_vit(pre_logits_dim=16, num_classes=0)
    save_weights(model, tmp_path / "x.safetensors", "huggingface")
    loaded = from_checkpoint(tmp_path / "x.safetensors")
    assert keras_vit.metadata(loaded).config == keras_vit.metadata(model).config


def test_a_dinov2_file_is_known_by_its_mask_token(tmp_path):
    model, path = tiny_vit(layer_scale_init=1.0, num_classes=0), tmp_path / "x.safetensors"
    save_weights(model, path, "dinov2")
    tensors = safetensors.numpy.load_file(path)
    np.testing.assert_array_equal(tensors["mask_token"], np.zeros((1, 16)))
    safetensors.numpy.save_file(tensors, path)  # without our own words
    assert detect_layout(open_checkpoint(path)).name == "dinov2"
    config = keras_vit.metadata(from_checkpoint(path, num_heads=2, image_size=(16, 24))).config
    assert config.position_resize == "bicubic_offset"
