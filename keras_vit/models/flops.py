"""Counts the arithmetic of a model's forward pass."""


def forward_flops(config):
    """Counts the floating-point operations of one forward pass of one image.

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
    return 2 * config.multiply_adds()


def block_multiply_adds(tokens, window, width, mlp_dim, gated=False):
    """Counts the multiply-adds of a block: the four projections and two products of attention, and the MLP."""
    return 4 * tokens * width**2 + 2 * tokens * window * width + (3 if gated else 2) * tokens * width * mlp_dim
