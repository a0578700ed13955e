"""How the weights of a recipe move, as plain data."""

import dataclasses
import typing

from keras_vit.validation import check_choice, check_count, check_positive, check_rate, is_number

NAMES = ("adamw", "adam", "sgd", "lamb", "lion", "muon")
SCHEDULES = ("cosine", "linear", "rsqrt", "constant", "epoch_cosine")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Optimizer, learning rate and weight decay. Steps here are updates of the weights.

    Args:
        name: `adamw`, `adam` (which has no weight decay), `sgd`, `lamb` (as timm has it), `lion` or `muon` (Muon for
            the kernels between hidden features, Adam for the rest). Default `adamw`.
        learning_rate: float. The peak.
        lr_base_size: int or `None`. The batch that `learning_rate` is of: the peak is multiplied by the images of
            an update and divided by this. Default `None`: taken as it is.
        schedule: `cosine`, `linear` (both to `final_learning_rate`), `rsqrt` (the inverse square root), `constant`, or
            `epoch_cosine` (timm's: one rate an epoch, and the warm-up replaces the beginning of the cosine).
        final_learning_rate: float. Where cosine and linear end; not scaled by the batch. Default 0.
        warmup_epochs: float. Epochs of linear warm-up; whole ones for `epoch_cosine`. Default 0.
        warmup_steps: int or `None`. The warm-up in updates instead. Default `None`.
        warmup_learning_rate: float. Where the warm-up begins; not scaled by the batch. Default 0.
        lag_one_epoch: bool. Only `epoch_cosine`: every epoch has the rate of the one before, as DeiT was trained.
        timescale: int, updates. Only `rsqrt`: it falls to `learning_rate / sqrt(2)` in so many. Default 10000.
        cooldown_steps: int, updates. Only linear, rsqrt and constant: a linear end to 0. Default 0.
        weight_decay: float. Decoupled and multiplied by the learning rate, as in AdamW of Keras and PyTorch; PyTorch's
            SGD takes it into the momentum, which is `1 / (1 - momentum)` times as much. Never on
            biases, norms, tokens, positions. Default 0.
        independent_weight_decay: bool. Multiplies `weight_decay` by the learning rate over its peak, a number from 0
            to 1, instead of by the learning rate, as in big_vision. Default False.
        layer_decay: float in (0, 1] or `None`. Every layer learns slower than the one above it by this factor, see
            `layer_scales`. Default `None`.
        beta_1: float. Not of SGD. Default 0.9.
        beta_2: float or `None`: 0.99 for Lion, else 0.999. Not of SGD.
        epsilon: float. Of Adam, LAMB and Muon's Adam. Default 1e-8.
        momentum: float. Of SGD and Muon. Default 0.9.
        nesterov: bool. Of SGD and Muon. Default False.
        adam_lr_ratio: float. Muon's Adam learns at `learning_rate` times this. Default 1.
        global_clipnorm: float or `None`. Largest global norm of the gradient. Default `None`: no clipping.
        gradient_accumulation_steps: int. Number of batches whose gradients are averaged for one update (Keras). The
            effective batch is the data's `batch_size` times this. Default 1.
        ema_momentum: float or `None`. Momentum of an average of the weights.
        ema_evaluate: bool. Whether the average is what is evaluated, and what the run ends with; else it is kept
            beside the weights, as in DeiT. Default True.

    Raises:
        ValueError: if a field breaks these rules, or has no effect beside the others and not its default.
    """

    # Optimizers with settings that the others have not. An override of the name takes these away from the others.
    only_of: typing.ClassVar = {
        "beta_1": ("adamw", "adam", "lamb", "lion", "muon"),
        "beta_2": ("adamw", "adam", "lamb", "lion", "muon"),
        "epsilon": ("adamw", "adam", "lamb", "muon"),
        "momentum": ("sgd", "muon"),
        "nesterov": ("sgd", "muon"),
        "adam_lr_ratio": ("muon",),
    }

    name: str = "adamw"
    learning_rate: float = 1e-3
    lr_base_size: int | None = None
    schedule: str = "cosine"
    final_learning_rate: float = 0.0
    warmup_epochs: float = 0.0
    warmup_steps: int | None = None
    warmup_learning_rate: float = 0.0
    lag_one_epoch: bool = False
    timescale: int = 10_000
    cooldown_steps: int = 0
    weight_decay: float = 0.0
    independent_weight_decay: bool = False
    layer_decay: float | None = None
    beta_1: float = 0.9
    beta_2: float | None = None
    epsilon: float = 1e-8
    momentum: float = 0.9
    nesterov: bool = False
    adam_lr_ratio: float = 1.0
    global_clipnorm: float | None = None
    gradient_accumulation_steps: int = 1
    ema_momentum: float | None = None
    ema_evaluate: bool = True

    def __post_init__(self):
        check_choice(self.name, NAMES, "name")
        check_choice(self.schedule, SCHEDULES, "schedule")
        for name in ("learning_rate", "epsilon", "timescale", "adam_lr_ratio"):
            if not is_number(getattr(self, name)) or getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive and finite. Received: {name}={getattr(self, name)!r}")
        for name in ("final_learning_rate", "warmup_epochs", "warmup_learning_rate", "weight_decay"):
            if not is_number(getattr(self, name)) or getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative or infinite. Received: {name}={getattr(self, name)!r}")
        for name in ("beta_1", "beta_2", "momentum", "ema_momentum"):
            if getattr(self, name) is not None:
                check_rate(getattr(self, name), name)
        check_positive(self.gradient_accumulation_steps, "gradient_accumulation_steps")
        check_count(self.cooldown_steps, "cooldown_steps")
        for name in ("lr_base_size", "warmup_steps"):
            if getattr(self, name) is not None:
                check_positive(getattr(self, name), name)
        clip, decay = self.global_clipnorm, self.layer_decay
        if clip is not None and not (is_number(clip) and clip > 0):
            raise ValueError(f"global_clipnorm must be positive or None. Received: global_clipnorm={clip!r}")
        if decay is not None and not (is_number(decay) and 0 < decay <= 1):
            raise ValueError(f"layer_decay must be in (0, 1] or None. Received: layer_decay={decay!r}")
        self._check_together()

    def _check_together(self):
        """Settings that would otherwise be passed over without a word."""
        by_epochs = self.schedule == "epoch_cosine"
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        rules = {
            f"{field} is for {', '.join(names)}": self.name not in names and getattr(self, field) != defaults[field]
            for field, names in self.only_of.items()
        }
        rules |= {
            "adam has no weight decay; adamw has": self.name == "adam" and self.weight_decay,
            "a warm-up is told in epochs or in steps": self.warmup_steps and self.warmup_epochs,
            "epoch_cosine warms up by whole epochs": by_epochs and (self.warmup_steps or self.warmup_epochs % 1),
            "lag_one_epoch is for epoch_cosine": self.lag_one_epoch and not by_epochs,
            "timescale is for rsqrt": self.timescale != defaults["timescale"] and self.schedule != "rsqrt",
            "warmup_learning_rate needs a warm-up": self.warmup_learning_rate
            and not (self.warmup_steps or self.warmup_epochs),
            "a cosine has no cool-down": self.cooldown_steps and self.schedule in ("cosine", "epoch_cosine"),
            "constant and rsqrt have no final_learning_rate": self.final_learning_rate
            and self.schedule in ("constant", "rsqrt"),
        }
        for rule, broken in rules.items():
            if broken:
                raise ValueError(f"{rule}. Received: {self}")
