"""Dense layers as parts of other layers."""

import keras

from keras_vit.backend.skip_init import skippable


def make_dense(parent, name, units, kernel_initializer="glorot_uniform", use_bias=True):
    """Makes a dense sublayer with the dtype policy of its parent, for `keras_vit.backend.ops.linear`.

    Args:
        parent: the layer that it is part of.
        name: str.
        units: int.
        kernel_initializer: as for `keras.layers.Dense`. Default `glorot_uniform`.
        use_bias: bool. Default True.
    """
    return keras.layers.Dense(
        units,
        use_bias=use_bias,
        kernel_initializer=skippable(kernel_initializer),
        bias_initializer=skippable("zeros"),
        dtype=parent.dtype_policy,
        name=name,
    )


def make_qkv(parent, hidden_dim, use_bias=True):
    """Makes the built projection from tokens to queries, keys and values, in this order, each with its heads together.

    Args:
        parent: the attention layer that it is part of.
        hidden_dim: int. Width of the tokens.
        use_bias: bool. Default True.
    """
    # Glorot's range for each of the three square blocks, not for the matrix of all three.
    initializer = keras.initializers.VarianceScaling(2.0, mode="fan_avg", distribution="uniform")
    qkv = make_dense(parent, "qkv", 3 * hidden_dim, initializer, use_bias)
    qkv.build((None, None, hidden_dim))
    return qkv
