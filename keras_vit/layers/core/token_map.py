"""Tokens as a map of features."""

import math

import keras
from keras import ops

from keras_vit.validation import as_pair


@keras.saving.register_keras_serializable(package="keras_vit")
class TokenMap(keras.layers.Layer):
    """Lays tokens out as a map, `(batch, h, w, channels)`; tokens in front of those of the patches are dropped.

    Args:
        grid_size: `(h, w)`, patches of an image, row by row; `(None, None)` for that of `like`.
        num_prefix_tokens: int. Tokens in front, for example the class token. Default 0.

    Call arguments:
        tokens: tensor `(batch, prefix + h * w, channels)`.
        like: tensor `(batch, h, w, ...)`, a map of the same grid; only where `grid_size` leaves it open.

    Returns:
        Tensor `(batch, h, w, channels)`.

    Raises:
        ValueError: if the number of tokens is not that of prefix and grid.
    """

    def __init__(self, grid_size, num_prefix_tokens=0, **kwargs):
        super().__init__(**kwargs)
        self.grid_size = (None, None) if tuple(grid_size) == (None, None) else as_pair(grid_size, "grid_size")
        self.num_prefix_tokens = num_prefix_tokens

    def build(self, tokens_shape, like_shape=None):
        if None in self.grid_size:
            if like_shape is None:
                raise ValueError(f"like must be given for grid_size={self.grid_size}. Received: like=None")
            return
        count = self.num_prefix_tokens + math.prod(self.grid_size)
        if len(tokens_shape) != 3 or tokens_shape[1] not in (None, count):
            raise ValueError(
                f"tokens must have the shape (batch, {count}, channels) for grid_size={self.grid_size} and "
                f"num_prefix_tokens={self.num_prefix_tokens}. Received: shape={tuple(tokens_shape)}"
            )

    def call(self, tokens, like=None):
        grid_size = ops.shape(like)[1:3] if None in self.grid_size else self.grid_size
        return ops.reshape(tokens[:, self.num_prefix_tokens :], (-1, *grid_size, tokens.shape[-1]))

    def compute_output_shape(self, tokens_shape, like_shape=None):
        grid_size = like_shape[1:3] if None in self.grid_size else self.grid_size
        return (tokens_shape[0], *grid_size, tokens_shape[2])

    def get_config(self):
        return {**super().get_config(), "grid_size": self.grid_size, "num_prefix_tokens": self.num_prefix_tokens}
