"""How a recipe hides patches, and what does not go with that."""

import dataclasses

from keras_vit.models import ViTConfig
from keras_vit.validation import check_positive, check_rate


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskingConfig:
    """Training without labels, as a masked autoencoder: see `keras_vit.training.MaskedAutoencoder`.

    Args:
        ratio: float in (0, 1). How many of the patches are hidden. Default 0.75.
        decoder_dim, decoder_layers, decoder_heads: ints. The first is a multiple of 4. Default 512, 8 and 16.
        normalize_targets: bool. Whether patches are painted less their mean and over their deviation. Default True.
    """

    ratio: float = 0.75
    decoder_dim: int = 512
    decoder_layers: int = 8
    decoder_heads: int = 16
    normalize_targets: bool = True

    def __post_init__(self):
        check_rate(self.ratio, "ratio")
        check_decoder(self.decoder_dim, self.decoder_layers, self.decoder_heads)


def check_decoder(dim, layers, heads):
    """Raises a `ValueError` unless a decoder can have this width, these blocks and these heads."""
    for value, name in ((dim, "decoder_dim"), (layers, "decoder_layers"), (heads, "decoder_heads")):
        check_positive(value, name)
    if dim % 4 or dim % heads:
        raise ValueError(
            "decoder_dim must be a multiple of 4 and of decoder_heads. "
            f"Received: decoder_dim={dim}, decoder_heads={heads}"
        )


def check_masking(recipe):
    """Refuses a `Recipe` with a `MaskingConfig` that asks for labels, or for what would not be trained.

    Raises:
        ValueError: with the fields.
    """
    model, training = recipe.model, recipe.training
    is_vit = type(model) is ViTConfig
    not_learned = {
        "model": not is_vit,
        "model.norm_placement": is_vit and model.norm_placement != "pre",
        "model.pooling": is_vit and model.pooling == "map",
        "model.pool_before_norm": is_vit and model.pool_before_norm,
        "model.pre_logits_dim": is_vit and model.pre_logits_dim,
        "training.loss": training.loss != "softmax",
        "training.label_smoothing": training.label_smoothing,
        "training.init_head_bias": training.init_head_bias,
        "training.head_zeroinit": training.head_zeroinit,
        "distillation": recipe.distillation,
        "augment.mixup": recipe.augment.mixup,
        "augment.cutmix": recipe.augment.cutmix,
        "optimizer.ema_momentum": recipe.optimizer.ema_momentum is not None,
        "optimizer.layer_decay": recipe.optimizer.layer_decay,
        "data.validation_fraction": recipe.data.validation_fraction,
        "data.validation_split": recipe.data.validation_split,
        "data.class_weights": recipe.data.class_weights,
    }
    if wrong := [name for name, value in not_learned.items() if value]:
        raise ValueError(
            "a masked autoencoder is a Vision Transformer that learns from images alone, with weights as they are. "
            f"Received: {', '.join(wrong)}"
        )
