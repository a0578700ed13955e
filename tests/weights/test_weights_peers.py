"""Full-size models beside timm and transformers themselves, every parameter drawn anew (`make test-peers`).

Fresh initializations would hide wrong blocks behind zero biases and tiny LayerScales. Both ways: the reference's
weights into ours, whose outputs must agree, and back, where they must be identical.
"""

import importlib
import os
import pathlib
import re
import sys

import numpy as np
import pytest

if "torch" not in sys.modules:
    pytest.skip("runs in make test-peers, where PyTorch is loaded before TensorFlow", allow_module_level=True)

import keras
import safetensors.torch
import timm
import torch
import transformers

import keras_vit
from keras_vit.training.reports import run_record as record
from keras_vit.weights import catalog_entry, find_entries, from_checkpoint, save_weights

pytestmark = pytest.mark.peers
LIMIT = 2e-5
TIMM = {
    "vit_tiny_patch16_224": {},
    "vit_small_patch16_224": {},
    "vit_base_patch16_224": {},
    "deit_base_distilled_patch16_224": {},
    "deit3_small_patch16_224": {},
    "vit_small_patch14_reg4_dinov2": {"img_size": 224},
    "vit_base_patch16_siglip_224": {},
    "vit_so400m_patch16_siglip_256": {"depth": 2},
    "vit_base_patch16_clip_quickgelu_224": {"depth": 2},
    "vit_tiny_r_s16_p8_224": {},
    "vit_small_r26_s32_224": {},
    "swin_tiny_patch4_window7_224": {},
    "swinv2_tiny_window8_256": {},
}
_SWIN_V2 = {"embed_dim": 48, "num_heads": [2, 2, 4, 4], "window_size": 6, "num_labels": 10}
# The class, behind a comma what is special about it, and its config.
HUGGINGFACE = {
    "ViTForImageClassification": ("ViTConfig", {}),
    "DeiTForImageClassificationWithTeacher": ("DeiTConfig", {"hidden_size": 384, "num_attention_heads": 6}),
    "Dinov2WithRegistersModel": ("Dinov2WithRegistersConfig", {"hidden_size": 384, "num_attention_heads": 6}),
    "SiglipVisionModel": ("SiglipVisionConfig", {}),
    "CLIPVisionModel": ("CLIPVisionConfig", {}),
    "SwinForImageClassification": ("SwinConfig", {"num_labels": 1000}),
    "Swinv2ForImageClassification": ("Swinv2Config", {"window_size": 8, "image_size": 256, "num_labels": 1000}),
    "Swinv2ForImageClassification, tall": ("Swinv2Config", {**_SWIN_V2, "image_size": (192, 96)}),
    "Swinv2ForImageClassification, wide and odd": ("Swinv2Config", {**_SWIN_V2, "image_size": (72, 168)}),
}


