"""The arithmetic of a model's forward pass, written out."""

import math

from keras_vit.models.config import ViTConfig
from keras_vit.models.convnet import ConvNetConfig
from keras_vit.models.swin import SwinConfig


def forward_flops(config):
    """Floating-point operations of one forward pass of one image.

    A multiply-add counts as 2. Only matrix products and convolutions are counted, as papers do; norms, softmax,
    activations and biases are left out (about 1 % for ViT-B).

    Args:
        config: `ViTConfig` with `pooling` `token` or `gap` and without `pre_logits_dim`, `SwinConfig` of version 1, or
            `ConvNetConfig`.

    Returns:
        int.

    Raises:
        ValueError: for another config.
    """
    for family, count in ((ViTConfig, _vit), (SwinConfig, _swin), (ConvNetConfig, _convnet)):
        if type(config) is family:
            return 2 * count(config)
    raise ValueError(f"config must be ViTConfig, SwinConfig or ConvNetConfig. Received: config={config!r}")


def _block(tokens, window, width, mlp_dim, gated=False):
    """Multiply-adds of a block: queries, keys, values and projection, both products of attention, the MLP."""
    return 4 * tokens * width**2 + 2 * tokens * window * width + (3 if gated else 2) * tokens * width * mlp_dim


def _vit(config):
    if config.pooling not in ("token", "gap") or config.pre_logits_dim:
        raise ValueError(
            "pooling must be 'token' or 'gap', without pre-logits. "
            f"Received: pooling={config.pooling!r}, pre_logits_dim={config.pre_logits_dim}"
        )
    patches, width = math.prod(config.grid_size), config.hidden_dim
    tokens = patches + config.num_prefix_tokens
    projection = patches * math.prod(config.patch_size) * config.num_channels * width
    block = _block(tokens, tokens, width, config.mlp_dim, config.activation == "swiglu")
    heads = 2 if config.distillation_token else 1
    return projection + config.num_layers * block + heads * width * config.num_classes


def _swin(config):
    if config.version != 1:
        raise ValueError(f"version must be 1. Received: version={config.version}")
    total = math.prod(config.resolutions[0]) * math.prod(config.patch_size) * config.num_channels * config.embed_dim
    for stage, depth in enumerate(config.depths):
        width, window = config.hidden_dims[stage], config.windows[stage]
        # Padding up to whole windows takes part in the attention alone.
        padded = math.prod(-(-side // w) * w for side, w in zip(config.resolutions[stage], window, strict=True))
        tokens, mlp_dim = math.prod(config.resolutions[stage]), int(width * config.mlp_ratio)
        total += depth * (_block(padded, math.prod(window), width, 0) + 2 * tokens * width * mlp_dim)
        if stage:
            total += tokens * 2 * width * width  # four neighbours of half the width each, to one token
    return total + config.hidden_dims[-1] * config.num_classes


def _convnet(config):
    pixels, channels, total = math.prod(config.image_size), config.num_channels, 0
    for stage, (width, depth) in enumerate(zip(config.widths, config.depths, strict=True)):
        total += 9 * pixels * channels * width  # before the pooling
        pixels //= 4 if stage else 1
        total += depth * 2 * 9 * pixels * width**2
        channels = width
    return total + channels * config.num_classes
