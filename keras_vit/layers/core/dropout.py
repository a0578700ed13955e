"""Dropout and stochastic depth with independent masks on every replica."""

import keras
from keras import ops

from keras_vit.backend.runtime import replica_id
from keras_vit.validation import check_rate

# An odd number far from the step counter's range, so that no two replicas meet in one stream.
_REPLICA_STRIDE = 1_640_531_527


class ReplicaSeedGenerator(keras.random.SeedGenerator):
    """`SeedGenerator` that gives every `tf.distribute` replica its own stream.

    Keras mirrors the state, so under `MirroredStrategy` its own generator draws one mask for all replicas.
    """

    def next(self, ordered=True):
        seed = super().next(ordered)
        offset = ops.cast(ops.stack([replica_id() * _REPLICA_STRIDE, 0]), seed.dtype)
        return ops.add(seed, offset)


@keras.saving.register_keras_serializable(package="keras_vit")
class Dropout(keras.layers.Layer):
    """`keras.layers.Dropout` whose replicas draw independent masks.

    Args:
        rate: float in [0, 1). The fraction that is set to zero; the rest is scaled by `1 / (1 - rate)`.
        noise_shape: tuple or `None`. Shape of the mask, `None` for sides of the input, 1 for axes along which the mask
            is constant. `(None, 1, 1)` drops whole samples: stochastic depth.
        seed: int or `None`.

    Call arguments:
        inputs: tensor of any shape.
        training: bool. Unless it is `True` the layer is the identity.

    Returns:
        Tensor of the shape of `inputs`.

    Source: Huang et al., "Deep Networks with Stochastic Depth" (arXiv:1603.09382), for the shape `(None, 1, 1)`.
    """

    def __init__(self, rate, noise_shape=None, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.rate = check_rate(rate, "rate")
        self.noise_shape = None if noise_shape is None else tuple(noise_shape)
        self.seed = seed
        if self.rate > 0:
            self.seed_generator = ReplicaSeedGenerator(seed)
        self.built = True

    def call(self, inputs, training=False):
        if not training or self.rate == 0:
            return inputs
        return keras.random.dropout(inputs, self.rate, noise_shape=self.noise_shape, seed=self.seed_generator)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self):
        return {**super().get_config(), "rate": self.rate, "noise_shape": self.noise_shape, "seed": self.seed}


def make_dropout(parent, name, rate, noise_shape=None):
    """Makes a `Dropout` as a sublayer; at rate 0 the identity function, which costs nothing to build or to call.

    Args:
        parent: the layer that it is part of, which gives it its dtype policy.
        name: str.
        rate: float in [0, 1).
        noise_shape: as for `Dropout`.
    """
    if check_rate(rate, "rate") == 0:
        return _identity
    return Dropout(rate, noise_shape, dtype=parent.dtype_policy, name=name)


def make_drop_path(parent, name, rate):
    """Makes stochastic depth for tokens `(batch, tokens, hidden_dim)`: a dropout of whole samples."""
    return make_dropout(parent, name, rate, noise_shape=(None, 1, 1))


def _identity(inputs, training=False):
    return inputs
