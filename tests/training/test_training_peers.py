"""Ten training steps beside timm and PyTorch: the same weights, batches and optimizer (`make test-peers`)."""

import contextlib
import math
import sys

import numpy as np
import pytest

if "torch" not in sys.modules:
    pytest.skip("runs in make test-peers, where PyTorch is loaded before TensorFlow", allow_module_level=True)

import safetensors.torch
import timm
import timm.loss
import timm.optim
import torch

from keras_vit.config import DataConfig, OptimizerConfig, Recipe, TrainingConfig
from keras_vit.models import SwinConfig, ViTConfig, build_model
from keras_vit.training import compile_model, fused_training
from keras_vit.weights import load_weights

pytestmark = pytest.mark.peers
STEPS, BATCH, CLASSES = 10, 16, 5
PEAK, FINAL, WARMUP, DECAY, CLIP, SMOOTHING = 2e-3, 1e-4, 3, 5.0, 0.5, 0.1


def _vit():
    config = ViTConfig(
        image_size=32, patch_size=8, hidden_dim=48, num_layers=3, num_heads=3, mlp_dim=96, num_classes=CLASSES
    )
    peer = timm.models.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=48, depth=3, num_heads=3, mlp_ratio=2, num_classes=CLASSES
    )
    return config, peer


def _swin():
    config = SwinConfig(
        image_size=32,
        patch_size=2,
        embed_dim=16,
        depths=(2, 2),
        num_heads=(2, 4),
        window_size=4,
        num_classes=CLASSES,
        drop_path_rate=0.0,
    )
    peer = timm.models.SwinTransformer(
        img_size=32,
        patch_size=2,
        embed_dim=16,
        depths=(2, 2),
        num_heads=(2, 4),
        window_size=4,
        num_classes=CLASSES,
        drop_path_rate=0.0,
    )
    return config, peer


def _recipe(config, name):
    return Recipe(
        name="peer",
        model=config,
        data=DataConfig(name="digits", batch_size=BATCH),
        optimizer=OptimizerConfig(
            name=name,
            learning_rate=PEAK,
            final_learning_rate=FINAL,
            warmup_steps=WARMUP,
            weight_decay=DECAY,
            epsilon=1e-6 if name == "lamb" else 1e-8,
            global_clipnorm=CLIP,
        ),
        training=TrainingConfig(epochs=1, label_smoothing=SMOOTHING, precision="float32"),
    )


def _rate(step):
    """Linear warm-up from 0, then a cosine from step to step, as every trainer has it."""
    if step < WARMUP:
        return PEAK * step / WARMUP
    return FINAL + (PEAK - FINAL) * 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP)))


def _peer_losses(peer, name, images, labels):
    """timm's loss, exclusions and order of things in a step."""
    groups = timm.optim.param_groups_weight_decay(peer, DECAY, no_weight_decay_list=peer.no_weight_decay())
    if name == "lamb":
        optimizer = timm.optim.Lamb(groups, lr=PEAK, eps=1e-6, max_grad_norm=None)
    else:
        optimizer = torch.optim.AdamW(groups, lr=PEAK, eps=1e-8)
    loss_function = timm.loss.LabelSmoothingCrossEntropy(SMOOTHING)
    losses, norms = [], []
    peer.train()
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = _rate(step)
        loss = loss_function(peer(torch.from_numpy(images[step].transpose(0, 3, 1, 2).copy())), labels[step])
        optimizer.zero_grad()
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(peer.parameters(), CLIP)))
        optimizer.step()
        losses.append(loss.item())
    return losses, norms


@pytest.mark.parametrize(
    ("make", "name", "compiler"),
    [(_vit, "adamw", "fused"), (_vit, "lamb", "plain"), (_swin, "adamw", "fused"), (_swin, "adamw", "plain")],
)
def test_ten_steps_are_those_of_timm(make, name, compiler, tmp_path):
    torch.manual_seed(0)
    config, peer = make()
    safetensors.torch.save_file(
        {key: value.contiguous() for key, value in peer.state_dict().items()}, tmp_path / "peer.safetensors"
    )
    model = build_model(config)
    load_weights(model, tmp_path / "peer.safetensors", layout="timm")
    compile_model(model, _recipe(config, name), STEPS, compiler)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(STEPS, BATCH, 32, 32, 3)).astype("float32")
    labels = rng.integers(CLASSES, size=(STEPS, BATCH))
    ours = []
    context = fused_training() if compiler == "fused" else contextlib.nullcontext()
    with context:
        for x, y in zip(images, np.eye(CLASSES, dtype="float32")[labels], strict=True):
            model.reset_metrics()
            ours.append(model.train_on_batch(x, y, return_dict=True)["loss"])
    theirs, norms = _peer_losses(peer, name, images, torch.from_numpy(labels))
    assert max(norms) > CLIP, "nothing was clipped"
    assert max(theirs) - min(theirs) > 0.01, "nothing was learnt"
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    print(f"{make.__name__} {name} {compiler}: largest difference {np.abs(np.subtract(ours, theirs)).max():.1e}")
