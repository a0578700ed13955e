"""Keras optimizers with weight-decay exclusions and per-variable learning rates that survive saving."""

import keras
from keras import ops

from keras_vit.backend.xla_kernels import is_fused, xla_program

# Names of variables that published recipes exclude from weight decay: biases, norms, LayerScale, tokens, position
# embeddings, and every parameter of Swin's relative position bias.
NO_DECAY = ("bias", "beta", "gamma", "class_token", "distillation_token", "register_tokens", "position_embedding")
NO_DECAY += ("query_bias", "value_bias", "relative_position_bias_table", "logit_scale")
NO_DECAY += ("cpb_kernel_1", "cpb_bias_1", "cpb_kernel_2")

# Muon is for matrices between hidden features. This pattern excludes every other variable, patch projection and heads
# among them.
MUON_EXCLUDED = r"^(?!(.*/)?(encoder_block_\d+|patch_merging_\d+|representation|pre_logits)/(.*/)?kernel$)"


class PerVariableMixin:
    """Mixin that gives an optimizer of Keras weight-decay exclusions and a learning rate per variable.

    Keras does not save exclusions from weight decay, so a reloaded model would be trained with other settings, and it
    has one learning rate for all variables. Weight decay is decoupled: `p -= learning_rate * weight_decay * p`, before
    the update. The mixin comes before the class of `keras.optimizers` in the bases.

    Args:
        no_decay: names of variables that are excluded from weight decay. Default `NO_DECAY`.
        learning_rate_scales: dict from the path of a variable to the factor of its learning rate, for example from
            `layer_decay_scales`, or `None` for a factor of 1. Weight decay is multiplied by the scaled learning rate,
            as in timm. Every trained variable needs an entry; further entries are ignored.
        decay_peak: float or `None`. The peak of the learning rate, which makes weight decay independent of it, as in
            big_vision: `p -= learning_rate / decay_peak * weight_decay * p`, whatever the variable's scale. Default
            `None`.
        ends_with_average: bool. With `use_ema`, whether `fit` ends with the moving averages as weights, as in Keras.
            If False they are kept apart, see `moving_averages`. Default True.
        **kwargs: arguments of the Keras optimizer.

    Raises:
        ValueError: if a trained variable has no entry in `learning_rate_scales`.
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
                    "learning_rate_scales must have an entry for every trained variable. "
                    f"Received: {len(self.learning_rate_scales)} paths, missing {missing}"
                )
            self._scales = [float(self.learning_rate_scales[path]) for path in paths]
        super().build(var_list)

    def _backend_apply_gradients(self, grads, trainable_variables):
        """Runs the update, with clipping and moving averages, as one XLA program inside `fused_training`.

        A private method of Keras: if Keras renames it, updates become slower.
        """
        update = super()._backend_apply_gradients
        if not is_fused():
            return update(grads, trainable_variables)
        return xla_program(lambda grads: update(grads, trainable_variables))(list(grads))

    def _apply_weight_decay(self, variables):
        """Does nothing: `update_step` applies weight decay with the learning rate of each variable.

        A private method of Keras: if Keras renames it, weights are decayed twice, which the tests detect.
        """

    def is_decayed(self, variable):
        """Returns whether weight decay applies to a variable."""
        return bool(self.weight_decay) and self._use_weight_decay(variable)

    def scaled_learning_rate(self, variable, learning_rate):
        """Returns the learning rate of a variable."""
        if not self.learning_rate_scales:
            return learning_rate
        return learning_rate * self._scales[self._get_variable_index(variable)]

    def update_step(self, gradient, variable, learning_rate):
        rate = self.scaled_learning_rate(variable, learning_rate)
        if self.is_decayed(variable):
            decay = rate if self.decay_peak is None else learning_rate / self.decay_peak
            self.assign_sub(variable, variable * ops.cast(decay * self.weight_decay, variable.dtype))
        super().update_step(gradient, variable, rate)

    def finalize_variable_values(self, var_list):
        if self.ends_with_average:
            super().finalize_variable_values(var_list)

    def moving_averages(self):
        """Returns pairs of a trained variable and its moving average.

        Reads a private list of Keras, which has no public access to the averages.

        Returns:
            A list; empty without `use_ema` and before the optimizer is built.
        """
        if not (self.use_ema and self.built):
            return []
        return list(zip(self._trainable_variables, self._model_variables_moving_average, strict=True))

    def _update_model_variables_moving_average(self, trainable_variables):
        """Updates the averages once per update of the weights.

        Keras updates them at every step, also while gradients accumulate. A private method of Keras: if Keras renames
        it, the averages move too often, which the tests detect.
        """
        if not self.gradient_accumulation_steps:
            super()._update_model_variables_moving_average(trainable_variables)
            return
        updated = ops.equal((self._iterations + 1) % self.gradient_accumulation_steps, 0)
        momentum = ops.where(self.iterations > 0, self.ema_momentum, 0.0)
        for variable, average in self.moving_averages():
            new = momentum * average + (1 - momentum) * variable
            average.assign(ops.where(updated, new, ops.convert_to_tensor(average)))

    def get_config(self):
        scales = self.learning_rate_scales and dict(self.learning_rate_scales)
        rules = {"no_decay": list(self.no_decay), "learning_rate_scales": scales, "decay_peak": self.decay_peak}
        return {**super().get_config(), **rules, "ends_with_average": self.ends_with_average}


@keras.saving.register_keras_serializable(package="keras_vit")
class AdamW(PerVariableMixin, keras.optimizers.AdamW):
    """`keras.optimizers.AdamW` that also takes the arguments of `PerVariableMixin`."""


@keras.saving.register_keras_serializable(package="keras_vit")
class SGD(PerVariableMixin, keras.optimizers.SGD):
    """`keras.optimizers.SGD` that also takes the arguments of `PerVariableMixin`."""


@keras.saving.register_keras_serializable(package="keras_vit")
class Lion(PerVariableMixin, keras.optimizers.Lion):
    """`keras.optimizers.Lion` that also takes the arguments of `PerVariableMixin`."""


@keras.saving.register_keras_serializable(package="keras_vit")
class Lamb(PerVariableMixin, keras.optimizers.Lamb):
    """LAMB as in timm, which DeiT-III was trained with; also takes the arguments of `PerVariableMixin`.

    Keras applies weight decay apart from the step and scales every step by the ratio of norms. Here, as in the
    implementations that published models used, weight decay is part of the scaled step, and variables without weight
    decay take Adam's step unscaled. With `decay_peak` weight decay stays apart from the step.

    Sources: You et al., arXiv:1904.00962; timm `optim/lamb.py`, `Lamb`, whose defaults are those of NVIDIA Apex.
    """

    def update_step(self, gradient, variable, learning_rate):
        rate = ops.cast(self.scaled_learning_rate(variable, learning_rate), variable.dtype)
        index, step = self._get_variable_index(variable), ops.cast(self.iterations + 1, variable.dtype)
        first, second = self._momentums[index], self._velocities[index]
        gradient = ops.cast(gradient, variable.dtype)
        self.assign_add(first, (gradient - first) * (1 - self.beta_1))
        self.assign_add(second, (ops.square(gradient) - second) * (1 - self.beta_2))
        first_hat = first / (1 - ops.power(ops.cast(self.beta_1, variable.dtype), step))
        second_hat = second / (1 - ops.power(ops.cast(self.beta_2, variable.dtype), step))
        update = first_hat / (ops.sqrt(second_hat) + self.epsilon)
        if not self.is_decayed(variable):
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
class Muon(PerVariableMixin, keras.optimizers.Muon):
    """`keras.optimizers.Muon` for hidden kernels and Adam for all other variables.

    Also takes the arguments of `PerVariableMixin`. By default Muon updates the kernels of encoder blocks, patch
    merging, attention pooling and pre-logits; Adam updates patch projection, position embeddings, tokens, biases, norms
    and heads. `weight_decay` applies to both.

    Source: Jordan et al., https://kellerjordan.github.io/posts/muon; Liu et al., arXiv:2502.16982, for its scale.
    """

    def __init__(self, *args, exclude_layers=(MUON_EXCLUDED,), **kwargs):
        kwargs.pop(
            "adam_weight_decay", None
        )  # Saved by Keras; `PerVariableMixin` uses `weight_decay` for all variables.
        super().__init__(*args, exclude_layers=list(exclude_layers), **kwargs)
