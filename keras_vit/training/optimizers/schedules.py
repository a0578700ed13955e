"""Learning-rate schedules of big_vision and timm."""

import math

import keras
from keras import ops

from keras_vit.validation import check_choice, check_count, check_positive, is_number

DECAYS = ("cosine", "linear", "rsqrt")


def warmup_cosine(peak, total_steps, warmup_steps=0, final=0.0, initial=0.0):
    """Creates a cosine decay to `final` with a linear warm-up from `initial` to `peak`.

    Args:
        peak: float. Largest learning rate, reached at the end of the warm-up. 0 leaves the weights unchanged.
        total_steps: int. Steps of the whole run, warm-up included.
        warmup_steps: int, less than `total_steps`.
        final: float. Learning rate after `total_steps`.
        initial: float. Learning rate at the start of the warm-up. Default 0.

    Returns:
        A `keras.optimizers.schedules.CosineDecay`.

    Raises:
        ValueError: if the warm-up is as long as the run, or if `peak` is 0 and `final` is not.
    """
    _check_warmup(warmup_steps, total_steps, "warmup_steps", "total_steps")
    if final and not peak:
        raise ValueError(f"final must be 0 if peak is 0. Received: peak={peak!r}, final={final!r}")
    schedule, alpha = keras.optimizers.schedules.CosineDecay, final / peak if peak else 0.0
    if not warmup_steps:
        return schedule(float(peak), total_steps, alpha=alpha)
    # Keras mistakes an int 0 for a missing initial rate.
    return schedule(
        float(initial), total_steps - warmup_steps, alpha=alpha, warmup_target=float(peak), warmup_steps=warmup_steps
    )


def _check_warmup(warmup, total, warmup_name, total_name):
    if not 0 <= warmup < total:
        raise ValueError(
            f"the warm-up must be shorter than the run. Received: {warmup_name}={warmup}, {total_name}={total}"
        )


def _check_rates(**rates):
    for name, value in rates.items():
        if not is_number(value) or value < 0:
            raise ValueError(f"{name} must be a number of at least 0. Received: {name}={value!r}")


def _half_cosine(remaining):
    """Computes `(1 + cos(pi * (1 - remaining))) / 2` in a form that stays accurate near 0."""
    return ops.square(ops.sin(0.5 * math.pi * remaining))


@keras.saving.register_keras_serializable(package="keras_vit")
class BigVisionSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """Learning-rate schedule of big_vision.

    The decay starts at the end of the warm-up. A linear warm-up from `initial` and a linear cool-down to 0 multiply it.
    In big_vision the same curve also multiplies the weight decay: pass `decay_peak=peak` to `AdamW` to use big_vision's
    value of weight decay, or divide that value by `peak`.

    Args:
        peak: float. Largest learning rate; 1 gives the bare curve.
        total_steps: int. Steps of the whole run, warm-up included.
        warmup_steps: int, less than `total_steps`. Default 0.
        decay: `cosine` to 0, `linear` to `final`, or `rsqrt`, the inverse square root. Default `cosine`.
        final: float. Final learning rate of `linear`. Default 0.
        timescale: float, steps. `rsqrt` decays to `peak / sqrt(2)` in `timescale` steps. Default 10000.
        cooldown_steps: int. Steps at the end in which the rate decays linearly to 0. Default 0.
        initial: float. Learning rate at the start of the warm-up; 0 in big_vision. Default 0.

    Call arguments:
        step: int or scalar tensor of any type.

    Returns:
        The learning rate, a float32 scalar.

    Raises:
        ValueError: if a number is out of range or `decay` is unknown.

    Source: google-research/big_vision `utils.py`, `create_learning_rate_schedule`.
    """

    def __init__(
        self,
        peak,
        total_steps,
        warmup_steps=0,
        decay="cosine",
        final=0.0,
        timescale=10_000,
        cooldown_steps=0,
        initial=0.0,
    ):
        check_positive(total_steps, "total_steps")
        check_count(cooldown_steps, "cooldown_steps")
        check_choice(decay, DECAYS, "decay")
        _check_warmup(warmup_steps, total_steps, "warmup_steps", "total_steps")
        _check_rates(peak=peak, final=final, initial=initial)
        if not is_number(timescale) or timescale <= 0:
            raise ValueError(f"timescale must be positive. Received: timescale={timescale!r}")
        self.peak, self.final, self.timescale = float(peak), float(final), float(timescale)
        self.total_steps, self.warmup_steps, self.cooldown_steps = total_steps, warmup_steps, cooldown_steps
        self.decay, self.initial = decay, float(initial)

    def __call__(self, step):
        step = ops.cast(step, "float32")
        remaining = ops.clip((self.total_steps - step) / (self.total_steps - self.warmup_steps), 0.0, 1.0)
        if self.decay == "linear":
            rate = self.final + (self.peak - self.final) * remaining
        elif self.decay == "rsqrt":
            rate = self.peak * ops.rsqrt(1.0 + ops.maximum(step - self.warmup_steps, 0.0) / self.timescale)
        else:
            rate = self.peak * _half_cosine(remaining)
        if self.warmup_steps:
            progress = ops.minimum(step / self.warmup_steps, 1.0)
            rate = rate * progress + self.initial * (1.0 - progress)
        if self.cooldown_steps:
            rate = rate * ops.clip((self.total_steps - step) / self.cooldown_steps, 0.0, 1.0)
        return rate

    def get_config(self):
        names = ("peak", "total_steps", "warmup_steps", "decay", "final", "timescale", "cooldown_steps", "initial")
        return {name: getattr(self, name) for name in names}


