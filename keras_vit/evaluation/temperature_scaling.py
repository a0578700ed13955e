"""Fits the calibration of a classifier: a temperature, and with several labels an image a bias for each class.

Temperature scaling of Guo et al. (arXiv:1706.04599) minimizes the negative log-likelihood of held-out labels. It is
convex in the inverse temperature and the biases, so Newton's method finds the minimum.
"""

import dataclasses
import json

import numpy as np

from keras_vit.calibration import Calibration
from keras_vit.evaluation.batches import image_batches, read_labels
from keras_vit.evaluation.classifier import classifier_of
from keras_vit.evaluation.figures import reliability_figure
from keras_vit.evaluation.metrics import error_of, reliability
from keras_vit.metadata import composition, update_metadata

_ROWS = 4096  # of logits that are computed with in float64 at a time
_STEPS, _HALVINGS, _TOLERANCE = 100, 40, 1e-9
_RANGE = (1e-3, 1e3)  # of the inverse temperature: beyond there is no minimum


@dataclasses.dataclass(frozen=True)
class CalibrationReport:
    """The change that a calibration makes, on the images that it was fitted to.

    Args:
        calibration: `keras_vit.calibration.Calibration`.
        images: int.
        before, after: dicts of `ece`, the expected calibration error, `nll`, the mean negative log-likelihood in nats
            (with several labels an image the mean binary cross-entropy), and `reliability`, the bins.
    """

    calibration: Calibration
    images: int
    before: dict
    after: dict

    def to_dict(self):
        """Returns the report as a dict of JSON types."""
        return {**vars(self), "calibration": self.calibration.get_config()}

    def to_json(self):
        """Returns the report as JSON text."""
        return json.dumps(self.to_dict(), indent=1)

    def figures(self):
        """Draws the reliability `before` and `after`.

        Returns:
            dict from the name to a matplotlib `Figure`.

        Raises:
            ImportError: without matplotlib.
        """
        is_multi_label = self.calibration.activation == "sigmoid" and self.calibration.outputs > 1
        parts = {"before": self.before, "after": self.after}
        return {
            name: reliability_figure(part["reliability"], part["ece"], is_multi_label) for name, part in parts.items()
        }


def calibrate(model, dataset, *, multi_label=None, bias=True, activation=None, batch_size=32, progress=None):
    """Fits a calibration on held-out images and stores it in the model's metadata.

    Exports, `keras_vit predict` and `keras_vit.evaluation.evaluate` apply it to the probabilities. What the model
    returns stays as it is, and so does the best class. Use images that the model was not trained on.

    Args:
        model: a model of keras_vit with classes, or one built around one. Its metadata is changed.
        dataset: as for `keras_vit.evaluation.evaluate`.
        multi_label: bool. Whether the classes of an image are independent of each other, so that it may have several
            or none. Default `None`: by the model's activation, `sigmoid` or `softmax`.
        bias: bool. Whether each class gets a bias, with several labels an image. Default True.
        activation: `softmax` or `sigmoid`, or `None`: by the model.
        batch_size: int. For a pair of arrays.
        progress: callable that gets the number of images of each batch, or `None`.

    Returns:
        A `CalibrationReport`.

    Raises:
        ValueError: if there are no images; if labels do not fit the model; if they tell nothing about the temperature:
            all of one class, or every image right, or a class that all images have or none.
    """
    classifier = dataclasses.replace(classifier_of(model, activation), calibration=None)
    if multi_label is None:
        multi_label = classifier.activation == "sigmoid" and classifier.units > 1
    if multi_label and classifier.units == 1:
        raise ValueError(f"multi_label needs a model of two outputs or more. Received: model={classifier.name!r}")
    if classifier.units > 1 and not classifier.from_logits and multi_label != (classifier.activation == "sigmoid"):
        raise ValueError(
            "multi_label must be as the model ends: in a sigmoid for independent classes, else in a softmax. "
            f"Received: multi_label={multi_label} for a model that ends in {classifier.activation}"
        )
    logits, labels = _collect(classifier, dataset, multi_label, batch_size, progress)
    if labels.ndim == 2:
        inverse, biases = _fit_sigmoid(logits, labels, bias, classifier.class_names)
        fitted = None if biases is None else tuple(biases.tolist())
        calibration = Calibration(1 / inverse, "sigmoid", classifier.units, fitted)
    else:
        inverse = _fit_softmax(logits, labels)
        # A single logit is that of a softmax whose other logit is 0.
        kind = "sigmoid" if classifier.units == 1 else "softmax"
        calibration = Calibration(1 / inverse, kind, classifier.units)
    update_metadata(composition(model).inner, calibration=calibration)
    before = _measure(logits, labels)
    after = _measure(dataclasses.replace(classifier, calibration=calibration).calibrated(logits), labels)
    return CalibrationReport(calibration, len(labels), before, after)


