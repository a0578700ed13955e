"""Feature maps beside timm's `forward_intermediates`, every parameter drawn anew (`make test-peers`)."""

import sys

import numpy as np
import pytest

if "torch" not in sys.modules:
    pytest.skip("runs in make test-peers, where PyTorch is loaded before TensorFlow", allow_module_level=True)

import timm
import torch
from safetensors.torch import save_file

import keras_vit

pytestmark = pytest.mark.peers
LIMIT = 1e-5  # of the largest number in a map
MODELS = {
    "vit_tiny_patch16_224": {"img_size": (64, 96)},
    "deit_tiny_distilled_patch16_224": {"img_size": 64},
    "vit_small_patch14_reg4_dinov2": {"img_size": (56, 70), "depth": 4},
    "vit_base_patch16_siglip_224": {"img_size": 64, "depth": 4},
    "vit_base_patch16_clip_quickgelu_224": {"img_size": 64, "depth": 4},
    "vit_tiny_r_s16_p8_224": {},
    "swin_tiny_patch4_window7_224": {},
}


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_maps_are_those_of_timm(name, norm, tmp_path):
    module = timm.create_model(name, pretrained=False, num_classes=5, **MODELS[name]).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            width = parameter[0].numel() if parameter.ndim > 1 else 25
            parameter.copy_(noise * width**-0.5 + (parameter.ndim == 1))
    save_file({key: value.contiguous() for key, value in module.state_dict().items()}, tmp_path / "x.safetensors")
    sides = MODELS[name].get("img_size", 224)
    height, width = sides if isinstance(sides, tuple) else (sides, sides)
    depth = {"num_layers": MODELS[name]["depth"]} if "depth" in MODELS[name] else {}
    path, size = tmp_path / "x.safetensors", (height, width)
    model = keras_vit.create_model(name, weights=path, image_size=size, num_classes=5, **depth)
    images = np.random.default_rng(0).uniform(-1, 1, (2, height, width, 3)).astype("float32")
    is_swin = name.startswith("swin")
    extra = {} if is_swin else {"return_prefix_tokens": True}
    with torch.no_grad():
        inputs = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
        theirs = module.forward_intermediates(inputs, indices=3, norm=norm, intermediates_only=True, **extra)
    ours = keras_vit.backbone(model, 3, norm=norm, prefix="return")(images)
    for mine, other in zip(ours, theirs, strict=True):
        pairs = list(zip(mine, other, strict=True)) if isinstance(other, tuple) else [(mine, other)]
        for actual, expected in pairs:
            expected = expected.numpy()
            expected = expected.transpose(0, 2, 3, 1) if expected.ndim == 4 else expected
            assert np.abs(np.asarray(actual) - expected).max() <= LIMIT * np.abs(expected).max()
