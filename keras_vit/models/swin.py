"""From a `SwinConfig` to a plain functional `keras.Model`."""

import keras

from keras_vit.layers import LayerNormalization, PatchEmbedding, Patches, PatchMerging, SwinBlock, TokenPooling
from keras_vit.layers.windows import MASKED
from keras_vit.loss_check import check_loss_at_compile
from keras_vit.metadata import LAYER_NAME, Metadata
from keras_vit.models.heads import classifier
from keras_vit.models.vit import default_input_spec


def build_swin(config, input_spec=None, labels=None, origin=None, dtype=None, name="swin"):
    """Builds a Swin Transformer.

    Every stage of the forward pass is a named layer, in this order: `metadata`, `patches`, `patch_encoder`, for
    every stage s its `encoder_block_{i}`, counted through all stages, and `stage_{s}`, an identity, with
    `patch_merging_{s}` in front of all but the first; `encoder_norm`, `representation`, `head`.

    Args:
        config: `SwinConfig`.
        input_spec: `InputSpec` or `None`: pixels to -1 .. 1, bicubic, no crop margin.
        labels: class names in the order of the logits, or `None`.
        origin: str or `None`. Where the weights come from.
        dtype: dtype policy of all layers, or `None`: the global one. The head computes in its variable dtype,
            so the logits of mixed precision are float32.
        name: str. The model's name.

    Returns:
        A `keras.Model` from `(batch, height, width, channels)` images, normalised, to `(batch, num_classes)`
        logits, or to the representation `(batch, embed_dim * 2 ** (stages - 1))` where `num_classes` is 0.
    """
    policy = keras.dtype_policies.get(dtype)
    input_spec = input_spec or default_input_spec(config)
    images = keras.Input((*config.image_size, config.num_channels), name="images")
    x = Metadata(config, input_spec, labels, origin, dtype=policy, name=LAYER_NAME)(images)
    x = Patches(config.patch_size, dtype=policy, name="patches")(x)
    x = PatchEmbedding(
        config.embed_dim, config.dropout_rate, config.layer_norm_epsilon, dtype=policy, name="patch_encoder"
    )(x)
    for stage in range(len(config.depths)):
        x = _stage(config, stage, x, policy)
    x = LayerNormalization(epsilon=config.layer_norm_epsilon, dtype=policy, name="encoder_norm")(x)
    x = TokenPooling("gap", dtype=policy, name="representation")(x)
    if config.num_classes:
        x = classifier(config, policy, "head")(x)
    return check_loss_at_compile(keras.Model(images, x, name=name))


def _stage(config, stage, tokens, policy):
    """One stage, the merging in front of it included."""
    x, first = tokens, sum(config.depths[:stage])
    if stage:
        x = PatchMerging(
            config.resolutions[stage - 1],
            config.version,
            config.layer_norm_epsilon,
            dtype=policy,
            name=f"patch_merging_{stage}",
        )(x)
    pretrained = config.pretrained_window_sizes[stage] if config.pretrained_window_sizes else 0
    for i, drop_path_rate in enumerate(config.drop_path_rates()[first : first + config.depths[stage]]):
        x = SwinBlock(
            config.num_heads[stage],
            int(config.hidden_dims[stage] * config.mlp_ratio),
            config.resolutions[stage],
            config.windows[stage],
            shift=config.shifts[stage] if i % 2 else 0,
            pad_first=config.window_rule == "huggingface",
            # transformers adds the mask of version 2 twice.
            masked=2 * MASKED if config.window_rule == "huggingface" and config.version == 2 else MASKED,
            version=config.version,
            pretrained_window_size=pretrained or None,
            qkv_bias=config.qkv_bias,
            activation=config.activation,
            dropout_rate=config.dropout_rate,
            attention_dropout_rate=config.attention_dropout_rate,
            drop_path_rate=drop_path_rate,
            layer_norm_epsilon=config.layer_norm_epsilon,
            dtype=policy,
            name=f"encoder_block_{first + i}",
        )(x)
    # Not `keras.layers.Identity`: its config cannot hold a dtype policy.
    return keras.layers.Activation("linear", dtype=policy, name=f"stage_{stage}")(x)
