"""Patches between the stages of a Swin Transformer: embedding and merging."""

import math

import keras
from keras import ops

from keras_vit.layers.core.composite import CompositeLayer
from keras_vit.layers.core.dense import make_dense
from keras_vit.layers.core.dropout import make_dropout
from keras_vit.layers.core.normalization import LayerNormalization
from keras_vit.layers.swin.block import check_tokens
from keras_vit.layers.swin.windows import pad_grid, padded_size
from keras_vit.validation import as_pair, check_choice, check_positive


@keras.saving.register_keras_serializable(package="keras_vit")
class PatchEmbedding(CompositeLayer):
    """Projects patches linearly and normalizes them; positions enter in the bias of the attention.

    Args:
        hidden_dim: int. Width of a token.
        dropout_rate: float in [0, 1). Default 0.
        layer_norm_epsilon: float. Default 1e-5.

    Call arguments:
        patches: tensor `(batch, patches, patch_dim)`.
        training: bool.

    Returns:
        Tensor `(batch, patches, hidden_dim)`.

    Source: Liu et al., arXiv:2103.14030, section 3.1; `PatchEmbed` of microsoft/Swin-Transformer with its norm.
    """

    def __init__(self, hidden_dim, dropout_rate=0.0, layer_norm_epsilon=1e-5, **kwargs):
        super().__init__(**kwargs)
        self.input_spec = keras.layers.InputSpec(ndim=3)  # patches (batch, patches, patch_dim)
        self.hidden_dim = check_positive(hidden_dim, "hidden_dim")
        self.dropout_rate = dropout_rate
        self.layer_norm_epsilon = layer_norm_epsilon
        self.projection = make_dense(self, "projection", hidden_dim, "lecun_normal")
        self.norm = LayerNormalization(epsilon=layer_norm_epsilon, dtype=self.dtype_policy, name="norm")
        self.dropout = make_dropout(self, "dropout", dropout_rate)

    def build(self, input_shape):
        self.projection.build(input_shape)
        self.norm.build((*input_shape[:-1], self.hidden_dim))

    def call(self, patches, training=False):
        return self.dropout(self.norm(self.projection(patches)), training=training)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.hidden_dim)

    def get_config(self):
        return {
            **super().get_config(),
            "hidden_dim": self.hidden_dim,
            "dropout_rate": self.dropout_rate,
            "layer_norm_epsilon": self.layer_norm_epsilon,
        }


@keras.saving.register_keras_serializable(package="keras_vit")
class PatchMerging(CompositeLayer):
    """Merges every two by two tokens into one and doubles the width.

    The four are concatenated in the order (0, 0), (1, 0), (0, 1), (1, 1) of (row, column). Version 1
    normalizes before the projection, version 2 after it. An odd grid is padded with zeros.

    Args:
        resolution: int or `(h, w)`, the grid of the tokens.
        version: 1 or 2. Default 1.
        layer_norm_epsilon: float. Default 1e-5.

    Call arguments:
        tokens: tensor `(batch, h * w, hidden_dim)`, row by row.

    Returns:
        Tensor `(batch, ceil(h / 2) * ceil(w / 2), 2 * hidden_dim)`.

    Raises:
        ValueError: if the tokens do not fill the grid.

    Source: Liu et al., arXiv:2103.14030, section 3.1; `PatchMerging` of microsoft/Swin-Transformer.
    """

    def __init__(self, resolution, version=1, layer_norm_epsilon=1e-5, **kwargs):
        super().__init__(**kwargs)
        self.resolution = as_pair(resolution, "resolution")
        self.version = check_choice(version, (1, 2), "version")
        self.layer_norm_epsilon = layer_norm_epsilon
        self.norm = LayerNormalization(epsilon=layer_norm_epsilon, dtype=self.dtype_policy, name="norm")

    def build(self, input_shape):
        check_tokens(input_shape, self.resolution)
        hidden_dim = input_shape[-1]
        self.reduction = make_dense(self, "reduction", 2 * hidden_dim, use_bias=False)
        self.reduction.build((None, None, 4 * hidden_dim))
        self.norm.build((None, None, (4 if self.version == 1 else 2) * hidden_dim))

    def call(self, tokens):
        check_tokens(tokens.shape, self.resolution)
        hidden_dim = tokens.shape[-1]
        h, w = padded_size(self.resolution, (2, 2))
        grid = pad_grid(ops.reshape(tokens, (-1, *self.resolution, hidden_dim)), (h, w))
        # Swapping rows and columns puts two neighbors side by side: column, row, channel.
        x = ops.transpose(ops.reshape(grid, (-1, 2, w, hidden_dim)), (0, 2, 1, 3))
        x = ops.reshape(x, (-1, h * w // 4, 4 * hidden_dim))
        return self.reduction(self.norm(x)) if self.version == 1 else self.norm(self.reduction(x))

    def compute_output_shape(self, input_shape):
        check_tokens(input_shape, self.resolution)
        return (input_shape[0], math.prod(-(-side // 2) for side in self.resolution), 2 * input_shape[2])

    def get_config(self):
        return {
            **super().get_config(),
            "resolution": list(self.resolution),
            "version": self.version,
            "layer_norm_epsilon": self.layer_norm_epsilon,
        }