@keras.saving.register_keras_serializable(package="keras_vit")
class EpochCosine(keras.optimizers.schedules.LearningRateSchedule):
    """Cosine schedule of timm with warm-up: one learning rate per epoch, as DeiT was trained.

    With `steps_per_epoch=1` it counts steps instead of epochs.

    Args:
        peak: float. Learning rate at the start of the cosine (timm `lr`).
        epochs: int. Length of the cosine.
        steps_per_epoch: int.
        warmup_epochs: int, less than `epochs`. The rate rises in equal steps from `initial` towards `peak`. Default 0.
        initial: float. Learning rate of the first epoch of a warm-up (timm `warmup_lr`). Default 0.
        final: float. Learning rate after the cosine (timm `min_lr`). Default 0.
        warmup_prefix: bool. Starts the cosine after the warm-up, so that both together take `warmup_epochs + epochs`
            (timm `warmup_prefix`). By default the warm-up replaces the first part of the cosine, so that `peak` itself
            is never reached.
        late: bool. Lags by one epoch: every epoch but the first has timm's rate of the epoch before, as in DeiT, which
            updates the schedule at the end of an epoch with the number of that epoch. Default False.

    Call arguments:
        step: int or scalar tensor of any type.

    Returns:
        The learning rate, a float32 scalar.

    Raises:
        ValueError: if a number is out of range.

    Source: timm `scheduler/cosine_lr.py`, `CosineLRScheduler`; facebookresearch/deit `main.py`.
    """

    def __init__(
        self,
        peak,
        epochs,
        steps_per_epoch,
        warmup_epochs=0,
        initial=0.0,
        final=0.0,
        warmup_prefix=False,
        late=False,
    ):
        check_positive(epochs, "epochs")
        check_positive(steps_per_epoch, "steps_per_epoch")
        check_count(warmup_epochs, "warmup_epochs")
        _check_warmup(warmup_epochs, epochs, "warmup_epochs", "epochs")
        _check_rates(peak=peak, initial=initial, final=final)
        self.peak, self.initial, self.final = float(peak), float(initial), float(final)
        self.epochs, self.steps_per_epoch, self.warmup_epochs = epochs, steps_per_epoch, warmup_epochs
        self.warmup_prefix, self.late = bool(warmup_prefix), bool(late)

    def __call__(self, step):
        # Divides before the cast, which would round the step of a long run.
        epoch = ops.cast(ops.floor_divide(step, self.steps_per_epoch), "float32")
        if self.late:
            epoch = ops.maximum(epoch - 1.0, 0.0)
        elapsed = epoch - self.warmup_epochs if self.warmup_prefix else epoch
        remaining = ops.clip((self.epochs - elapsed) / self.epochs, 0.0, 1.0)
        rate = self.final + (self.peak - self.final) * _half_cosine(remaining)
        if not self.warmup_epochs:
            return rate
        warmup_rate = self.initial + (self.peak - self.initial) * (epoch / self.warmup_epochs)
        return ops.where(epoch < self.warmup_epochs, warmup_rate, rate)

    def get_config(self):
        names = ("peak", "epochs", "steps_per_epoch", "warmup_epochs", "initial", "final", "warmup_prefix", "late")
        return {name: getattr(self, name) for name in names}


@keras.saving.register_keras_serializable(package="keras_vit")
class EveryNth(keras.optimizers.schedules.LearningRateSchedule):
    """Evaluates a schedule of updates for an optimizer with `gradient_accumulation_steps=every`.

    Keras calls a schedule with the number of the step, not of the update.

    Args:
        schedule: `keras.optimizers.schedules.LearningRateSchedule` of the number of updates.
        every: int. Number of steps per update.

    Call arguments:
        step: int or scalar tensor of an integer type.

    Returns:
        The learning rate, a float32 scalar.
    """

    def __init__(self, schedule, every):
        self.schedule, self.every = schedule, check_positive(every, "every")

    def __call__(self, step):
        return self.schedule(ops.floor_divide(step, self.every))

    def get_config(self):
        return {"schedule": keras.optimizers.schedules.serialize(self.schedule), "every": self.every}

    @classmethod
    def from_config(cls, config):
        return cls(keras.optimizers.schedules.deserialize(config["schedule"]), config["every"])