def _collect(classifier, dataset, multi_label, batch_size, progress):
    """Returns float32 logits `(images, classes)` and labels, class numbers or bool rows."""
    logits, labels, kind = [], [], "multi" if multi_label else "single"
    for images, targets, weights in image_batches(dataset, classifier.input_spec, batch_size):
        keep = np.ones(len(targets), bool) if weights is None else weights > 0
        logits.append(classifier.logits(classifier.predict(images))[keep])
        labels.append(read_labels(targets, classifier, kind)[keep])
        if progress is not None:
            progress(len(keep))
    if not logits or not sum(map(len, labels)):
        raise ValueError("a data set must hold at least one image. Received: none")
    return np.concatenate(logits), np.concatenate(labels)


def _fit_softmax(logits, labels):
    """Finds the inverse temperature, a float."""
    if len(np.unique(labels)) < 2:
        raise ValueError(
            f"images to calibrate with must be of two classes or more. Received: {len(labels)} images of one class"
        )
    if (logits.argmax(axis=1) == labels).all():
        raise ValueError(
            "images to calibrate with must include some that the model gets wrong: otherwise the best temperature is "
            f"0. Use other images, or more. Received: {len(labels)} images, all right"
        )

    def derivatives(inverse):
        loss = gradient = curvature = 0.0
        for start in range(0, len(labels), _ROWS):
            rows = logits[start : start + _ROWS].astype("float64")
            own = rows[np.arange(len(rows)), labels[start : start + _ROWS]]
            scaled = rows * inverse[0]
            shift = scaled.max(axis=1, keepdims=True)
            weights = np.exp(scaled - shift)
            totals = weights.sum(axis=1)
            means = (weights * rows).sum(axis=1) / totals
            squares = (weights * rows**2).sum(axis=1) / totals
            loss += (np.log(totals) + shift[:, 0] - inverse[0] * own).sum()
            gradient += (means - own).sum()
            curvature += (squares - means**2).sum()
        return loss / len(labels), np.array([gradient]) / len(labels), np.array([curvature]) / len(labels)

    (inverse,) = _minimize(derivatives, np.array([1.0]), lambda gradient, curvature: gradient / curvature)
    return float(inverse)


