"""Builds Vision Transformers as plain functional `keras.Model`s."""

import keras

from keras_vit.layers import (
    AttentionPooling,
    LayerNormalization,
    PatchEncoder,
    Patches,
    TokenPooling,
    TransformerEncoder,
)
from keras_vit.loss_check import check_loss_at_compile
from keras_vit.metadata import LAYER_NAME, Metadata
from keras_vit.models.heads import classifier
from keras_vit.preprocessing import InputSpec


def build_vit(config, input_spec=None, labels=None, origin=None, dtype=None, name="vit"):
    """Builds a Vision Transformer.

    Every stage of the forward pass is a named layer, in this order: `metadata`, `patches`, `patch_encoder`,
    (`embedding_norm`), `encoder_block_{i}`, `encoder_norm`, `representation`, (`pre_logits`), `head`; with a
    distillation token also `representation_dist`, `head_dist` and their mean, `logits`.

    Args:
        config: `ViTConfig`.
        input_spec: `InputSpec` or `None`: pixels to -1 .. 1, bicubic, no crop margin.
        labels: class names in the order of the logits, or `None`.
        origin: str or `None`. Where the weights come from.
        dtype: dtype policy of all layers, or `None`: the global one. The heads compute in its variable dtype,
            so the logits of mixed precision are float32.
        name: str. The model's name.

    Returns:
        A `keras.Model` from `(batch, height, width, channels)` images, normalized, to `(batch, num_classes)`
        logits, or to the representation where `num_classes` is 0.
    """
    policy = keras.dtype_policies.get(dtype)
    input_spec = input_spec or default_input_spec(config)
    images = keras.Input((*config.input_size, config.num_channels), name="images")
    x = Metadata(config, input_spec, labels, origin, dtype=policy, name=LAYER_NAME)(images)
    tokens = encode(config, x, policy)
    return check_loss_at_compile(keras.Model(images, classify(config, tokens, policy), name=name))


def default_input_spec(config):
    """Returns the preprocessing of a model with random weights: pixels to -1 .. 1, without a crop margin."""
    return InputSpec.symmetric(config.image_size, config.num_channels)


def _norm(config, policy, name):
    return LayerNormalization(epsilon=config.layer_norm_epsilon, dtype=policy, name=name)


def encode(config, images, policy):
    """Images, or the features of a stem, to tokens, `encoder_norm` included unless it follows the pooling."""
    x = Patches(config.patch_size, config.drop_remainder, config.dynamic_image_size, dtype=policy, name="patches")(
        images
    )
    x = PatchEncoder(
        config.hidden_dim,
        config.grid_size,
        class_token=config.class_token,
        distillation_token=config.distillation_token,
        num_registers=config.num_registers,
        position_embedding=config.position_embedding,
        position_on_prefix=config.position_on_prefix,
        position_resize=config.position_resize,
        patch_bias=config.patch_bias,
        dropout_rate=config.dropout_rate,
        dynamic_grid_size=config.dynamic_image_size,
        dtype=policy,
        name="patch_encoder",
    )(x)
    if config.embedding_norm:
        x = _norm(config, policy, "embedding_norm")(x)
    for i, drop_path_rate in enumerate(config.drop_path_rates()):
        x = TransformerEncoder(
            config.num_heads,
            config.mlp_dim,
            activation=config.activation,
            norm_placement=config.norm_placement,
            dropout_rate=config.dropout_rate,
            attention_dropout_rate=config.attention_dropout_rate,
            drop_path_rate=drop_path_rate,
            layer_scale_init=config.layer_scale_init,
            qk_norm=config.qk_norm,
            qkv_bias=config.qkv_bias,
            layer_norm_epsilon=config.layer_norm_epsilon,
            dtype=policy,
            name=f"encoder_block_{i}",
        )(x)
    if config.norm_placement == "pre" and not config.pool_before_norm:
        x = _norm(config, policy, "encoder_norm")(x)
    return x


def _pool(config, tokens, policy):
    """Tokens to one representation an image."""
    if config.pooling == "map":
        pooling = AttentionPooling(
            config.num_heads,
            config.mlp_dim,
            activation=config.activation,
            layer_norm_epsilon=config.layer_norm_epsilon,
            num_prefix_tokens=config.num_prefix_tokens,
            dtype=policy,
            name="representation",
        )
    else:
        pooling = TokenPooling(
            config.pooling, num_prefix_tokens=config.num_prefix_tokens, dtype=policy, name="representation"
        )
    x = pooling(tokens)
    return _norm(config, policy, "encoder_norm")(x) if config.pool_before_norm else x


def classify(config, tokens, policy):
    """Tokens to logits, or to what would enter the head where there are no classes."""
    x = _pool(config, tokens, policy)
    if config.pre_logits_dim:
        activation = config.pre_logits_activation
        x = keras.layers.Dense(config.pre_logits_dim, activation=activation, dtype=policy, name="pre_logits")(x)
    if not config.num_classes:
        return x
    if config.distillation_token:
        return distilled_logits(config, tokens, x, policy)
    return classifier(config, policy, "head", config.head_bias)(x)


def distilled_logits(config, tokens, representation, policy):
    """The logits of a model with a distillation token: the mean of two heads.

    Both are stages of the model: `keras_vit.features(model, ["head", "head_dist"])` gives them apart, as training
    with a teacher wants them.

    Args:
        config: `ViTConfig` with `distillation_token`.
        tokens: tensor `(batch, tokens, hidden_dim)` behind the last norm.
        representation: tensor `(batch, hidden_dim)`, what the first head classifies.
        policy: dtype policy.

    Returns:
        Tensor `(batch, num_classes)`.
    """
    index = int(config.class_token)
    distilled = TokenPooling("token", index=index, dtype=policy, name="representation_dist")(tokens)
    logits = [
        classifier(config, policy, "head", config.head_bias)(representation),
        classifier(config, policy, "head_dist", config.head_bias)(distilled),
    ]
    return keras.layers.Average(dtype=policy.variable_dtype, name="logits")(logits)
