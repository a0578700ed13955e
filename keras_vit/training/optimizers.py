"""AdamW with the exclusions of Vision Transformers."""

import keras

from keras_vit.backend import fused, fuses
from keras_vit.training.schedules import warmup_cosine

# Names of variables that no published recipe decays: biases, norms, LayerScale, tokens, positions;
# of Swin Transformers all that the position bias is made of.
NO_DECAY = ("bias", "beta", "gamma", "class_token", "distillation_token", "register_tokens", "position_embedding")
NO_DECAY += ("query_bias", "value_bias", "relative_position_bias_table", "logit_scale")
NO_DECAY += ("cpb_kernel_1", "cpb_bias_1", "cpb_kernel_2")


@keras.saving.register_keras_serializable(package="keras_vit")
class AdamW(keras.optimizers.AdamW):
    """`keras.optimizers.AdamW` whose exclusions from weight decay are part of its config.

    Keras forgets them when a model is saved, so a reloaded model trains on with other rules.

    Args:
        no_decay: names of variables that are not decayed. Default `NO_DECAY`.
        **kwargs: as for `keras.optimizers.AdamW`.
    """

    def __init__(self, *args, no_decay=NO_DECAY, **kwargs):
        super().__init__(*args, **kwargs)
        self.no_decay = tuple(no_decay)
        if self.no_decay:
            # On TensorFlow Keras matches the name of the tf.Variable, such as `bias/replica_1:0`.
            names = "|".join(self.no_decay)
            self.exclude_from_weight_decay(var_names=[rf"(^|/)({names})(/replica_\d+)?(:\d+)?$"])

    def apply(self, grads, trainable_variables=None):
        if not fuses():
            return super().apply(grads, trainable_variables)
        if not self.built:
            self.build(trainable_variables)

        def update(grads):
            super(AdamW, self).apply(grads, trainable_variables)

        return fused(update)(list(grads))

    def get_config(self):
        return {**super().get_config(), "no_decay": list(self.no_decay)}


def adamw(config, steps_per_epoch, epochs):
    """The optimizer of a recipe.

    Args:
        config: `OptimizerConfig`.
        steps_per_epoch, epochs: ints, the length of the run.

    Returns:
        An `AdamW` with its schedule, clipping and weight average.
    """
    total = steps_per_epoch * epochs
    warmup = min(round(config.warmup_epochs * steps_per_epoch), total - 1)
    average = {} if config.ema_momentum is None else {"use_ema": True, "ema_momentum": config.ema_momentum}
    return AdamW(
        warmup_cosine(config.learning_rate, total, warmup, config.final_learning_rate),
        weight_decay=config.weight_decay,
        beta_1=config.beta_1,
        beta_2=config.beta_2,
        epsilon=config.epsilon,
        global_clipnorm=config.clip_norm,
        **average,
    )
