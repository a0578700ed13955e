"""Masked autoencoders (MAE): self-supervised pretraining by reconstructing masked patches.

Source: He et al., "Masked Autoencoders Are Scalable Vision Learners" (arXiv:2111.06377); facebookresearch/mae
`models_mae.py`.
"""

import contextlib
import dataclasses

import keras
import numpy as np
from keras import ops

from keras_vit.backend.ops import linear
from keras_vit.config.masking import check_decoder
from keras_vit.layers import LayerNormalization, TransformerEncoder
from keras_vit.layers.core.dense import make_dense
from keras_vit.layers.core.dropout import ReplicaSeedGenerator
from keras_vit.layers.vit.positions import sincos2d
from keras_vit.metadata import metadata
from keras_vit.models import features
from keras_vit.validation import check_rate

_VARIANCE_EPSILON = 1e-6
_MLP_RATIO = 4


@keras.saving.register_keras_serializable(package="keras_vit")
class MaskedAutoencoder(keras.Model):
    """Trains an encoder together with a small decoder that reconstructs masked patches from the visible ones.

    Use `compile(optimizer)` without a loss, and `fit` as usual; labels are ignored. The loss is the mean squared error
    of the pixels of masked patches. After training use `encoder` and discard the decoder.

    The encoder only processes the visible patches, a quarter by default, which makes training fast. Tokens are not
    restored to their order in the image: the decoder adds their position embeddings, and its blocks do not depend on
    the order.

    Args:
        encoder: Vision Transformer of this library. A head, if there is one, is not used.
        ratio: float in (0, 1). Fraction of masked patches (MAE `mask_ratio`): `int(patches * (1 - ratio))` are visible.
            Default 0.75.
        decoder_dim, decoder_layers, decoder_heads: ints. Width, a multiple of 4, number of blocks and of heads of the
            decoder (MAE `decoder_embed_dim`, `decoder_depth`, `decoder_num_heads`); its MLPs are four times as wide.
            Default 512, 8 and 16.
        normalize_targets: bool. Normalizes the target of every patch by the mean and standard deviation of its pixels
            (MAE `norm_pix_loss`). Default True.
        seed: int or `None`. Seed of the random masks.
        name: str.

    Call arguments:
        images: tensor `(batch, height, width, channels)`.
        noise: tensor `(batch, patches)` or `None`. The patches with the smallest values are visible. Default `None`:
            random in training; in evaluation the same for every image, so that the loss is reproducible.

    Returns:
        A dict: `prediction`, float32 `(batch, masked, patch_height * patch_width * channels)`, and `masked`, int32
        `(batch, masked)`, the indices of the masked patches in row-major order.

    Raises:
        ValueError: if the encoder is not a Vision Transformer with pre-norm blocks, or `ratio` leaves no masked or no
            visible patch.
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
        if not config.can_mask_patches:
            raise ValueError(f"encoder must be a Vision Transformer with pre-norm blocks. Received: {config!r}")
        patches = config.grid_size[0] * config.grid_size[1]
        self.num_visible = int(patches * (1 - check_rate(ratio, "ratio")))
        if not 0 < self.num_visible < patches:
            raise ValueError(
                f"ratio must mask at least one and keep at least one of {patches} patches. Received: ratio={ratio}"
            )
        check_decoder(decoder_dim, decoder_layers, decoder_heads)
        self.encoder, self.ratio, self.decoder_dim = encoder, float(ratio), decoder_dim
        self.decoder_layers, self.decoder_heads = decoder_layers, decoder_heads
        self.normalize_targets, self.seed = bool(normalize_targets), seed
        self._num_prefix = config.num_prefix_tokens
        # Saved files hold the names of these attributes.
        self._embed, self._blocks = _embedding_and_blocks(encoder, config)
        self._make_decoder(config, patches)
        self._seeds, self._distance = ReplicaSeedGenerator(seed), keras.losses.MeanSquaredError()
        self.built = True

    def _make_decoder(self, config, patches):
        parent, width = self.encoder.get_layer("patch_encoder"), self.decoder_dim
        policy = parent.dtype_policy
        self._positions = sincos2d(config.grid_size, width, endpoint=False)
        self._mask_token = self.add_weight(
            name="mask_token", shape=(1, 1, width), initializer=keras.initializers.RandomNormal(stddev=0.02)
        )
        patch_dim = config.patch_size[0] * config.patch_size[1] * config.num_channels
        block = {"layer_norm_epsilon": config.layer_norm_epsilon, "activation": config.activation, "dtype": policy}
        self._enter = make_dense(parent, "decoder_embedding", width)
        self._decoder = [
            TransformerEncoder(self.decoder_heads, _MLP_RATIO * width, name=f"decoder_block_{i}", **block)
            for i in range(self.decoder_layers)
        ]
        self._norm = LayerNormalization(epsilon=config.layer_norm_epsilon, dtype=policy, name="decoder_norm")
        self._paint = make_dense(parent, "decoder_prediction", patch_dim)
        self._enter.build((None, None, config.hidden_dim))
        for layer in (*self._decoder, self._norm, self._paint):
            layer.build((None, self._num_prefix + patches, width))

    @property
    def trained_model(self):
        """The encoder."""
        return self.encoder

    @property
    def changing_variables(self):
        """The variables that training changes, without those of the optimizer: encoder, decoder and mask seeds."""
        return self.variables

    def call(self, images, training=False, noise=None):
        tokens = self._embed(images, training=training)["patch_encoder"]
        prefix, patches = tokens[:, : self._num_prefix], tokens[:, self._num_prefix :]
        order = ops.argsort(self._noise(patches, training) if noise is None else noise, axis=1)
        visible, masked = order[:, : self.num_visible], order[:, self.num_visible :]
        encoded = ops.concatenate([prefix, _gather(patches, visible)], axis=1)
        for layer in self._blocks:
            encoded = layer(encoded, training=training)
        return {"prediction": self._decode(encoded, order, training), "masked": masked}

    def _noise(self, patches, training):
        """Returns float32 `(batch, patches)`, random in training and fixed otherwise."""
        if training:
            return keras.random.uniform(ops.shape(patches)[:2], dtype="float32", seed=self._seeds)
        fixed = np.random.default_rng(0).random((1, patches.shape[1])).astype("float32")
        return ops.repeat(ops.convert_to_tensor(fixed), ops.shape(patches)[0], axis=0)

    def _decode(self, encoded, order, training):
        """Predicts the masked patches from the encoded visible ones."""
        tokens = linear(self._enter, ops.cast(encoded, self._enter.compute_dtype))
        positions = ops.take(ops.cast(self._positions[0], tokens.dtype), order, axis=0)
        mask_tokens = positions[:, self.num_visible :] + ops.cast(self._mask_token, tokens.dtype)
        prefix, visible = tokens[:, : self._num_prefix], tokens[:, self._num_prefix :]
        tokens = ops.concatenate([prefix, visible + positions[:, : self.num_visible], mask_tokens], axis=1)
        for block in self._decoder:
            tokens = block(tokens, training=training)
        first_masked = self._num_prefix + self.num_visible
        return ops.cast(linear(self._paint, self._norm(tokens[:, first_masked:])), "float32")

    def targets(self, images):
        """Computes the targets of all patches, float32 `(batch, patches, patch_height * patch_width * channels)`."""
        pixels = self._pixels(images)
        if not self.normalize_targets:
            return pixels
        mean = ops.mean(pixels, axis=-1, keepdims=True)
        # PyTorch's unbiased variance.
        variance = ops.sum(ops.square(pixels - mean), axis=-1, keepdims=True) / (pixels.shape[-1] - 1)
        return (pixels - mean) / ops.sqrt(variance + _VARIANCE_EPSILON)

    def _pixels(self, images):
        """Splits images into patches in float32; calling the layer would cast them to its compute dtype."""
        return self.encoder.get_layer("patches").call(ops.cast(images, "float32"))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        if self.compiled and (self._compile_loss is not None or self._compile_metrics is not None):
            raise ValueError(
                "compile a masked autoencoder without loss and metrics; it has its own loss. Received: one of them"
            )
        targets = _gather(self.targets(x), y_pred["masked"])
        weights = None if sample_weight is None else ops.reshape(sample_weight, (-1, 1))
        # A loss of Keras also accounts for the number of replicas.
        loss = self._distance(targets, y_pred["prediction"], weights)
        return sum([self._aggregate_additional_loss(extra) for extra in self.losses], loss)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        return self.get_metrics_result()

    def reconstruct(self, images):
        """Reconstructs images from their visible patches.

        Args:
            images: array `(batch, height, width, channels)`, normalized.

        Returns:
            Two float32 arrays of that shape: the images with masked patches gray (0), and with masked patches replaced
            by their reconstruction. If targets are normalized, the reconstruction uses the mean and standard deviation
            of the original patch.
        """
        config = metadata(self.encoder).config
        (rows, columns), (height, width) = config.grid_size, config.patch_size
        result = self(images, training=False)
        pixels = ops.convert_to_numpy(self._pixels(images)).copy()
        predicted, masked = (ops.convert_to_numpy(result[key]) for key in ("prediction", "masked"))
        if self.normalize_targets:
            original = np.take_along_axis(pixels, masked[..., None], axis=1)
            predicted = predicted * np.sqrt(original.var(-1, ddof=1, keepdims=True) + _VARIANCE_EPSILON)
            predicted = predicted + original.mean(-1, keepdims=True)
        visible, reconstructed = pixels.copy(), pixels.copy()
        np.put_along_axis(visible, masked[..., None], 0.0, axis=1)
        np.put_along_axis(reconstructed, masked[..., None], predicted, axis=1)
        patches = (-1, rows, columns, height, width, config.num_channels)
        shape = (-1, rows * height, columns * width, config.num_channels)
        return tuple(
            array.reshape(patches).transpose(0, 1, 3, 2, 4, 5).reshape(shape) for array in (visible, reconstructed)
        )

    def get_config(self):
        names = ("ratio", "decoder_dim", "decoder_layers", "decoder_heads", "normalize_targets", "seed", "name")
        return {"encoder": keras.saving.serialize_keras_object(self.encoder), **{n: getattr(self, n) for n in names}}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        encoder = keras.saving.deserialize_keras_object(config["encoder"], custom_objects)
        return cls(**{**config, "encoder": encoder})


def _embedding_and_blocks(encoder, config):
    """Returns the model from images to tokens with positions, and the layers that follow it."""
    names = [f"encoder_block_{i}" for i in range(config.num_layers)]
    names = ["embedding_norm"] * config.embedding_norm + names + ["encoder_norm"] * (not config.pool_before_norm)
    return features(encoder, "patch_encoder"), [encoder.get_layer(name) for name in names]


def _gather(tokens, index):
    """Gathers `tokens[i, index[i, j]]` by whole rows, faster than `take_along_axis`."""
    count, width = tokens.shape[1:]
    starts = count * ops.arange(ops.shape(index)[0], dtype=index.dtype)
    return ops.take(ops.reshape(tokens, (-1, width)), index + starts[:, None], axis=0)


def make_autoencoder(encoder, recipe):
    """Builds the `MaskedAutoencoder` of a recipe with a `MaskingConfig`.

    Args:
        encoder: a model of this library.
        recipe: `Recipe`. `training.gradient_checkpointing` also applies to the decoder's blocks.
    """
    masking = recipe.masking
    names = [f"decoder_block_{i}" for i in range(masking.decoder_layers)]
    remat = recipe.training.gradient_checkpointing
    with keras.RematScope("list_of_layers", layer_names=names) if remat else contextlib.nullcontext():
        return MaskedAutoencoder(encoder, **dataclasses.asdict(masking), seed=recipe.training.seed)
