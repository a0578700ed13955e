"""From an `OptimizerConfig` to its optimizer."""

import warnings

from keras_vit.training.optimizers import optimizers
from keras_vit.training.optimizers.layer_decay import layer_scales
from keras_vit.training.optimizers.schedules import BigVisionSchedule, EpochCosine, EveryNth, warmup_cosine


def make_schedule(config, steps_per_epoch, epochs, batch_size=None):
    """The learning rate of a recipe.

    Args:
        config: `OptimizerConfig`.
        steps_per_epoch, epochs: ints, the length of the run in batches, each a step also where gradients accumulate.
        batch_size: int, images of a step. Only of use with `lr_base_size`.

    Returns:
        A `keras.optimizers.schedules.LearningRateSchedule` of the step, and the peak, a float.

    Raises:
        ValueError: if the batch is missing.
    """
    peak, every = peak_learning_rate(config, batch_size), config.gradient_accumulation_steps
    if config.schedule == "epoch_cosine":
        schedule = EpochCosine(
            peak,
            epochs,
            steps_per_epoch,
            _shortened(int(config.warmup_epochs), epochs, "epochs"),
            config.warmup_learning_rate,
            config.final_learning_rate,
            late=config.lag_one_epoch,
        )
        return schedule, peak
    total = max(steps_per_epoch * epochs // every, 1)
    warmup = config.warmup_steps or round(config.warmup_epochs * steps_per_epoch / every)
    warmup = _shortened(warmup, total, "updates")
    initial, final = config.warmup_learning_rate, config.final_learning_rate
    if config.schedule == "cosine":
        schedule = warmup_cosine(peak, total, warmup, final, initial)
    else:
        decay, final = ("linear", peak) if config.schedule == "constant" else (config.schedule, final)
        cooldown = min(config.cooldown_steps, total)
        schedule = BigVisionSchedule(peak, total, warmup, decay, final, config.timescale, cooldown, initial)
    return (EveryNth(schedule, every) if every > 1 else schedule), peak


def _shortened(warmup, total, unit):
    """A warm-up that is shorter than its run."""
    if warmup >= total:
        warnings.warn(
            f"the warm-up of {warmup} {unit} is as long as the run: it is cut to {total - 1}, "
            "and the learning rate never falls",
            stacklevel=3,
        )
    return min(warmup, total - 1)


def peak_learning_rate(config, batch_size=None):
    """The largest learning rate of a run, scaled by the images of an update where the config has a reference."""
    if config.lr_base_size is None:
        return config.learning_rate
    if not batch_size:
        raise ValueError(f"lr_base_size needs the batch of the run. Received: batch_size={batch_size!r}")
    return config.learning_rate * batch_size * config.gradient_accumulation_steps / config.lr_base_size


def make_optimizer(config, steps_per_epoch, epochs, batch_size=None, model=None):
    """The optimizer of a recipe.

    Args:
        config, steps_per_epoch, epochs, batch_size: as for `make_schedule`.
        model: the model that is trained, which `layer_decay` asks for its layers; else of no use.

    Returns:
        One of `keras_vit.training`'s optimizers with schedule, exclusions, clipping and weight average.
    """
    schedule, peak = make_schedule(config, steps_per_epoch, epochs, batch_size)
    return _MAKERS[config.name](
        config,
        learning_rate=schedule,
        weight_decay=config.weight_decay,
        decay_peak=peak if config.independent_weight_decay else None,
        learning_rate_scales=layer_scales(model, config.layer_decay) if config.layer_decay else None,
        global_clipnorm=config.global_clipnorm,
        gradient_accumulation_steps=config.gradient_accumulation_steps
        if config.gradient_accumulation_steps > 1
        else None,
        use_ema=config.ema_momentum is not None,
        ends_with_average=config.ema_evaluate,
        # Keras wants a number also where there is no average.
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