def redraw(module, seed=0):
    """Draws every parameter as the goldens' README says."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_scale = re.search(r"(ls\d\.gamma|gamma_\d|lambda1)$", name)
            if is_scale:
                parameter.copy_(0.5 + 0.2 * noise)
            elif "logit_scale" in name:
                parameter.copy_(2.3 + 0.1 * noise)
            elif re.search(
                r"(token|bias_table|pos_embed|position_embedding|embeddings\.\w*embeddings?$|latent|probe)", name
            ):
                parameter.copy_(0.5 * noise)
            elif parameter.ndim == 1:
                parameter.copy_(0.2 * noise + (1.0 if name.endswith("weight") else 0.0))
            else:
                parameter.copy_(noise * (parameter[0].numel()) ** -0.5)
    return module.eval()


def _images(size):
    sides = size if isinstance(size, tuple | list) else (size, size)
    return np.random.default_rng(0).uniform(-1, 1, (2, *sides, 3)).astype("float32")


def _torch(images):
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


DIFFERENCES = {}


@pytest.fixture(autouse=True, scope="module")
def _record():
    """With `PEERS_RECORD=FILE`: every difference that was compared, with the versions, as a JSON file."""
    yield
    if not os.environ.get("PEERS_RECORD"):
        return
    commit, dirty = record.commit()
    peers = {name: module.__version__ for name, module in (("timm", timm), ("transformers", transformers))}
    content = {
        "commit": commit,
        "dirty": dirty,
        "hardware": record.hardware(),
        "versions": {**record.versions(), **peers},
        "limit": LIMIT,
        "largest |ours - theirs| / max |theirs|": DIFFERENCES,
    }
    record.write_json(pathlib.Path(os.environ["PEERS_RECORD"]), content)


def _assert_close(ours, theirs):
    ours, theirs = np.asarray(ours), theirs.numpy()
    difference = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
    DIFFERENCES.setdefault(os.environ["PYTEST_CURRENT_TEST"].partition("::")[2].partition(" (")[0], []).append(
        difference
    )
    assert difference <= LIMIT


def _outputs(model, images):
    """Tokens behind the last norm and what the model returns."""
    tokens = keras_vit.features(model, "encoder_norm")(images)["encoder_norm"]
    return tokens, model(images)


def _write(module, path):
    from safetensors.torch import save_file

    save_file({key: value.contiguous() for key, value in module.state_dict().items()}, path)
    return path


@pytest.mark.parametrize("name", TIMM)
def test_timm(name, tmp_path):
    keras.backend.clear_session()
    module = redraw(timm.create_model(name, pretrained=False, **TIMM[name]))
    size = module.patch_embed.img_size[0]
    images = _images(size)
    with torch.no_grad():
        tokens = module.forward_features(_torch(images))
        tokens = tokens.flatten(1, 2) if tokens.ndim == 4 else tokens
        outputs = module(_torch(images))
    path = _write(module, tmp_path / "x.safetensors")
    depth = {"num_layers": TIMM[name]["depth"]} if "depth" in TIMM[name] else {}
    model = keras_vit.create_model(name, weights=path, image_size=size, **depth)
    ours_tokens, ours = _outputs(model, images)
    _assert_close(ours_tokens, tokens)
    _assert_close(ours, outputs)
    save_weights(model, tmp_path / "back.safetensors", "timm")
    _assert_back(module, tmp_path / "back.safetensors", _torch(images), outputs)


@pytest.mark.parametrize("name", ["vit_tiny_r_s16_p8_224", "vit_base_r50_s16_224"])
def test_timm_reads_our_google_files_of_hybrids(name, tmp_path):
    """timm's own reader of Google's `.npz` fills a fresh module, with the outputs of the one that it came from."""
    keras.backend.clear_session()
    module = redraw(timm.create_model(name, num_classes=10, img_size=(160, 224)))
    images = np.random.default_rng(0).uniform(-1, 1, (2, 160, 224, 3)).astype("float32")
    with torch.no_grad():
        outputs = module(_torch(images))
    model = from_checkpoint(_write(module, tmp_path / "x.safetensors"), image_size=(160, 224))
    _assert_close(model(images), outputs)
    save_weights(model, tmp_path / "x.npz", "google")
    redraw(module, seed=1).load_pretrained(str(tmp_path / "x.npz"))
    with torch.no_grad():
        np.testing.assert_array_equal(module(_torch(images)).numpy(), outputs.numpy())


def _assert_back(module, path, images, outputs):
    from safetensors.torch import load_file

    redraw(module, seed=1)
    missing = module.load_state_dict(load_file(path), strict=False)
    # Constants that public files hold and this version of transformers makes anew.
    constants = "relative_position_index|relative_coords_table"
    assert all(re.search(constants, key) for key in missing.unexpected_keys), missing
    assert all(re.search("mask_token|position_ids|pooler", key) for key in missing.missing_keys), missing
    with torch.no_grad():
        again = module(images)
    again = again if isinstance(again, torch.Tensor) else _answer(again)
    np.testing.assert_array_equal(again.numpy(), outputs.numpy())


def _answer(outputs):
    logits = getattr(outputs, "logits", None)
    return outputs.pooler_output if logits is None else logits


@pytest.mark.parametrize("name", HUGGINGFACE)
def test_transformers(name, tmp_path):
    keras.backend.clear_session()
    config, arguments = HUGGINGFACE[name]
    config = getattr(transformers, config)(**arguments)
    module = redraw(getattr(transformers, name.partition(",")[0])(config))
    images = _images(config.image_size)
    with torch.no_grad():
        found = module(_torch(images), output_hidden_states=True)
    module.save_pretrained(tmp_path)
    model = from_checkpoint(tmp_path / "model.safetensors")
    _assert_close(model(images), _answer(found))
    save_weights(model, tmp_path / "back.safetensors", "huggingface")
    _assert_back(module, tmp_path / "back.safetensors", _torch(images), _answer(found))


MAP_POOLING = {"img_size": (64, 48), "embed_dim": 32, "depth": 2, "num_heads": 2, "mlp_ratio": 2, "num_classes": 5}


@pytest.mark.parametrize(
    "arguments", [{}, {"reg_tokens": 2, "no_embed_class": True}, {"class_token": False}, {"fc_norm": True}]
)
def test_attention_pooling_sees_the_patches_alone(arguments, tmp_path):
    """With and without tokens in front of them, read from timm's file and written for it."""
    room = importlib.import_module("timm.models.vision_transformer")
    module = redraw(room.VisionTransformer(**MAP_POOLING, global_pool="map", **arguments))
    images = np.random.default_rng(0).uniform(-1, 1, (2, 64, 48, 3)).astype("float32")
    with torch.no_grad():
        outputs = module(_torch(images))
    model = from_checkpoint(_write(module, tmp_path / "x.safetensors"), num_heads=2, image_size=(64, 48))
    _assert_close(model(images), outputs)
    save_weights(model, tmp_path / "back.safetensors", "timm")
    _assert_back(module, tmp_path / "back.safetensors", _torch(images), outputs)


