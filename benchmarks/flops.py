"""The arithmetic of a step."""

from keras_vit.models import forward_flops


def step_flops(config, batch, training):
    """Operations of one step: a training step is counted as three forward passes, the backward pass as two."""
    return forward_flops(config) * batch * (3 if training else 1)
