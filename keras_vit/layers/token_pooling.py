"""From tokens to one vector an image, without weights."""

import keras
from keras import ops

from keras_vit.validation import check_choice


@keras.saving.register_keras_serializable(package="keras_vit")
class TokenPooling(keras.layers.Layer):
    """Takes one token, or the mean of the patch tokens.

    Args:
        pooling: `token`, `gap` or `token_gap`: the token and the mean, side by side.
        index: int. With `token` and `token_gap`: which one. Default 0, the class token.
        num_prefix_tokens: int. With `gap` and `token_gap`: tokens at the front that the mean leaves out. Default 0.

    Call arguments:
        tokens: tensor `(batch, tokens, hidden_dim)`.

    Returns:
        Tensor `(batch, hidden_dim)`, with `token_gap` `(batch, 2 * hidden_dim)`. The mean is taken in float32.
    """

    def __init__(self, pooling, index=0, num_prefix_tokens=0, **kwargs):
        super().__init__(**kwargs)
        self.input_spec = keras.layers.InputSpec(ndim=3)  # tokens (batch, tokens, hidden_dim)
        self.pooling = check_choice(pooling, ("token", "gap", "token_gap"), "pooling")
        self.index = index
        self.num_prefix_tokens = num_prefix_tokens
        self.built = True

    def call(self, tokens):
        if self.pooling == "token":
            return tokens[:, self.index]
        mean = ops.mean(ops.cast(tokens[:, self.num_prefix_tokens :], "float32"), axis=1)
        mean = ops.cast(mean, self.compute_dtype)
        return mean if self.pooling == "gap" else ops.concatenate([tokens[:, self.index], mean], axis=-1)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[2] * (2 if self.pooling == "token_gap" else 1))

    def get_config(self):
        return {
            **super().get_config(),
            "pooling": self.pooling,
            "index": self.index,
            "num_prefix_tokens": self.num_prefix_tokens,
        }
