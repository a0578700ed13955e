"""Settings of LoRA."""

import dataclasses
import re

from keras_vit.models.lora import TARGETS
from keras_vit.validation import check_positive, is_number


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
        check_positive(self.rank, "rank")
        if self.alpha is not None and (not is_number(self.alpha) or self.alpha <= 0):
            raise ValueError(f"alpha must be positive or None. Received: alpha={self.alpha!r}")
        try:
            re.compile(self.targets)
        except (re.error, TypeError) as error:
            raise ValueError(
                f"targets must be a regular expression. Received: targets={self.targets!r} ({error})"
            ) from error
