"""The arithmetic of a Vision Transformer, written out."""


def vit_flops(config):
    """Floating-point operations of one forward pass of one image.

    A multiply-add counts as 2. Only matrix products are counted, as papers do; norms, softmax, activations and
    biases are left out (about 1 % for ViT-B). With `n` tokens, `d = hidden_dim` and `m = mlp_dim`:

    - patch projection: one `(patches, ph * pw * channels) @ (ph * pw * channels, d)`,
    - in each block: `3 n d^2` multiply-adds for queries, keys and values, `n^2 d` for the logits, `n^2 d` for the
      weighted sum of values, `n d^2` for the output projection, `2 n d m` for the MLP (`3 n d m` with SwiGLU),
    - the head: `d * num_classes`, on one token or on the mean of the tokens.

    Args:
        config: `keras_vit.ViTConfig` with `pooling` `token` or `gap` and without `pre_logits_dim`.

    Returns:
        int.
    """
    patches = config.grid_size[0] * config.grid_size[1]
    tokens = patches + config.num_prefix_tokens
    width = config.hidden_dim
    projection = patches * config.patch_size[0] * config.patch_size[1] * config.num_channels * width
    attention = 4 * tokens * width**2 + 2 * tokens**2 * width
    mlp = (3 if config.activation == "swiglu" else 2) * tokens * width * config.mlp_dim
    head = width * config.num_classes
    return 2 * (projection + config.num_layers * (attention + mlp) + head)


def step_flops(config, batch, training):
    """Operations of one step: a training step is counted as three forward passes, the backward pass as two."""
    return vit_flops(config) * batch * (3 if training else 1)
