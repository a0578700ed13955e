"""Settings of masked autoencoders (MAE), and the fields of a recipe that they exclude."""

import dataclasses

from keras_vit.models import ViTConfig
from keras_vit.validation import check_positive, check_rate


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskingConfig:
    """Settings of pretraining without labels by a `keras_vit.training.MaskedAutoencoder`.

    Args:
        ratio: float in (0, 1). Fraction of masked patches (MAE `mask_ratio`). Default 0.75.
        decoder_dim, decoder_layers, decoder_heads: ints. Width, a multiple of 4, number of blocks and of heads of the
            decoder (MAE `decoder_embed_dim`, `decoder_depth`, `decoder_num_heads`). Default 512, 8 and 16.
        normalize_targets: bool. Normalizes the pixels of every target patch by their mean and standard deviation (MAE
            `norm_pix_loss`). Default True.
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
    """Checks the width, number of blocks and number of heads of a decoder.

    Raises:
        ValueError: if one of them is invalid.
    """
    for value, name in ((dim, "decoder_dim"), (layers, "decoder_layers"), (heads, "decoder_heads")):
        check_positive(value, name)
    if dim % 4 or dim % heads:
        raise ValueError(
            "decoder_dim must be a multiple of 4 and of decoder_heads. "
            f"Received: decoder_dim={dim}, decoder_heads={heads}"
        )


def check_masking(recipe):
    """Checks that a `Recipe` with a `MaskingConfig` has no settings that need labels or would not be trained.

    Raises:
        ValueError: with the names of such fields.
    """
    model, training = recipe.model, recipe.training
    is_vit = type(model) is ViTConfig
    conflicts = {
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
    if wrong := [name for name, value in conflicts.items() if value]:
        raise ValueError(
            "masking trains a Vision Transformer from images alone; leave out settings of labels and other models. "
            f"Received: {', '.join(wrong)}"
        )
