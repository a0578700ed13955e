"""Keras' optimizers with the rules of Vision Transformers, which survive saving."""

import keras
from keras import ops

from keras_vit.backend.xla_kernels import is_fused, xla_program

# Names of variables that no published recipe decays: biases, norms, LayerScale, tokens, positions;
# of Swin Transformers all that the position bias is made of.
NO_DECAY = ("bias", "beta", "gamma", "class_token", "distillation_token", "register_tokens", "position_embedding")
NO_DECAY += ("query_bias", "value_bias", "relative_position_bias_table", "logit_scale")
NO_DECAY += ("cpb_kernel_1", "cpb_bias_1", "cpb_kernel_2")

# Muon is for the matrices between hidden features: those of patches and classes are not among them.
NOT_HIDDEN = r"^(?!(.*/)?(encoder_block_\d+|patch_merging_\d+|representation|pre_logits)/(.*/)?kernel$)"


class Rules:
    """What every optimizer here does beyond Keras': a mixin, in front of a class of `keras.optimizers`.

    Keras forgets exclusions from weight decay when a model is saved, so a reloaded model trains on with other rules;
    it has one learning rate for all variables, and no weight decay beside it. Weight decay is always decoupled:
    `p -= learning_rate * weight_decay * p`, in front of the update.

    Args:
        no_decay: names of variables that are not decayed. Default `NO_DECAY`.
        learning_rate_scales: dict from the path of a variable to what its learning rate is multiplied with, such as
            `layer_scales` gives, or `None`: 1 for all. The weight decay is multiplied by the same learning rate, as in
            timm. It must tell every variable that is trained and may tell others.
        decay_peak: float or `None`. With the peak of the learning rate here the weight decay is independent of it, as
            in big_vision: `p -= learning_rate / decay_peak * weight_decay * p`, whatever the variable's scale.
            Default `None`.
        ends_with_average: bool. With `use_ema`, whether `fit` ends with the averages, as in Keras, or keeps them
            beside, in `averages()`. Default True.
        **kwargs: as for the class of Keras.

    Raises:
        ValueError: when it meets variables that `learning_rate_scales` does not tell.
    """

    def __init__(
        self,
        *args,
        no_decay=NO_DECAY,
        learning_rate_scales=None,
        decay_peak=None,
        ends_with_average=True,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        self.ends_with_average = bool(ends_with_average)
        self.no_decay = tuple(no_decay)
        self.learning_rate_scales = learning_rate_scales and dict(learning_rate_scales)
        self.decay_peak = decay_peak
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

    def _backend_apply_gradients(self, grads, trainable_variables):
        """All that an update is, clipping and averages included, as one XLA program within `fused_training`.

        The name is private to Keras; should it change there, updates would take longer.
        """
        update = super()._backend_apply_gradients
        if not is_fused():
            return update(grads, trainable_variables)
        return xla_program(lambda grads: update(grads, trainable_variables))(list(grads))

    def _apply_weight_decay(self, variables):
        """Nothing. `update_step` decays: Keras' own way, before it, has one learning rate for all.

        The name is private to Keras; should it change there, weights would be decayed twice, which the tests see.
        """

    def decays(self, variable):
        """Whether a variable is decayed at all."""
        return bool(self.weight_decay) and self._use_weight_decay(variable)

    def scaled(self, variable, learning_rate):
        """The learning rate of a variable."""
        if not self.learning_rate_scales:
            return learning_rate
        return learning_rate * self._scales[self._get_variable_index(variable)]

    def update_step(self, gradient, variable, learning_rate):
        rate = self.scaled(variable, learning_rate)
        if self.decays(variable):
            decay = rate if self.decay_peak is None else learning_rate / self.decay_peak
            self.assign_sub(variable, variable * ops.cast(decay * self.weight_decay, variable.dtype))
        super().update_step(gradient, variable, rate)

    def finalize_variable_values(self, var_list):
        if self.ends_with_average:
            super().finalize_variable_values(var_list)

    def averages(self):
        """Pairs of every trained variable and its moving average; empty where none is kept (`use_ema`) or built.

        Their list is private to Keras, which has no public way to them.
        """
        if not (self.use_ema and self.built):
            return []
        return list(zip(self._trainable_variables, self._model_variables_moving_average, strict=True))

    def _update_model_variables_moving_average(self, trainable_variables):
        """One update of the averages for every update of the weights.

        Keras' own has one a step also where gradients are accumulated over several. The name is private to Keras;
        should it change there, the averages would run ahead, which the tests see.
        """
        if not self.gradient_accumulation_steps:
            super()._update_model_variables_moving_average(trainable_variables)
            return
        updated = ops.equal((self._iterations + 1) % self.gradient_accumulation_steps, 0)
        momentum = ops.where(self.iterations > 0, self.ema_momentum, 0.0)
        for variable, average in self.averages():
            new = momentum * average + (1 - momentum) * variable
            average.assign(ops.where(updated, new, ops.convert_to_tensor(average)))

    def get_config(self):
        scales = self.learning_rate_scales and dict(self.learning_rate_scales)
        rules = {"no_decay": list(self.no_decay), "learning_rate_scales": scales, "decay_peak": self.decay_peak}
        return {**super().get_config(), **rules, "ends_with_average": self.ends_with_average}


@keras.saving.register_keras_serializable(package="keras_vit")
class AdamW(Rules, keras.optimizers.AdamW):
    """`keras.optimizers.AdamW` with `Rules`, whose arguments it takes too."""


@keras.saving.register_keras_serializable(package="keras_vit")
class SGD(Rules, keras.optimizers.SGD):
    """`keras.optimizers.SGD` with `Rules`, whose arguments it takes too."""


@keras.saving.register_keras_serializable(package="keras_vit")
class Lion(Rules, keras.optimizers.Lion):
    """`keras.optimizers.Lion` with `Rules`, whose arguments it takes too."""


@keras.saving.register_keras_serializable(package="keras_vit")
class Lamb(Rules, keras.optimizers.Lamb):
    """LAMB as DeiT-III was trained with it, with `Rules`, whose arguments it takes too.

    Keras decays beside the step and scales every step by the ratio of norms. Here, as in the implementations that
    published models used, the weight decay is part of the step that is scaled, and what is not decayed takes
    Adam's step as it is. (With `decay_peak` it stays beside the step.)

    Sources: You et al., arXiv:1904.00962; timm `optim/lamb.py`, `Lamb`, whose defaults are those of NVIDIA Apex.
    """

    def update_step(self, gradient, variable, learning_rate):
        rate = ops.cast(self.scaled(variable, learning_rate), variable.dtype)
        index, step = self._get_variable_index(variable), ops.cast(self.iterations + 1, variable.dtype)
        first, second = self._momentums[index], self._velocities[index]
        gradient = ops.cast(gradient, variable.dtype)
        self.assign_add(first, (gradient - first) * (1 - self.beta_1))
        self.assign_add(second, (ops.square(gradient) - second) * (1 - self.beta_2))
        first_hat = first / (1 - ops.power(ops.cast(self.beta_1, variable.dtype), step))
        second_hat = second / (1 - ops.power(ops.cast(self.beta_2, variable.dtype), step))
        update = first_hat / (ops.sqrt(second_hat) + self.epsilon)
        if not self.decays(variable):
            self.assign_sub(variable, rate * update)
            return
        if self.decay_peak is None:
            update = update + self.weight_decay * variable
        else:
            decay = ops.cast(learning_rate * self.weight_decay / self.decay_peak, variable.dtype)
            self.assign_sub(variable, variable * decay)
        weight_norm, update_norm = (ops.sqrt(ops.sum(ops.square(x))) for x in (variable, update))
        usable = ops.logical_and(weight_norm > 0, update_norm > 0)
        ratio = ops.where(usable, weight_norm / ops.where(usable, update_norm, 1.0), 1.0)
        self.assign_sub(variable, rate * ratio * update)


@keras.saving.register_keras_serializable(package="keras_vit")
class Muon(Rules, keras.optimizers.Muon):
    """`keras.optimizers.Muon` with `Rules`, whose arguments it takes too: Muon for hidden kernels, Adam for the rest.

    By default the rest is all but the kernels of encoder blocks, patch merging, attention pooling and pre-logits: so
    patches, positions, tokens, biases, norms and heads. `weight_decay` is that of all variables.

    Source: Jordan et al., https://kellerjordan.github.io/posts/muon; Liu et al., arXiv:2502.16982, for its scale.
    """

    def __init__(self, *args, exclude_layers=(NOT_HIDDEN,), **kwargs):
        kwargs.pop("adam_weight_decay", None)  # In the config of Keras; `Rules` decays all variables alike.
        super().__init__(*args, exclude_layers=list(exclude_layers), **kwargs)
