"""Full-size models beside timm and transformers themselves, every parameter drawn anew (`make test-peers`).

Fresh initialisations would hide wrong blocks behind zero biases and tiny LayerScales. Both ways: the reference's
weights into ours, whose outputs must agree, and back, where they must be identical.
"""

import importlib
import os
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
from keras_vit.weights import from_checkpoint, save_weights

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
}
HUGGINGFACE = {
    "ViTForImageClassification": ("ViTConfig", {}),
    "DeiTForImageClassificationWithTeacher": ("DeiTConfig", {"hidden_size": 384, "num_attention_heads": 6}),
    "Dinov2WithRegistersModel": ("Dinov2WithRegistersConfig", {"hidden_size": 384, "num_attention_heads": 6}),
    "SiglipVisionModel": ("SiglipVisionConfig", {}),
    "CLIPVisionModel": ("CLIPVisionConfig", {}),
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
    return np.random.default_rng(0).uniform(-1, 1, (2, size, size, 3)).astype("float32")


def _torch(images):
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


def _assert_close(ours, theirs):
    ours, theirs = np.asarray(ours), theirs.numpy()
    assert np.abs(ours - theirs).max() / np.abs(theirs).max() <= LIMIT


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
        outputs = module(_torch(images))
    model = from_checkpoint(_write(module, tmp_path / "x.safetensors"), image_size=size)
    ours_tokens, ours = _outputs(model, images)
    _assert_close(ours_tokens, tokens)
    _assert_close(ours, outputs)
    save_weights(model, tmp_path / "back.safetensors", "timm")
    _assert_back(module, tmp_path / "back.safetensors", _torch(images), outputs)


def _assert_back(module, path, images, outputs):
    from safetensors.torch import load_file

    redraw(module, seed=1)
    missing = module.load_state_dict(load_file(path), strict=False)
    assert not missing.unexpected_keys
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
    module = redraw(getattr(transformers, name)(config))
    images = _images(config.image_size)
    with torch.no_grad():
        found = module(_torch(images), output_hidden_states=True)
    module.save_pretrained(tmp_path)
    model = from_checkpoint(tmp_path / "model.safetensors")
    _assert_close(model(images), _answer(found))
    save_weights(model, tmp_path / "back.safetensors", "huggingface")
    _assert_back(module, tmp_path / "back.safetensors", _torch(images), _answer(found))


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