def _fit_sigmoid(logits, labels, bias, class_names):
    """Finds the inverse temperature, a float, and the biases, an array `(classes,)`, or `None`."""
    constant = [name for name, column in zip(class_names, labels.T, strict=True) if column.all() or not column.any()]
    if bias and constant:
        raise ValueError(
            "a bias needs images with the class and images without it; bias=False (--no-bias) fits the temperature "
            f"alone. Received: {len(constant)} classes that all of {len(labels)} images have or none: "
            f"{', '.join(constant[:5])}{', ...' if len(constant) > 5 else ''}"
        )
    if not labels.any() or labels.all():
        raise ValueError(f"images to calibrate with must have and lack classes. Received: {len(labels)} alike")
    count = labels.size

    def derivatives(values):
        inverse, biases = values[0], values[1:] if bias else 0.0
        loss, gradient = 0.0, np.zeros(len(values))
        corner, edge, diagonal = 0.0, 0.0, 0.0
        for start in range(0, len(labels), _ROWS):
            rows, wanted = logits[start : start + _ROWS].astype("float64"), labels[start : start + _ROWS]
            scaled = inverse * rows + biases
            loss += (np.logaddexp(0, scaled) - scaled * wanted).sum()
            scores = 1 / (1 + np.exp(-np.clip(scaled, -500, 500)))
            errors, weights = scores - wanted, scores * (1 - scores)
            gradient[0] += (errors * rows).sum()
            corner += (weights * rows**2).sum()
            if bias:
                gradient[1:] += errors.sum(axis=0)
                edge, diagonal = edge + (weights * rows).sum(axis=0), diagonal + weights.sum(axis=0)
        return loss / count, gradient / count, (corner / count, edge / count, diagonal / count)

    def solve(gradient, curvature):
        # The Hessian is diagonal but for the row and the column of the temperature.
        corner, edge, diagonal = curvature
        if not bias:
            return gradient / corner
        first = (gradient[0] - (edge * gradient[1:] / diagonal).sum()) / (corner - (edge**2 / diagonal).sum())
        return np.concatenate([[first], (gradient[1:] - edge * first) / diagonal])

    values = _minimize(derivatives, np.concatenate([[1.0], np.zeros(logits.shape[1] if bias else 0)]), solve)
    return float(values[0]), values[1:] if bias else None


def _minimize(derivatives, values, solve):
    """Minimizes a convex function by Newton's method with halved steps.

    Args:
        derivatives: callable from values to `(loss, gradient, curvature)`.
        values: array. The first one is the inverse temperature.
        solve: callable from gradient and curvature to the step of Newton's method.

    Raises:
        ValueError: if there is no minimum at a temperature.
    """
    loss, gradient, curvature = derivatives(values)
    for _ in range(_STEPS):
        with np.errstate(divide="ignore", invalid="ignore"):
            step = solve(gradient, curvature)
        if not np.isfinite(step).all():
            break
        for _ in range(_HALVINGS):
            moved = values - step
            if _RANGE[0] < moved[0] < _RANGE[1]:
                found = derivatives(moved)
                if found[0] <= loss + 1e-15:
                    break
            step = step / 2
        else:
            break
        values, (loss, gradient, curvature) = moved, found
        if np.abs(step).max() <= _TOLERANCE * max(1.0, np.abs(values).max()):
            break
    # Where the minimum lies outside the range, values stop at its edge with a gradient that is not 0.
    if not np.abs(gradient).max() < 1e-5:
        raise ValueError(
            "images to calibrate with must have a best temperature: the model's logits must tell something about the "
            "labels, but not everything. Use other images, or more. "
            f"Received: an inverse temperature of {values[0]:.3g}"
        )
    return values


def _measure(logits, labels):
    """Returns `ece`, `nll` and `reliability` of logits."""
    losses, confidence, correct = [], [], []
    for start in range(0, len(labels), _ROWS):
        rows, wanted = logits[start : start + _ROWS].astype("float64"), labels[start : start + _ROWS]
        if labels.ndim == 2:
            losses.append((np.logaddexp(0, rows) - rows * wanted).mean(axis=1))
            confidence.append((1 / (1 + np.exp(-np.clip(rows, -500, 500)))).ravel())
            correct.append(wanted.ravel())
            continue
        shifted = rows - rows.max(axis=1, keepdims=True)
        totals = np.exp(shifted).sum(axis=1)
        losses.append(np.log(totals) - shifted[np.arange(len(rows)), wanted])
        confidence.append(1 / totals)
        correct.append(rows.argmax(axis=1) == wanted)
    bins = reliability(np.concatenate(confidence), np.concatenate(correct))
    return {"ece": float(error_of(bins)), "nll": float(np.concatenate(losses).mean()), "reliability": bins}
