"""Builds the optimizer and the learning-rate schedule of an `OptimizerConfig`."""

import warnings

from keras_vit.training.optimizers import optimizers
from keras_vit.training.optimizers.layer_decay import layer_decay_scales
from keras_vit.training.optimizers.schedules import BigVisionSchedule, EpochCosine, EveryNth, warmup_cosine


def make_schedule(config, steps_per_epoch, epochs, batch_size=None):
    """Builds the learning-rate schedule of a recipe.

    Args:
        config: `OptimizerConfig`.
        steps_per_epoch, epochs: ints, the length of the run. A step is one batch, also if gradients accumulate.
        batch_size: int, images per step. Only needed with `lr_base_size`.

    Returns:
        A `keras.optimizers.schedules.LearningRateSchedule` of the step, and its peak, a float.

    Raises:
        ValueError: if `lr_base_size` is set and `batch_size` is missing.
    """
    peak, every = peak_learning_rate(config, batch_size), config.gradient_accumulation_steps
    if config.schedule == "epoch_cosine":
        schedule = EpochCosine(
            peak,
            epochs,
            steps_per_epoch,
            _limit_warmup(int(config.warmup_epochs), epochs, "epochs"),
            config.warmup_learning_rate,
            config.final_learning_rate,
            late=config.lag_one_epoch,
        )
        return schedule, peak
    total = max(steps_per_epoch * epochs // every, 1)
    warmup = config.warmup_steps or round(config.warmup_epochs * steps_per_epoch / every)
    warmup = _limit_warmup(warmup, total, "updates")
    initial, final = config.warmup_learning_rate, config.final_learning_rate
    if config.schedule == "cosine":
        schedule = warmup_cosine(peak, total, warmup, final, initial)
    else:
        decay, final = ("linear", peak) if config.schedule == "constant" else (config.schedule, final)
        cooldown = min(config.cooldown_steps, total)
        schedule = BigVisionSchedule(peak, total, warmup, decay, final, config.timescale, cooldown, initial)
    return (EveryNth(schedule, every) if every > 1 else schedule), peak


def _limit_warmup(warmup, total, unit):
    """Cuts a warm-up to less than the run, with a warning."""
    if warmup >= total:
        warnings.warn(
            f"the warm-up of {warmup} {unit} is as long as the run; it is cut to {total - 1}, and the learning rate "
            "does not decay. Train longer or set a shorter warm-up",
            stacklevel=3,
        )
    return min(warmup, total - 1)


def peak_learning_rate(config, batch_size=None):
    """Returns the peak learning rate, scaled linearly with the effective batch if `lr_base_size` is set."""
    if config.lr_base_size is None:
        return config.learning_rate
    if not batch_size:
        raise ValueError(f"lr_base_size needs a batch size. Received: batch_size={batch_size!r}")
    return config.learning_rate * batch_size * config.gradient_accumulation_steps / config.lr_base_size


def make_optimizer(config, steps_per_epoch, epochs, batch_size=None, model=None):
    """Builds the optimizer of a recipe.

    Args:
        config, steps_per_epoch, epochs, batch_size: as for `make_schedule`.
        model: the model that is trained. Only needed with `layer_decay`.

    Returns:
        An optimizer of `keras_vit.training`.
    """
    schedule, peak = make_schedule(config, steps_per_epoch, epochs, batch_size)
    return _MAKERS[config.name](
        config,
        learning_rate=schedule,
        weight_decay=config.weight_decay,
        decay_peak=peak if config.independent_weight_decay else None,
        learning_rate_scales=layer_decay_scales(model, config.layer_decay) if config.layer_decay else None,
        global_clipnorm=config.global_clipnorm,
        gradient_accumulation_steps=config.gradient_accumulation_steps
        if config.gradient_accumulation_steps > 1
        else None,
        use_ema=config.ema_momentum is not None,
        ends_with_average=config.ema_evaluate,
        # Keras requires a number even without use_ema.
        ema_momentum=0.99 if config.ema_momentum is None else config.ema_momentum,
    )


def _adamw(config, **shared):
    return optimizers.AdamW(beta_1=config.beta_1, beta_2=_beta_2(config), epsilon=config.epsilon, **shared)


def _sgd(config, **shared):
    return optimizers.SGD(momentum=config.momentum, nesterov=config.nesterov, **shared)


def _lamb(config, **shared):
    return optimizers.Lamb(beta_1=config.beta_1, beta_2=_beta_2(config), epsilon=config.epsilon, **shared)


def _lion(config, **shared):
    return optimizers.Lion(beta_1=config.beta_1, beta_2=_beta_2(config), **shared)


def _muon(config, **shared):
    return optimizers.Muon(
        adam_beta_1=config.beta_1,
        adam_beta_2=_beta_2(config),
        epsilon=config.epsilon,
        momentum=config.momentum,
        nesterov=config.nesterov,
        adam_lr_ratio=config.adam_lr_ratio,
        **shared,
    )


def _beta_2(config):
    if config.beta_2 is not None:
        return config.beta_2
    return 0.99 if config.name == "lion" else 0.999


# AdamW without weight decay is Adam.
_MAKERS = {"adamw": _adamw, "adam": _adamw, "sgd": _sgd, "lamb": _lamb, "lion": _lion, "muon": _muon}
