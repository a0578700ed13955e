"""Learning rates over a run, as the sources of published recipes compute them."""

import math

import keras
from keras import ops

from keras_vit.validation import check_choice, check_count, check_positive, is_number

DECAYS = ("cosine", "linear", "rsqrt")


def warmup_cosine(peak, total_steps, warmup_steps=0, final=0.0, initial=0.0):
    """Linear warm-up from `initial` to `peak`, then half a cosine to `final`.

    Args:
        peak: float. Largest learning rate, reached after the warm-up. 0 is a run that changes nothing.
        total_steps: int. Steps of the whole run, warm-up included.
        warmup_steps: int, less than `total_steps`.
        final: float. Learning rate after `total_steps`.
        initial: float. Where the warm-up begins. Default 0.

    Returns:
        A `keras.optimizers.schedules.CosineDecay`.

    Raises:
        ValueError: if the warm-up is as long as the run, or if `final` is not 0 where `peak` is.
    """
    _check_warmup(warmup_steps, total_steps, "warmup_steps", "total_steps")
    if final and not peak:
        raise ValueError(f"final must be 0 where peak is. Received: peak={peak!r}, final={final!r}")
    schedule, alpha = keras.optimizers.schedules.CosineDecay, final / peak if peak else 0.0
    if not warmup_steps:
        return schedule(float(peak), total_steps, alpha=alpha)
    # The initial rate must be a float: Keras takes an int 0 for a missing one.
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
    """`(1 + cos(pi * (1 - remaining))) / 2`, in a form that keeps its digits where it comes near 0."""
    return ops.square(ops.sin(0.5 * math.pi * remaining))


@keras.saving.register_keras_serializable(package="keras_vit")
class BigVisionSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """big_vision's learning rate, a step at a time.

    The decay begins where the warm-up ends; the warm-up, from 0, and the cool-down, to 0, multiply it. There the same
    curve multiplies the weight decay. So it does in `AdamW` with `decay_peak=peak`, which then takes big_vision's
    value; without, that value divided by `peak` is the one to give.

    Args:
        peak: float. Largest learning rate; 1 gives the bare curve.
        total_steps: int. Steps of the whole run, warm-up included.
        warmup_steps: int, less than `total_steps`. Default 0.
        decay: `cosine` to 0, `linear` to `final`, or `rsqrt`, the inverse square root. Default `cosine`.
        final: float. Where `linear` ends. Default 0.
        timescale: float, steps. `rsqrt` falls to `peak / sqrt(2)` in so many. Default 10000.
        cooldown_steps: int. Steps at the end in which the rate falls to 0 linearly. Default 0.
        initial: float. Where the warm-up begins; big_vision's is 0, the default.

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
            warm = ops.minimum(step / self.warmup_steps, 1.0)
            rate = rate * warm + self.initial * (1.0 - warm)
        if self.cooldown_steps:
            rate = rate * ops.clip((self.total_steps - step) / self.cooldown_steps, 0.0, 1.0)
        return rate

    def get_config(self):
        names = ("peak", "total_steps", "warmup_steps", "decay", "final", "timescale", "cooldown_steps", "initial")
        return {name: getattr(self, name) for name in names}


@keras.saving.register_keras_serializable(package="keras_vit")
class EpochCosine(keras.optimizers.schedules.LearningRateSchedule):
    """timm's cosine with warm-up: one learning rate an epoch, as DeiT was trained.

    With `steps_per_epoch=1` the epochs are steps.

    Args:
        peak: float. The rate that the cosine begins with.
        epochs: int. Length of the cosine.
        steps_per_epoch: int.
        warmup_epochs: int, less than `epochs`. The rate rises in equal steps from `initial` towards `peak`. Default 0.
        initial: float. The rate of the first epoch of a warm-up. Default 0.
        final: float. The rate from where the cosine has ended. Default 0.
        warmup_prefix: bool. Whether the cosine begins after the warm-up, so that both together take
            `warmup_epochs + epochs`. By default the warm-up replaces the beginning of the cosine, which goes on behind
            it where it would be without one: `peak` itself is never reached.
        late: bool. Whether an epoch has the rate that timm computes for the one before, and the second that of the
            first. DeiT's training does: it asks for a rate at the end of an epoch, with that epoch's number.
            Default False.

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
        # Divided before the cast, which would round the steps of a long run.
        epoch = ops.cast(ops.floor_divide(step, self.steps_per_epoch), "float32")
        if self.late:
            epoch = ops.maximum(epoch - 1.0, 0.0)
        past = epoch - self.warmup_epochs if self.warmup_prefix else epoch
        remaining = ops.clip((self.epochs - past) / self.epochs, 0.0, 1.0)
        rate = self.final + (self.peak - self.final) * _half_cosine(remaining)
        if not self.warmup_epochs:
            return rate
        warm = self.initial + (self.peak - self.initial) * (epoch / self.warmup_epochs)
        return ops.where(epoch < self.warmup_epochs, warm, rate)

    def get_config(self):
        names = ("peak", "epochs", "steps_per_epoch", "warmup_epochs", "initial", "final", "warmup_prefix", "late")
        return {name: getattr(self, name) for name in names}


@keras.saving.register_keras_serializable(package="keras_vit")
class EveryNth(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule in updates, for an optimizer that updates once in `every` steps (`gradient_accumulation_steps`).

    Keras asks a schedule with the number of the step, not of the update.

    Args:
        schedule: `keras.optimizers.schedules.LearningRateSchedule`, counted in updates.
        every: int. Steps of an update.

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
