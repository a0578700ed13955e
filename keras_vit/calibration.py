"""Calibration of a classifier's probabilities: a temperature, and a bias for each of several labels.

A `Calibration` is part of a model's metadata. It changes probabilities alone; what the model returns stays as it is.
"""

import dataclasses

from keras import ops

from keras_vit.validation import check_choice, check_positive, is_number

# Probabilities closer to 0 or 1 have no finite logit in float32; Keras' losses clip them alike.
_EPSILON = 1e-7


@dataclasses.dataclass(frozen=True)
class Calibration:
    """A temperature that divides the logits before they become probabilities (Guo et al., arXiv:1706.04599).

    Args:
        temperature: float above 0. Above 1 probabilities become less confident, below 1 more.
        activation: `softmax` for one class an image, `sigmoid` for several or for a single logit.
        outputs: int. Number of logits of the model that it was fitted for.
        bias: `None`, or a tuple of `outputs` floats that are added to the divided logits of a `sigmoid`.

    Raises:
        ValueError: if a value is invalid.
    """

    temperature: float
    activation: str
    outputs: int
    bias: tuple | None = None

    def __post_init__(self):
        if not is_number(self.temperature) or self.temperature <= 0:
            raise ValueError(f"temperature must be a positive number. Received: temperature={self.temperature!r}")
        check_choice(self.activation, ("softmax", "sigmoid"), "activation")
        check_positive(self.outputs, "outputs")
        if self.bias is None:
            return
        bias = tuple(self.bias)
        if self.activation != "sigmoid" or len(bias) != self.outputs or not all(map(is_number, bias)):
            raise ValueError(
                "bias must be a number for each output of a sigmoid. "
                f"Received: bias={self.bias!r} with activation={self.activation!r}, outputs={self.outputs}"
            )
        object.__setattr__(self, "bias", bias)

    def get_config(self):
        """Returns the fields as a dict of JSON types."""
        return {**dataclasses.asdict(self), "bias": None if self.bias is None else list(self.bias)}

    def describe(self):
        """Describes the calibration in words."""
        bias = "" if self.bias is None else " and a bias per class"
        return f"temperature {self.temperature:.4g}{bias}"

    def probabilities(self, outputs, from_logits):
        """Computes calibrated probabilities on the active backend of Keras.

        Args:
            outputs: tensor `(batch, outputs)`, logits, or probabilities made by `activation`.
            from_logits: bool. Whether they are logits.

        Returns:
            A tensor `(batch, outputs)`.
        """
        if not from_logits:
            clipped = ops.clip(outputs, _EPSILON, 1 - _EPSILON)
            # The logits of a softmax are known but for a constant, which it does not depend on.
            outputs = ops.log(clipped) - (ops.log(1 - clipped) if self.activation == "sigmoid" else 0.0)
        logits = outputs / self.temperature
        if self.bias is not None:
            logits = logits + ops.convert_to_tensor(self.bias, dtype=logits.dtype)
        return ops.softmax(logits) if self.activation == "softmax" else ops.sigmoid(logits)


def check_activation(calibration, activation):
    """Returns the activation that makes probabilities of a calibrated model's logits.

    Args:
        calibration: `Calibration` or `None`.
        activation: what somebody asked for, or `None`.

    Raises:
        ValueError: if it is another than that of the calibration.
    """
    if calibration is None:
        return activation
    if activation not in (None, calibration.activation):
        raise ValueError(
            f"the model is calibrated for probabilities by {calibration.activation}; calibrate it again for others, or "
            "remove the calibration: keras_vit.update_metadata(model, calibration=None). "
            f"Received: activation={activation!r}"
        )
    return calibration.activation
