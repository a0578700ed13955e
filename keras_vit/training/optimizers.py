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
    """`keras.optimizers.AdamW` with other learning rates for some variables, and rules that are part of its config.

    Keras forgets exclusions from weight decay when a model is saved, so a reloaded model trains on with other rules.

    Args:
        no_decay: names of variables that are not decayed. Default `NO_DECAY`.
        learning_rate_scales: dict from the path of a variable to what its learning rate is multiplied with, such as
            `layer_scales` gives, or `None`: 1 for all. The weight decay is multiplied by the same learning rate, as in
            timm. It must tell every variable that is trained and may tell others.
        **kwargs: as for `keras.optimizers.AdamW`.

    Raises:
        ValueError: when it meets variables that `learning_rate_scales` does not tell.
    """

    def __init__(self, *args, no_decay=NO_DECAY, learning_rate_scales=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.no_decay = tuple(no_decay)
        self.learning_rate_scales = learning_rate_scales and dict(learning_rate_scales)
        if self.no_decay:
            # On TensorFlow Keras matches the name of the tf.Variable, such as `bias/replica_1:0`.
            names = "|".join(self.no_decay)
            self.exclude_from_weight_decay(var_names=[rf"(^|/)({names})(/replica_\d+)?(:\d+)?$"])

    def build(self, var_list):
        if self.learning_rate_scales and not self.built:
            paths = [getattr(variable, "path", variable.name) for variable in var_list]
            if missing := [path for path in paths if path not in self.learning_rate_scales]:
                raise ValueError(
                    "learning_rate_scales must tell every variable that is trained. "
                    f"Received: {len(self.learning_rate_scales)} paths without {missing}"
                )
            self._scales = [float(self.learning_rate_scales[path]) for path in paths]
        super().build(var_list)

    def apply(self, grads, trainable_variables=None):
        if not fuses():
            return super().apply(grads, trainable_variables)
        if not self.built:
            self.build(trainable_variables)

        def update(grads):
            super(AdamW, self).apply(grads, trainable_variables)

        return fused(update)(list(grads))

    def _apply_weight_decay(self, variables):
        """Nothing. `update_step` decays: Keras' own way, before it, has one learning rate for all.

        The name is private to Keras; should it change there, weights would be decayed twice, which the tests see.
        """

    def update_step(self, gradient, variable, learning_rate):
        if self.learning_rate_scales:
            learning_rate = learning_rate * self._scales[self._get_variable_index(variable)]
        if self.weight_decay and self._use_weight_decay(variable):
            rate = keras.ops.cast(learning_rate * self.weight_decay, variable.dtype)
            self.assign_sub(variable, variable * rate)
        super().update_step(gradient, variable, learning_rate)

    def get_config(self):
        scales = self.learning_rate_scales and dict(self.learning_rate_scales)
        return {**super().get_config(), "no_decay": list(self.no_decay), "learning_rate_scales": scales}


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
