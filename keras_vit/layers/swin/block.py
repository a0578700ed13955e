"""One block of a Swin Transformer."""

import math

import keras
from keras import ops

from keras_vit.backend.ops import roll_grid
from keras_vit.layers.core.composite import MAX_CONSTANT_BYTES, CompositeLayer
from keras_vit.layers.core.dropout import make_drop_path
from keras_vit.layers.core.mlp import MLP
from keras_vit.layers.core.normalization import LayerNormalization
from keras_vit.layers.swin.window_attention import WindowAttention
from keras_vit.layers.swin.windows import (
    MASK_VALUE,
    merge_windows,
    pad_grid,
    padded_size,
    partition_windows,
    region_mask,
    shift_mask,
    shift_regions,
)
from keras_vit.layers.vit.attention import attention_output_spec
from keras_vit.validation import as_pair


def check_tokens(input_shape, resolution):
    """Raises a `ValueError` unless tokens of this shape fill the grid."""
    if len(input_shape) != 3 or input_shape[1] not in (None, math.prod(resolution)):
        raise ValueError(
            f"tokens must have the shape (batch, {math.prod(resolution)}, hidden_dim) for resolution={resolution}. "
            f"Received: shape={tuple(input_shape)}"
        )


@keras.saving.register_keras_serializable(package="keras_vit")
class SwinBlock(CompositeLayer):
    """Attention in shifted windows and an MLP, each a residual branch with a layer norm.

    Version 1 normalizes the input of a branch: `x + drop_path(f(norm(x)))`; version 2 its output:
    `x + drop_path(norm(f(x)))`.

    Args:
        num_heads: int. Divides the width of the tokens.
        mlp_dim: int. Width inside the MLP.
        resolution: int or `(h, w)`, the grid of the tokens. It is padded with zeros to a multiple of the window; they
            are attended to, as in the public implementations.
        window_size: int or `(h, w)`, tokens.
        shift: int or `(h, w)`, tokens by which the windows are shifted. Default 0.
        pad_first: bool. Whether the grid is padded before it is shifted (Hugging Face), or after (timm). Default False.
        masked: float. Added to the logits of pairs of tokens that only the shift brings into one window. Default -100.
        version: 1 or 2. Default 1.
        pretrained_window_size: as for `WindowAttention`. Default `None`.
        qkv_bias: bool. Default True.
        activation: as for `MLP`. Default `gelu`.
        dropout_rate: float in [0, 1). After the attention's projection and both MLP layers. Default 0.
        attention_dropout_rate: float in [0, 1). On the attention probabilities. Default 0.
        drop_path_rate: float in [0, 1). Stochastic depth: the rate at which a branch is dropped, sample by sample.
            Default 0.
        layer_norm_epsilon: float. Default 1e-5.

    Call arguments:
        tokens: tensor `(batch, h * w, hidden_dim)`, row by row.
        training: bool.
        return_attention: bool. Default False.

    Returns:
        Tensor of the shape of `tokens`; with `return_attention` a pair with the attention probabilities
        `(batch * windows, num_heads, tokens, tokens)` of the windows of the shifted grid.

    Raises:
        ValueError: if the tokens do not fill the grid.

    Source: Liu et al., arXiv:2103.14030, equation 3, and arXiv:2111.09883, figure 1.
    """

    def __init__(
        self,
        num_heads,
        mlp_dim,
        resolution,
        window_size,
        shift=0,
        pad_first=False,
        masked=MASK_VALUE,
        version=1,
        pretrained_window_size=None,
        qkv_bias=True,
        activation="gelu",
        dropout_rate=0.0,
        attention_dropout_rate=0.0,
        drop_path_rate=0.0,
        layer_norm_epsilon=1e-5,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.resolution = as_pair(resolution, "resolution")
        self.shift = tuple(shift) if isinstance(shift, tuple | list) else (shift, shift)
        self.pad_first = pad_first
        self.masked = masked
        self.mlp_dim = mlp_dim
        self.activation = activation
        self.dropout_rate = dropout_rate
        self.drop_path_rate = drop_path_rate
        self.layer_norm_epsilon = layer_norm_epsilon
        policy = self.dtype_policy
        self.attention = WindowAttention(
            num_heads,
            window_size,
            version,
            pretrained_window_size,
            qkv_bias,
            dropout_rate,
            attention_dropout_rate,
            dtype=policy,
            name="attention",
        )
        self.mlp = MLP(mlp_dim, activation, dropout_rate, dtype=policy, name="mlp")
        self.attention_norm, self.mlp_norm = (
            LayerNormalization(epsilon=layer_norm_epsilon, dtype=policy, name=name)
            for name in ("attention_norm", "mlp_norm")
        )
        self.attention_drop_path, self.mlp_drop_path = (
            make_drop_path(self, name, drop_path_rate) for name in ("attention_drop_path", "mlp_drop_path")
        )
        window_size = self.attention.window_size
        if any(not 0 <= s < w for s, w in zip(self.shift, window_size, strict=True)):
            raise ValueError(
                f"shift must be at least 0 and less than the window. Received: shift={self.shift}, {window_size=}"
            )

    def build(self, input_shape):
        check_tokens(input_shape, self.resolution)
        window_size = self.attention.window_size
        self._padded = padded_size(self.resolution, window_size)
        self._mask = shift_mask(self._padded, window_size, self.shift, self.masked)
        for layer in (self.attention_norm, self.mlp_norm, self.mlp):
            layer.build(input_shape)
        self.attention.build((None, math.prod(window_size), input_shape[-1]))

    def _window_mask(self):
        """The mask of the shifted windows; one that would be a large constant is computed in the graph."""
        if self._mask is None or self._mask.nbytes <= MAX_CONSTANT_BYTES:
            return self._mask
        return region_mask(shift_regions(self._padded, self.attention.window_size, self.shift), self.masked)

    def _to_windows(self, tokens, training):
        """Cuts `(batch, h * w, hidden_dim)` into the windows of the shifted grid."""
        grid = ops.reshape(tokens, (-1, *self.resolution, tokens.shape[-1]))
        if self.pad_first:
            grid = pad_grid(grid, self._padded)
        grid = pad_grid(roll_grid(grid, [-s for s in self.shift], training), self._padded)
        return partition_windows(grid, self.attention.window_size)

    def _to_tokens(self, windows, training):
        """Assembles tokens from windows: the inverse of `_to_windows`."""
        grid = merge_windows(windows, self.attention.window_size, self._padded)
        h, w = self.resolution
        if not self.pad_first:
            grid = grid[:, :h, :w]
        grid = roll_grid(grid, self.shift, training)[:, :h, :w]
        return ops.reshape(grid, (-1, h * w, windows.shape[-1]))

    def call(self, tokens, training=False, return_attention=False):
        check_tokens(tokens.shape, self.resolution)
        is_pre_norm = self.attention.version == 1
        x = self._to_windows(self.attention_norm(tokens) if is_pre_norm else tokens, training)
        x = self.attention(x, self._window_mask(), training=training, return_attention=return_attention)
        x, probabilities = x if return_attention else (x, None)
        x = self._to_tokens(x, training)
        x = x if is_pre_norm else self.attention_norm(x)
        tokens = tokens + self.attention_drop_path(x, training=training)

        x = self.mlp(self.mlp_norm(tokens) if is_pre_norm else tokens, training=training)
        x = x if is_pre_norm else self.mlp_norm(x)
        tokens = tokens + self.mlp_drop_path(x, training=training)
        return (tokens, probabilities) if return_attention else tokens

    def compute_output_spec(self, tokens, training=False, return_attention=False):
        check_tokens(tokens.shape, self.resolution)
        outputs = keras.KerasTensor(tokens.shape, dtype=self.compute_dtype)
        if not return_attention:
            return outputs
        size, batch = math.prod(self.attention.window_size), tokens.shape[0]
        num_windows = math.prod(padded_size(self.resolution, self.attention.window_size)) // size
        windows = keras.KerasTensor((None if batch is None else batch * num_windows, size, tokens.shape[2]))
        _, probabilities = attention_output_spec(windows, self.attention.num_heads, self.compute_dtype, True)
        return outputs, probabilities

    def get_config(self):
        attention = self.attention.get_config()
        shared = ("num_heads", "window_size", "version", "pretrained_window_size", "qkv_bias", "attention_dropout_rate")
        return {
            **super().get_config(),
            **{name: attention[name] for name in shared},
            "mlp_dim": self.mlp_dim,
            "resolution": list(self.resolution),
            "shift": list(self.shift),
            "pad_first": self.pad_first,
            "masked": self.masked,
            "activation": self.activation,
            "dropout_rate": self.dropout_rate,
            "drop_path_rate": self.drop_path_rate,
            "layer_norm_epsilon": self.layer_norm_epsilon,
        }
