"""Masked autoencoders: a Vision Transformer learns without labels, by painting the patches that it is not shown.

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
from keras_vit.models import ViTConfig, features
from keras_vit.validation import check_rate

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
        ratio: float in (0, 1). How many of the patches are hidden: `int(patches * (1 - ratio))` are visible. Default
            0.75.
        decoder_dim, decoder_layers, decoder_heads: ints. Width, a multiple of 4, blocks and heads of the decoder; its
            MLPs are four times as wide. Default 512, 8 and 16.
        normalize_targets: bool. Whether a patch is to be painted less its mean and over its deviation. Default True.
        seed: int or `None`. Of the patches that are hidden.
        name: str.

    Call arguments:
        images: tensor `(batch, height, width, channels)`.
        noise: tensor `(batch, patches)` or `None`. Patches of the smallest numbers are visible. Default `None`: drawn
            in training, and the same ones for every image of an evaluation, so that its loss is always the same.

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
        check_decoder(decoder_dim, decoder_layers, decoder_heads)
        self.encoder, self.ratio, self.decoder_dim = encoder, float(ratio), decoder_dim
        self.decoder_layers, self.decoder_heads = decoder_layers, decoder_heads
        self.normalize_targets, self.seed = bool(normalize_targets), seed
        self._num_prefix = config.num_prefix_tokens
        self._embed, self._blocks = _parts(encoder, config)
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
        patch = config.patch_size[0] * config.patch_size[1] * config.num_channels
        block = {"layer_norm_epsilon": config.layer_norm_epsilon, "activation": config.activation, "dtype": policy}
        self._enter = make_dense(parent, "decoder_embedding", width)
        self._decoder = [
            TransformerEncoder(self.decoder_heads, _MLP_RATIO * width, name=f"decoder_block_{i}", **block)
            for i in range(self.decoder_layers)
        ]
        self._norm = LayerNormalization(epsilon=config.layer_norm_epsilon, dtype=policy, name="decoder_norm")
        self._paint = make_dense(parent, "decoder_prediction", patch)
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
        order = ops.argsort(self._noise(patches, training) if noise is None else noise, axis=1)
        visible, hidden = order[:, : self.num_visible], order[:, self.num_visible :]
        encoded = ops.concatenate([prefix, _rows(patches, visible)], axis=1)
        for layer in self._blocks:
            encoded = layer(encoded, training=training)
        return {"prediction": self._decode(encoded, order, training), "hidden": hidden}

    def _noise(self, patches, training):
        """float32 `(batch, patches)`."""
        if training:
            return keras.random.uniform(ops.shape(patches)[:2], dtype="float32", seed=self._seeds)
        fixed = np.random.default_rng(0).random((1, patches.shape[1])).astype("float32")
        return ops.repeat(ops.convert_to_tensor(fixed), ops.shape(patches)[0], axis=0)

    def _decode(self, encoded, order, training):
        """What the hidden patches look like, from what the encoder makes of the visible ones."""
        tokens = linear(self._enter, ops.cast(encoded, self._enter.compute_dtype))
        positions = ops.take(ops.cast(self._positions[0], tokens.dtype), order, axis=0)
        masked = positions[:, self.num_visible :] + ops.cast(self._mask_token, tokens.dtype)
        prefix, visible = tokens[:, : self._num_prefix], tokens[:, self._num_prefix :]
        tokens = ops.concatenate([prefix, visible + positions[:, : self.num_visible], masked], axis=1)
        for block in self._decoder:
            tokens = block(tokens, training=training)
        shown = self._num_prefix + self.num_visible
        return ops.cast(linear(self._paint, self._norm(tokens[:, shown:])), "float32")

    def targets(self, images):
        """What is to be painted, float32 `(batch, patches, patch_height * patch_width * channels)`."""
        pixels = self._pixels(images)
        if not self.normalize_targets:
            return pixels
        mean = ops.mean(pixels, axis=-1, keepdims=True)
        # PyTorch's variance, over one number less.
        variance = ops.sum(ops.square(pixels - mean), axis=-1, keepdims=True) / (pixels.shape[-1] - 1)
        return (pixels - mean) / ops.sqrt(variance + _VARIANCE_EPSILON)

    def _pixels(self, images):
        """The patches in float32: calling the layer would round the images to its own type."""
        return self.encoder.get_layer("patches").call(ops.cast(images, "float32"))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        if self.compiled and (self._compile_loss is not None or self._compile_metrics is not None):
            raise ValueError("a masked autoencoder has its own loss and no metrics. Received: compile(loss or metrics)")
        targets = _rows(self.targets(x), y_pred["hidden"])
        weights = None if sample_weight is None else ops.reshape(sample_weight, (-1, 1))
        # Keras' losses also know how many replicas there are.
        loss = self._distance(targets, y_pred["prediction"], weights)
        return sum([self._aggregate_additional_loss(added) for added in self.losses], loss)

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
        pixels = ops.convert_to_numpy(self._pixels(images)).copy()
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


def _rows(tokens, index):
    """`tokens[i, index[i, j]]`, whole rows at once: `take_along_axis` would look up number by number."""
    count, width = tokens.shape[1:]
    starts = count * ops.arange(ops.shape(index)[0], dtype=index.dtype)
    return ops.take(ops.reshape(tokens, (-1, width)), index + starts[:, None], axis=0)


def make_autoencoder(encoder, recipe):
    """The model that trains the encoder of a recipe with a `MaskingConfig`.

    Args:
        encoder: a model of this library.
        recipe: `Recipe`. With `training.gradient_checkpointing` the decoder's blocks too are computed again on the way
            back.
    """
    masking = recipe.masking
    names = [f"decoder_block_{i}" for i in range(masking.decoder_layers)]
    wanted = recipe.training.gradient_checkpointing
    with keras.RematScope("list_of_layers", layer_names=names) if wanted else contextlib.nullcontext():
        return MaskedAutoencoder(encoder, **dataclasses.asdict(masking), seed=recipe.training.seed)
