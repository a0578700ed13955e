"""Masked autoencoders: a Vision Transformer learns without labels, by painting the patches that it is not shown.

Source: He et al., "Masked Autoencoders Are Scalable Vision Learners" (arXiv:2111.06377); facebookresearch/mae
`models_mae.py`.
"""

import keras
import numpy as np
from keras import ops

from keras_vit.layers import LayerNormalization, TransformerEncoder
from keras_vit.layers.dropout import ReplicaSeedGenerator
from keras_vit.layers.positions import sincos2d
from keras_vit.metadata import metadata
from keras_vit.models import ViTConfig, features
from keras_vit.validation import check_positive, check_rate

_VARIANCE_EPSILON = 1e-6
_MLP_RATIO = 4


@keras.saving.register_keras_serializable(package="keras_vit")
class MaskedAutoencoder(keras.Model):
    """A model that trains an encoder by what a small decoder makes of the visible patches of its images.

    `compile(optimizer)`, without a loss, and `fit` as ever; labels are left alone. The loss is the mean squared error
    of the pixels of the hidden patches. Afterwards take `encoder`; the decoder has done its work.

    The encoder sees the visible patches alone, a quarter of them: that is what makes training fast. Nothing is put back
    in the order of the image: the decoder is handed positions, and to its blocks the order means nothing.

    Args:
        encoder: Vision Transformer of this library, with or without a head, which has no part in it.
        ratio: float in (0, 1). How many of the patches are hidden, rounded up. Default 0.75.
        decoder_dim, decoder_layers, decoder_heads: ints. Width, blocks and heads of the decoder; its MLPs are four
            times as wide. Default 512, 8 and 16.
        normalize_targets: bool. Whether a patch is to be painted less its mean and over its deviation. Default True.
        seed: int or `None`. Of the patches that are hidden.
        name: str.

    Call arguments:
        images: tensor `(batch, height, width, channels)`.
        noise: tensor `(batch, patches)` or `None`. Patches of the smallest numbers are visible. Default `None`: drawn
            in training, and the same ones for every batch of an evaluation.

    Returns:
        A dict: `prediction`, float32 `(batch, hidden, patch_height * patch_width * channels)`, and `hidden`, int32
        `(batch, hidden)`, the numbers of these patches, row by row of the image.

    Raises:
        ValueError: if the encoder is no Vision Transformer with pre-norm blocks, or nothing would be hidden or visible.
    """

    def __init__(
        self,
        encoder,
        ratio=0.75,
        decoder_dim=512,
        decoder_layers=8,
        decoder_heads=16,
        normalize_targets=True,
        seed=None,
        name="masked_autoencoder",
    ):
        super().__init__(name=name)
        config = metadata(encoder).config
        if type(config) is not ViTConfig or config.norm_placement != "pre":
            raise ValueError(f"an encoder must be a Vision Transformer with pre-norm blocks. Received: {config!r}")
        patches = config.grid_size[0] * config.grid_size[1]
        self.num_visible = int(patches * (1 - check_rate(ratio, "ratio")))
        if not 0 < self.num_visible < patches:
            raise ValueError(f"some of {patches} patches must be hidden, and some visible. Received: ratio={ratio}")
        for value, key in ((decoder_dim, "decoder_dim"), (decoder_layers, "decoder_layers")):
            check_positive(value, key)
        self.encoder, self.ratio, self.decoder_dim = encoder, float(ratio), decoder_dim
        self.decoder_layers, self.decoder_heads = decoder_layers, decoder_heads
        self.normalize_targets, self.seed = bool(normalize_targets), seed
        self._num_prefix = config.num_prefix_tokens
        self._embed, self._blocks = _parts(encoder, config)
        self._make_decoder(config, patches)
        self._seeds = ReplicaSeedGenerator(seed)
        self.built = True

    def _make_decoder(self, config, patches):
        policy, width = self.encoder.get_layer("patch_encoder").dtype_policy, self.decoder_dim
        self._positions = sincos2d(config.grid_size, width, endpoint=False)
        self._mask_token = self.add_weight(
            name="mask_token", shape=(1, 1, width), initializer=keras.initializers.RandomNormal(stddev=0.02)
        )
        patch = config.patch_size[0] * config.patch_size[1] * config.num_channels
        block = {"layer_norm_epsilon": config.layer_norm_epsilon, "activation": config.activation, "dtype": policy}
        self._enter = keras.layers.Dense(width, dtype=policy, name="decoder_embedding")
        self._decoder = [
            TransformerEncoder(self.decoder_heads, _MLP_RATIO * width, name=f"decoder_block_{i}", **block)
            for i in range(self.decoder_layers)
        ]
        self._norm = LayerNormalization(epsilon=config.layer_norm_epsilon, dtype=policy, name="decoder_norm")
        self._paint = keras.layers.Dense(patch, dtype=policy, name="decoder_prediction")
        self._enter.build((None, None, config.hidden_dim))
        for layer in (*self._decoder, self._norm, self._paint):
            layer.build((None, self._num_prefix + patches, width))

    @property
    def trained_model(self):
        """The encoder, which a `fit` is for."""
        return self.encoder

    @property
    def changing_variables(self):
        """All that training changes but the optimizer's: of encoder, decoder and the drawing of masks."""
        return self.variables

    def call(self, images, training=False, noise=None):
        tokens = self._embed(images, training=training)["patch_encoder"]
        prefix, patches = tokens[:, : self._num_prefix], tokens[:, self._num_prefix :]
        if noise is None:
            seed = self._seeds if training else self.seed or 0
            noise = keras.random.uniform(ops.shape(patches)[:2], dtype="float32", seed=seed)
        order = ops.argsort(noise, axis=1)
        visible, hidden = order[:, : self.num_visible], order[:, self.num_visible :]
        encoded = ops.concatenate([prefix, ops.take_along_axis(patches, visible[..., None], axis=1)], axis=1)
        for layer in self._blocks:
            encoded = layer(encoded, training=training)
        return {"prediction": self._decode(encoded, order, training), "hidden": hidden}

    def _decode(self, encoded, order, training):
        """What the hidden patches look like, from what the encoder makes of the visible ones."""
        tokens = self._enter(encoded)
        positions = ops.take(ops.cast(self._positions[0], tokens.dtype), order, axis=0)
        masked = positions[:, self.num_visible :] + ops.cast(self._mask_token, tokens.dtype)
        prefix, visible = tokens[:, : self._num_prefix], tokens[:, self._num_prefix :]
        tokens = ops.concatenate([prefix, visible + positions[:, : self.num_visible], masked], axis=1)
        for block in self._decoder:
            tokens = block(tokens, training=training)
        shown = self._num_prefix + self.num_visible
        return ops.cast(self._paint(self._norm(tokens[:, shown:])), "float32")

    def targets(self, images):
        """What is to be painted, float32 `(batch, patches, patch_height * patch_width * channels)`."""
        pixels = ops.cast(self.encoder.get_layer("patches")(images), "float32")
        if not self.normalize_targets:
            return pixels
        mean = ops.mean(pixels, axis=-1, keepdims=True)
        # PyTorch's variance, over one number less.
        variance = ops.sum(ops.square(pixels - mean), axis=-1, keepdims=True) / (pixels.shape[-1] - 1)
        return (pixels - mean) / ops.sqrt(variance + _VARIANCE_EPSILON)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        targets = ops.take_along_axis(self.targets(x), y_pred["hidden"][..., None], axis=1)
        loss = ops.mean(ops.square(y_pred["prediction"] - targets), axis=(1, 2))
        if sample_weight is not None:
            loss = loss * ops.cast(sample_weight, loss.dtype)
        return sum([ops.mean(loss), *self.losses])

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        return self.get_metrics_result()

    def paint(self, images):
        """Images as the model knows them from their visible patches.

        Args:
            images: array `(batch, height, width, channels)`, normalised.

        Returns:
            Two float32 arrays of that shape: the images with their hidden patches grey (0), and with the patches that
            were painted instead, of a patch's own mean and deviation where targets are normalised.
        """
        config = metadata(self.encoder).config
        (rows, columns), (height, width) = config.grid_size, config.patch_size
        result = self(images, training=False)
        pixels = ops.convert_to_numpy(self.encoder.get_layer("patches")(images)).astype("float32")
        painted, hidden = (ops.convert_to_numpy(result[key]) for key in ("prediction", "hidden"))
        if self.normalize_targets:
            true = np.take_along_axis(pixels, hidden[..., None], axis=1)
            painted = painted * np.sqrt(true.var(-1, ddof=1, keepdims=True) + _VARIANCE_EPSILON)
            painted = painted + true.mean(-1, keepdims=True)
        shown, whole = pixels.copy(), pixels.copy()
        np.put_along_axis(shown, hidden[..., None], 0.0, axis=1)
        np.put_along_axis(whole, hidden[..., None], painted, axis=1)
        shape = (-1, rows, columns, height, width, config.num_channels)
        cut = (rows * height, columns * width, config.num_channels)
        return tuple(a.reshape(shape).transpose(0, 1, 3, 2, 4, 5).reshape(-1, *cut) for a in (shown, whole))

    def get_config(self):
        names = ("ratio", "decoder_dim", "decoder_layers", "decoder_heads", "normalize_targets", "seed", "name")
        return {"encoder": keras.saving.serialize_keras_object(self.encoder), **{n: getattr(self, n) for n in names}}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        encoder = keras.saving.deserialize_keras_object(config["encoder"], custom_objects)
        return cls(**{**config, "encoder": encoder})


def _parts(encoder, config):
    """The model from images to tokens with positions, and the layers that the visible ones pass."""
    names = [f"encoder_block_{i}" for i in range(config.num_layers)]
    names = ["embedding_norm"] * config.embedding_norm + names + ["encoder_norm"] * (not config.pool_before_norm)
    return features(encoder, "patch_encoder"), [encoder.get_layer(name) for name in names]
