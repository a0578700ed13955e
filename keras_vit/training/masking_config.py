"""How a recipe hides patches, and what does not go with that."""

import dataclasses

from keras_vit.models import ViTConfig
from keras_vit.validation import check_positive, check_rate


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskingConfig:
    """Training without labels, as a masked autoencoder: see `keras_vit.training.MaskedAutoencoder`.

    Args:
        ratio: float in (0, 1). How many of the patches are hidden. Default 0.75.
        decoder_dim, decoder_layers, decoder_heads: ints. Default 512, 8 and 16.
        normalize_targets: bool. Whether patches are painted less their mean and over their deviation. Default True.
    """

    ratio: float = 0.75
    decoder_dim: int = 512
    decoder_layers: int = 8
    decoder_heads: int = 16
    normalize_targets: bool = True

    def __post_init__(self):
        check_rate(self.ratio, "ratio")
        for name in ("decoder_dim", "decoder_layers", "decoder_heads"):
            check_positive(getattr(self, name), name)


def check_masking(recipe):
    """Refuses a `Recipe` with a `MaskingConfig` that asks for labels, or for what knows nothing of a decoder.

    Raises:
        ValueError: with the fields.
    """
    not_learned = {
        "model": type(recipe.model) is not ViTConfig,
        "distillation": recipe.distillation,
        "augment.mixup": recipe.augment.mixup,
        "augment.cutmix": recipe.augment.cutmix,
        "optimizer.ema_momentum": recipe.optimizer.ema_momentum is not None,
        "optimizer.layer_decay": recipe.optimizer.layer_decay,
        "data.validation_fraction": recipe.data.validation_fraction,
        "data.class_weights": recipe.data.class_weights,
    }
    if wrong := [name for name, value in not_learned.items() if value]:
        raise ValueError(
            "a masked autoencoder is a Vision Transformer that learns from images alone, with weights as they are. "
            f"Received: {', '.join(wrong)}"
        )
