"""Settings of LoRA."""

import dataclasses

from keras_vit.models.lora import TARGETS, check_lora


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Settings of training with LoRA adapters: all else but the heads is frozen, see `keras_vit.add_lora`.

    Args:
        rank: int. Width of the adapters. Default 8.
        alpha: float or `None`, the rank: a scale of 1.
        targets: regular expression of whole paths of dense layers. Default: all of attention and MLP.
    """

    rank: int = 8
    alpha: float | None = None
    targets: str = TARGETS

    def __post_init__(self):
        check_lora(self.rank, self.alpha, self.targets)
