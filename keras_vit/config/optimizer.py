"""Optimizer settings of a recipe."""

import dataclasses
import typing

from keras_vit.validation import check_choice, check_count, check_positive, check_rate, is_number

NAMES = ("adamw", "adam", "sgd", "lamb", "lion", "muon")
SCHEDULES = ("cosine", "linear", "rsqrt", "constant", "epoch_cosine")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Settings of the optimizer, learning rate, weight decay and weight average. A step here is an update.

    Args:
        name: `adamw`, `adam` (without weight decay), `sgd`, `lamb` (that of timm), `lion` or `muon` (Muon for the
            kernels between hidden features, Adam for the rest). Default `adamw`.
        learning_rate: float. Peak learning rate.
        lr_base_size: int or `None`. Batch size at which `learning_rate` is defined (timm `lr_base_size`): the peak is
            multiplied by the effective batch size and divided by this. Default `None`: no scaling.
        schedule: `cosine`, `linear` (both to `final_learning_rate`), `rsqrt` (inverse square root), `constant`, or
            `epoch_cosine` (timm's: one rate per epoch, with a warm-up that replaces the start of the cosine).
        final_learning_rate: float. Final rate of cosine and linear (timm `min_lr`); not scaled. Default 0.
        warmup_epochs: float. Epochs of linear warm-up; an integer for `epoch_cosine`. Default 0.
        warmup_steps: int or `None`. Length of the warm-up in updates instead. Default `None`.
        warmup_learning_rate: float. Rate at the start of the warm-up (timm `warmup_lr`); not scaled. Default 0.
        lag_one_epoch: bool. For `epoch_cosine`: every epoch has the rate of the epoch before, as DeiT was trained.
            Default False.
        timescale: int, updates. For `rsqrt`: the rate decays to `learning_rate / sqrt(2)` in that time (big_vision).
            Default 10000.
        cooldown_steps: int, updates. For linear, rsqrt and constant: linear decay to 0 at the end (big_vision).
            Default 0.
        weight_decay: float. Decoupled and multiplied by the learning rate, as in AdamW of Keras and PyTorch. PyTorch's
            SGD adds it to the gradient before the momentum: multiply its value by `1 / (1 - momentum)`. Not applied
            to biases, norms, tokens and position embeddings. Default 0.
        independent_weight_decay: bool. Multiplies `weight_decay` by the learning rate over its peak, a number from 0
            to 1, instead of by the learning rate, as in big_vision. Default False.
        layer_decay: float in (0, 1] or `None`. Factor of the learning rate from each layer to the one below (timm
            `layer_decay`), see `layer_decay_scales`. Default `None`.
        beta_1: float. Not for SGD. Default 0.9.
        beta_2: float or `None` for 0.99 with Lion, else 0.999. Not for SGD.
        epsilon: float. For Adam, LAMB and Muon's Adam. Default 1e-8.
        momentum: float. For SGD and Muon. Default 0.9.
        nesterov: bool. For SGD and Muon. Default False.
        adam_lr_ratio: float. Learning rate of Muon's Adam over `learning_rate` (Keras `adam_lr_ratio`). Default 1.
        global_clipnorm: float or `None`. Largest global norm of the gradients (Keras `global_clipnorm`). Default
            `None`: no clipping.
        gradient_accumulation_steps: int. Number of batches whose gradients are averaged for one update (Keras). The
            effective batch size is the data's `batch_size` times this. Default 1.
        ema_momentum: float or `None`. Momentum of an exponential moving average of the weights (Keras). Default `None`:
            no average.
        ema_evaluate: bool. Evaluates and saves the average as the model; if False it is saved beside the weights, as in
            DeiT. Default True.

    Raises:
        ValueError: if a field is out of range, or has no effect with the others and not its default.
    """

    # Fields that only some optimizers have. An override of the name resets those that the new optimizer lacks.
    specific_to: typing.ClassVar = {
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
                raise ValueError(f"{name} must be finite and not negative. Received: {name}={getattr(self, name)!r}")
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
        """Checks that no field would silently have no effect."""
        by_epochs = self.schedule == "epoch_cosine"
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        rules = {
            f"{field} is for {', '.join(names)}": self.name not in names and getattr(self, field) != defaults[field]
            for field, names in self.specific_to.items()
        }
        rules |= {
            "adam has no weight decay; use adamw": self.name == "adam" and self.weight_decay,
            "set either warmup_epochs or warmup_steps": self.warmup_steps and self.warmup_epochs,
            "epoch_cosine needs an integer number of warmup_epochs": by_epochs
            and (self.warmup_steps or self.warmup_epochs % 1),
            "lag_one_epoch is for epoch_cosine": self.lag_one_epoch and not by_epochs,
            "timescale is for rsqrt": self.timescale != defaults["timescale"] and self.schedule != "rsqrt",
            "warmup_learning_rate needs warmup_epochs or warmup_steps": self.warmup_learning_rate
            and not (self.warmup_steps or self.warmup_epochs),
            "cooldown_steps is for linear, rsqrt and constant": self.cooldown_steps
            and self.schedule in ("cosine", "epoch_cosine"),
            "final_learning_rate is for cosine, linear and epoch_cosine": self.final_learning_rate
            and self.schedule in ("constant", "rsqrt"),
        }
        for rule, broken in rules.items():
            if broken:
                raise ValueError(f"{rule}. Received: {self}")
