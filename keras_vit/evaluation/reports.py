"""Reports of an evaluation: what was measured, as JSON, as text and as figures."""

import csv
import dataclasses
import json
import pathlib

import numpy as np

from keras_vit.atomic import replaced
from keras_vit.evaluation import figures
from keras_vit.evaluation.contact_sheet import contact_sheet

_MOST_CLASSES = 100  # A report of more classes lists the most frequent confusions instead of the whole matrix.
_CONFUSIONS = 20
_DPI = 120


@dataclasses.dataclass(frozen=True)
class Mistake:
    """An image about which the model is confident and wrong.

    Args:
        image: str. Its name.
        label: str. The right class, or classes.
        predicted: str. The class that the model is wrong about.
        confidence: float. The probability that the model gives to its wrong answer.
        pixels: uint8 array `(height, width, channels)`, what the model saw; `None` for images that are no pictures.
    """

    image: str
    label: str
    predicted: str
    confidence: float
    pixels: np.ndarray | None = None

    def to_dict(self):
        """Returns all but the pixels as JSON types."""
        return {key: value for key, value in vars(self).items() if key != "pixels"}


class _Report:
    """Base of the reports: writes them."""

    class_measure = "recall"  # by which the worst classes are found

    def confusions(self, count=_CONFUSIONS):
        """Lists the most frequent confusions, as dicts with `label`, `predicted` and `images`; none are known here."""
        return []

    def to_json(self):
        """Returns the report as JSON text, all but figures and the predictions of single images."""
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False)

    def save(self, directory):
        """Writes `report.json`, `predictions.csv` and every figure as PNG into a folder.

        Args:
            directory: path. It is created.

        Returns:
            A list of paths.

        Raises:
            ImportError: without matplotlib; the other files are written.
        """
        directory = pathlib.Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        with replaced(directory / "report.json") as partial:
            partial.write_text(self.to_json() + "\n", encoding="utf-8")
        written = [directory / "report.json", self.save_predictions(directory / "predictions.csv")]
        for name, figure in self.figures().items():
            with replaced(directory / f"{name}.png") as partial:
                figure.savefig(partial, dpi=_DPI)
            written.append(directory / f"{name}.png")
        return written

    def save_predictions(self, path):
        """Writes a CSV file with a row for each image.

        Returns:
            `pathlib.Path` of the file.
        """
        path = pathlib.Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        header, rows = self._table()
        with replaced(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            writer.writerows(rows)
        return path

    def _mistake_sheet(self):
        """The figure of the worst mistakes in a dict, which is empty without pictures."""
        shown = [mistake for mistake in self.mistakes if mistake.pixels is not None]
        if not shown:
            return {}
        titles = [f"{m.label}\n{m.predicted} {m.confidence:.2f}" for m in shown]
        sheet = contact_sheet([m.pixels for m in shown], titles, title="most confident mistakes: label, prediction")
        return {"mistakes": sheet}


@dataclasses.dataclass(frozen=True)
class SingleLabelReport(_Report):
    """Results of a classifier on images of one class each.

    Args:
        images: int. Number of images.
        accuracy: float. Fraction of images whose most probable class is right (top-1).
        interval: `(low, high)`, the 95 % bootstrap interval of `accuracy`.
        top5: float or `None`. Fraction of images whose right class is among the best five; `None` with five classes or
            fewer, among whose best five it always is.
        loss: float. Mean negative log-likelihood of the right class, in nats.
        ece: float. Expected calibration error, 15 bins.
        reliability: tuple of dicts, the bins, see `keras_vit.evaluation.metrics.reliability`.
        classes: tuple of dicts, see `keras_vit.evaluation.per_class.classification_report`; empty where several labels
            of an image count as right.
        confusion_matrix: int array `(classes, classes)`, rows are the true classes; `None` as above.
        mistakes: tuple of `Mistake`, the most confident first.
        predictions: dict of arrays `(images,)`: `image`, `label`, `predicted`, `confidence`, `correct`, `loss`.
        class_names: tuple of str.
        images_per_second: float. Speed of reading and predicting, without the first batch, which compiles.
        calibration: dict or `None`. The calibration that the probabilities have.
        left_out: int. Images without a label, which are not counted.
    """

    images: int
    accuracy: float
    interval: tuple
    top5: float | None
    loss: float
    ece: float
    reliability: tuple
    classes: tuple
    confusion_matrix: np.ndarray | None
    mistakes: tuple
    predictions: dict
    class_names: tuple
    images_per_second: float
    calibration: dict | None = None
    left_out: int = 0

    def measures(self):
        """Returns the measures of the summary by name."""
        top5 = {} if self.top5 is None else {"top-5": self.top5}
        return {"accuracy": self.accuracy, "loss": self.loss, **top5}

    def to_dict(self):
        """Returns the report as a dict of JSON types; the whole confusion matrix of up to 100 classes alone."""
        matrix = self.confusion_matrix
        is_small = matrix is not None and len(matrix) <= _MOST_CLASSES
        return {
            "kind": "single-label",
            "images": self.images,
            "left_out": self.left_out,
            "accuracy": self.accuracy,
            "accuracy_interval": list(self.interval),
            "top5": self.top5,
            "loss": self.loss,
            "ece": self.ece,
            "images_per_second": round(self.images_per_second, 1),
            "calibration": self.calibration,
            "classes": list(self.classes),
            "confusions": self.confusions(),
            "confusion_matrix": matrix.tolist() if is_small else None,
            "reliability": list(self.reliability),
            "mistakes": [mistake.to_dict() for mistake in self.mistakes],
        }

    def confusions(self, count=_CONFUSIONS):
        if self.confusion_matrix is None:
            return []
        wrong = self.confusion_matrix.copy()
        np.fill_diagonal(wrong, 0)
        best = np.argsort(-wrong, axis=None, kind="stable")[:count]
        pairs = [(*np.unravel_index(i, wrong.shape), int(wrong.flat[i])) for i in best if wrong.flat[i]]
        return [{"label": self.class_names[i], "predicted": self.class_names[j], "images": n} for i, j, n in pairs]

    def figures(self):
        """Draws `confusion`, `reliability` and `mistakes`, as far as there is something to show.

        Returns:
            dict from the name to a matplotlib `Figure`.

        Raises:
            ImportError: without matplotlib.
        """
        drawn = {"reliability": figures.reliability_figure(self.reliability, self.ece)}
        if self.confusion_matrix is not None:
            table = {"examples": self.images, "accuracy": self.accuracy, "classes": self.classes}
            drawn["confusion"] = figures.confusion_figure({**table, "confusion_matrix": self.confusion_matrix.tolist()})
        return drawn | self._mistake_sheet()

    def _table(self):
        header = ["image", "label", "predicted", "confidence", "correct", "loss"]
        columns = [self.predictions[name] for name in header]
        return header, zip(*(np.asarray(column).tolist() for column in columns), strict=True)


@dataclasses.dataclass(frozen=True)
class MultiLabelReport(_Report):
    """Results of a classifier on images of several classes each, or none.

    Args:
        images: int. Number of images.
        mean_average_precision: float. Mean over the classes that an image has (mAP).
        interval: `(low, high)`, its 95 % bootstrap interval.
        f1_micro, f1_macro: floats. F1 of all decisions, and the mean of that of the classes.
        exact: float. Fraction of images of which every decision is right.
        loss: float. Mean binary cross-entropy over images and classes, in nats.
        ece: float. Expected calibration error of the probabilities of all images and classes.
        threshold: float. A class is decided to be there from this probability on.
        reliability: tuple of dicts, bins of the probabilities.
        classes: tuple of dicts, see `keras_vit.evaluation.multi_label.report_by_class`.
        mistakes: tuple of `Mistake`.
        predictions: dict of `image`, an array `(images,)`, `labels`, bool `(images, classes)`, and `probabilities`,
            float32 of the same shape.
        class_names, images_per_second, calibration, left_out: as for `SingleLabelReport`.
    """

    class_measure = "average_precision"

    images: int
    mean_average_precision: float
    interval: tuple
    f1_micro: float
    f1_macro: float
    exact: float
    loss: float
    ece: float
    threshold: float
    reliability: tuple
    classes: tuple
    mistakes: tuple
    predictions: dict
    class_names: tuple
    images_per_second: float
    calibration: dict | None = None
    left_out: int = 0

    def measures(self):
        """Returns the measures of the summary by name."""
        return {
            "mAP": self.mean_average_precision,
            "F1 micro": self.f1_micro,
            "F1 macro": self.f1_macro,
            "loss": self.loss,
        }

    def to_dict(self):
        """Returns the report as a dict of JSON types."""
        return {
            "kind": "multi-label",
            "images": self.images,
            "left_out": self.left_out,
            "mean_average_precision": self.mean_average_precision,
            "mean_average_precision_interval": list(self.interval),
            "f1_micro": self.f1_micro,
            "f1_macro": self.f1_macro,
            "exact": self.exact,
            "threshold": self.threshold,
            "loss": self.loss,
            "ece": self.ece,
            "images_per_second": round(self.images_per_second, 1),
            "calibration": self.calibration,
            "classes": list(self.classes),
            "reliability": list(self.reliability),
            "mistakes": [mistake.to_dict() for mistake in self.mistakes],
        }

    def figures(self):
        """Draws `reliability`, `average_precision` and `mistakes`; returns and raises as `SingleLabelReport`."""
        drawn = {
            "reliability": figures.reliability_figure(self.reliability, self.ece, is_multi_label=True),
            "average_precision": figures.average_precision_figure(self.classes),
        }
        return drawn | self._mistake_sheet()

    def _table(self):
        names = self.class_names
        rows = zip(*(self.predictions[key] for key in ("image", "labels", "probabilities")), strict=True)
        table = (
            [image, ";".join(name for name, is_there in zip(names, labels, strict=True) if is_there), *scores.tolist()]
            for image, labels, scores in rows
        )
        return ["image", "labels", *(f"probability of {name}" for name in names)], table