@pytest.mark.parametrize("wrap", [None, "model", "state_dict"])
def test_pytorch_files(wrap, tmp_path):
    module = redraw(timm.create_model("vit_tiny_patch16_224", depth=2, num_classes=3))
    content = module.state_dict() if wrap is None else {wrap: module.state_dict(), "epoch": 3}
    torch.save(content, tmp_path / "x.pth")
    images = _images(224)
    model = from_checkpoint(tmp_path / "x.pth", num_heads=3)
    with torch.no_grad():
        _assert_close(model(images), module(_torch(images)))


def test_old_pytorch_files_and_those_of_something_else(tmp_path):
    module = redraw(timm.create_model("vit_tiny_patch16_224", depth=2, num_classes=3))
    torch.save(module.state_dict(), tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    images = _images(224)
    with torch.no_grad():
        _assert_close(from_checkpoint(tmp_path / "x.pth", num_heads=3)(images), module(_torch(images)))
    for content in ([1, 2], torch.zeros(3), "text"):
        torch.save(content, tmp_path / "x.pth")
        with pytest.raises(ValueError, match="a PyTorch file must hold a dict of tensors, not a"):
            from_checkpoint(tmp_path / "x.pth")
    torch.save({1: torch.zeros(3), "a": 3}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"must be of one of the layouts .* with 0 keys"):
        from_checkpoint(tmp_path / "x.pth")


SWIN = {"embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4), "num_classes": 5}
VIT = {"embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 5, "img_size": 32, "patch_size": 8}
WINDOW_7, WINDOW_8 = {**SWIN, "img_size": 56, "window_size": 7}, {**SWIN, "img_size": 64, "window_size": 8}
TRAINED = {"pretrained_window_sizes": (8, 8)}
# What timm builds the source with, and what it is then loaded into.
RESIZES = {
    "window": ("swin_transformer", "SwinTransformer", WINDOW_7, {"img_size": 64, "window_size": 8}),
    "rows and columns": (
        "swin_transformer",
        "SwinTransformer",
        WINDOW_7,
        {"img_size": (48, 80), "window_size": (4, 10)},
    ),
    "last stage": ("swin_transformer", "SwinTransformer", WINDOW_7, {"img_size": 32}),
    "patch and window": (
        *("swin_transformer", "SwinTransformer", WINDOW_7),
        {"img_size": 64, "window_size": 4, "patch_size": 8},
    ),
    "version 2": (
        *("swin_transformer_v2", "SwinTransformerV2", WINDOW_8),
        {"img_size": 128, "window_size": 16, **TRAINED},
    ),
    "version 2, rows and columns": (
        *("swin_transformer_v2", "SwinTransformerV2", WINDOW_8),
        {"img_size": (64, 96), "window_size": (8, 12), **TRAINED},
    ),
    "patch": ("vision_transformer", "VisionTransformer", VIT, {"patch_size": 4}),
    "patch and image": ("vision_transformer", "VisionTransformer", VIT, {"patch_size": (16, 12), "img_size": (48, 36)}),
}


@pytest.mark.filterwarnings("ignore:.*(resized|resampled) to", "ignore:.*torch", "ignore:.*multidimensional indexing")
@pytest.mark.parametrize("name", RESIZES)
def test_other_sizes_are_loaded_as_timm_loads_them(name, tmp_path):
    file, family, source, changes = RESIZES[name]
    room = importlib.import_module(f"timm.models.{file}")
    path = _write(redraw(getattr(room, family)(**source)), tmp_path / "x.safetensors")
    module = getattr(room, family)(**{**source, **changes}).eval()
    module.load_state_dict(room.checkpoint_filter_fn(safetensors.torch.load_file(path), module))
    ours = {{"img_size": "image_size"}.get(field, field): value for field, value in changes.items()}
    heads = {} if "swin" in file else {"num_heads": source["num_heads"]}
    model = from_checkpoint(path, **ours, **heads)
    images = np.random.default_rng(0).uniform(-1, 1, (2, *model.input_shape[1:])).astype("float32")
    with torch.no_grad():
        _assert_close(model(images), module(_torch(images)))


def test_a_pytorch_file_cannot_run_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, ("true",)

    torch.save({"model": Evil()}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="a checkpoint must be readable"):
        from_checkpoint(tmp_path / "x.pth")


def test_clip_with_its_projection(tmp_path):
    """The embedding of an image as CLIP compares it with texts: the projection is a head without a bias."""
    keras.backend.clear_session()
    module = redraw(transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(num_hidden_layers=3)))
    images = _images(224)
    with torch.no_grad():
        embedding = module(_torch(images)).image_embeds
    module.save_pretrained(tmp_path)
    model = from_checkpoint(tmp_path / "model.safetensors")
    config = keras_vit.metadata(model).config
    assert (config.num_classes, config.head_bias) == (512, False)
    _assert_close(model(images), embedding)
    save_weights(model, tmp_path / "back.safetensors", "huggingface")
    redraw(module, seed=1)
    from safetensors.torch import load_file

    module.load_state_dict(load_file(tmp_path / "back.safetensors"))
    with torch.no_grad():
        np.testing.assert_array_equal(module(_torch(images)).image_embeds.numpy(), embedding.numpy())


_TINY = {"hidden_dim": 48, "num_layers": 2, "num_heads": 3, "mlp_dim": 80, "num_classes": 5}
FOLDERS = {
    "vit_tiny_patch16_224": {"num_layers": 2, "pooling": "gap", "pool_before_norm": True, "activation": "gelu_tanh"},
    "deit_tiny_distilled_patch16_224": {"num_layers": 2, "image_size": (64, 96)},
    "deit3_small_patch16_224": {"num_layers": 2, "qk_norm": True},
    "vit_giant_patch14_dinov2": {
        "hidden_dim": 48,
        "num_heads": 3,
        "mlp_dim": 40,
        "num_layers": 2,
        "image_size": (56, 70),
        "num_registers": 3,
        "position_on_prefix": False,
    },
    "vit_base_patch16_siglip_224": {"num_layers": 2},
    "vit_base_patch16_clip_quickgelu_224": {"num_layers": 2, "num_classes": 512},
    "vit_so400m_patch14_siglip_384": {"num_layers": 1},
    "swin_tiny_patch4_window7_224": {"depths": (1, 2), "num_heads": (3, 6), "image_size": (112, 56)},
    "swinv2_tiny_window8_256": {"depths": (2, 1), "num_heads": (3, 6), "image_size": 64},
    "vit_tiny_r_s16_p8_224": {"num_layers": 2, "image_size": (64, 96)},
    "vit_small_r26_s32_224": {
        **_TINY,
        "image_size": (64, 90),
        "pooling": "gap",
        "qk_norm": True,
        "layer_scale_init": 0.1,
    },
    "vit_base_r50_s16_224": {**_TINY, "image_size": 64, "patch_size": (2, 1), "pooling": "map"},
    "vit_large_r50_s32_384": {"num_layers": 1, "num_classes": 3},
}
# What one architecture's name does not show.
VARIATIONS = {
    "map, class token": {"pooling": "map"},
    "map, class token, registers": {"pooling": "map", "num_registers": 2, "position_on_prefix": False},
    "map, norm behind it": {"pooling": "map", "pool_before_norm": True, "position_on_prefix": False},
    "map, registers": {"pooling": "map", "class_token": False, "num_registers": 2, "position_on_prefix": False},
    "gap, registers": {"pooling": "gap", "class_token": False, "num_registers": 3, "position_on_prefix": False},
    "gap, registers, no position asked for": {"pooling": "gap", "class_token": False, "num_registers": 3},
    "gap": {"pooling": "gap", "class_token": False, "position_on_prefix": False},
    "gap, class token and registers": {"pooling": "gap", "num_registers": 3, "position_on_prefix": False},
    "map, no classes": {"pooling": "map", "num_classes": 0},
}
CASES = {name: (name, fields) for name, fields in FOLDERS.items()} | {
    name: ("vit_tiny_patch16_224", {**_TINY, "image_size": (64, 48), **fields}) for name, fields in VARIATIONS.items()
}


@pytest.mark.parametrize("case", CASES)
def test_timm_reads_our_folders(case, tmp_path):
    """`timm.create_model("local-dir:...")` builds the same model from what `save_pretrained` writes."""
    keras.backend.clear_session()
    name, fields = CASES[case]
    model = keras_vit.create_model(name, **fields)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        center = 1.0 if weight.path.endswith("gamma") else 0.0
        scale = weight.shape[0] ** -0.5 if weight.path.endswith("kernel") else 0.2
        weight.assign(center + scale * rng.standard_normal(weight.shape))
    keras_vit.save_pretrained(model, tmp_path / "m", license_id="mit")
    module = timm.create_model(f"local-dir:{tmp_path / 'm'}", pretrained=True).eval()
    spec = keras_vit.metadata(model).input_spec
    data = timm.data.resolve_model_data_config(module)
    assert data["input_size"] == (3, *spec.size)
    assert (data["crop_pct"], data["mean"]) == (spec.crop_fraction, list(spec.mean))
    weight = module.get_submodule(module.pretrained_cfg["first_conv"]).weight
    assert weight.shape[1] == spec.num_channels
    images = rng.uniform(-1, 1, (2, *spec.size, 3)).astype("float32")
    with torch.no_grad():
        _assert_close(model(images), module(_torch(images)))


@pytest.mark.parametrize("name", [n for n in find_entries() if catalog_entry(n).source.startswith("hub:timm/")])
def test_the_catalog_says_what_timm_says(name):
    entry, known = catalog_entry(name), timm.models.get_pretrained_cfg(name)
    spec, config = entry.input_spec, entry.config()
    assert entry.source == f"hub:{known.hf_hub_id}"
    assert (3, *config.image_size) == known.input_size
    assert config.num_classes == known.num_classes
    assert (spec.crop_fraction is None) == (known.crop_mode == "squash")
    assert spec.crop_fraction in (None, known.crop_pct)
    assert (spec.interpolation, spec.mean, spec.std) == (known.interpolation, known.mean, known.std)
    assert entry.license == known.license
