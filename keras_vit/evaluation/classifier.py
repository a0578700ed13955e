"""A classifier as an evaluation sees it: its outputs for a batch of images, and what makes them probabilities."""

import dataclasses

import numpy as np

from keras_vit.backend.runtime import to_numpy
from keras_vit.calibration import Calibration, check_activation
from keras_vit.metadata import metadata, output
from keras_vit.outputs import class_names, score_activation
from keras_vit.preprocessing import InputSpec

# As in Keras' losses: probabilities closer to 0 or 1 would have no finite logit in float32.
_EPSILON = 1e-7


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A model with what its outputs mean.

    Args:
        name: str, for errors.
        predict: callable from float32 images `(batch, height, width, channels)` to outputs `(batch, units)`.
        units: int. Outputs of an image; a single one distinguishes two classes.
        activation: `softmax` or `sigmoid`. What makes, or made, probabilities of logits.
        from_logits: bool. Whether the outputs are logits.
        labels: names of the classes, or `None`.
        input_spec: `InputSpec`. How its images are prepared.
        calibration: `keras_vit.calibration.Calibration` or `None`.
    """

    name: str
    predict: object
    units: int
    activation: str
    from_logits: bool
    labels: tuple | None
    input_spec: InputSpec
    calibration: Calibration | None = None

    @property
    def num_classes(self):
        """int. Number of classes, of a single output two."""
        return max(self.units, 2)

    @property
    def class_names(self):
        """list of str. Names of all classes, or their numbers."""
        return class_names(self.labels, self.units)

    def logits(self, outputs):
        """Converts outputs to float32 logits `(batch, classes)`, of a single output those of both classes.

        Raises:
            ValueError: if they are not finite.
        """
        outputs = np.asarray(outputs, "float32")
        if not np.isfinite(outputs).all():
            raise ValueError(f"the outputs of a model must be finite. Received: model={self.name!r}, whose are not")
        if not self.from_logits:
            clipped = np.clip(outputs, _EPSILON, 1 - _EPSILON)
            is_binary = self.activation == "sigmoid"
            outputs = np.log(clipped) - (np.log1p(-clipped) if is_binary else 0)
        if self.units == 1:
            # Of two classes, of which the first one has the logit 0.
            outputs = np.concatenate([np.zeros_like(outputs), outputs], axis=-1)
        return outputs

    def calibrated(self, logits):
        """Applies the calibration, if there is one, to logits of `logits`."""
        if self.calibration is None:
            return logits
        logits = logits / np.float32(self.calibration.temperature)
        bias = self.calibration.bias
        if bias is None:
            return logits
        return logits + np.asarray(bias if self.units > 1 else (0.0, *bias), "float32")


def classifier_of(model, activation=None):
    """Makes a `Classifier` of a Keras model.

    Args:
        model: a model of keras_vit, or one built around one, with classes; or a `Classifier`, which is returned.
        activation: as for `keras_vit.outputs.score_activation`; `None`: by the model.

    Returns:
        A `Classifier`.

    Raises:
        ValueError: if the model has no classes.
    """
    if isinstance(model, Classifier):
        return model
    content, found = metadata(model), output(model)
    if not found.has_head:
        raise ValueError(
            f"the model has no classifier. Received: {model.name!r} with num_classes={content.config.num_classes}"
        )
    activation = check_activation(content.calibration, activation)
    kind = score_activation(model, found, content.labels, activation)
    if kind == "linear":
        raise ValueError(f"the model must have classes; it is a regression. Received: {model.name!r}")
    return Classifier(
        name=model.name,
        predict=lambda images: to_numpy(model.predict_on_batch(images)),
        units=found.units,
        activation=kind or found.activation,
        from_logits=kind is not None,
        labels=content.labels,
        input_spec=content.input_spec,
        calibration=content.calibration,
    )
