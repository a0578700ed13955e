"""Evaluates a classifier on a data set, batch by batch."""

import dataclasses
import heapq
import time

import numpy as np

from keras_vit.backend.runtime import to_numpy
from keras_vit.evaluation import multi_label as multi
from keras_vit.evaluation.batches import image_batches, read_labels
from keras_vit.evaluation.classifier import classifier_of
from keras_vit.evaluation.metrics import accuracy_interval, error_of, log_softmax, reliability, score_images
from keras_vit.evaluation.per_class import classification_report
from keras_vit.evaluation.reports import Mistake, MultiLabelReport, SingleLabelReport


def evaluate(
    model,
    dataset,
    *,
    class_names=None,
    multi_label=None,
    label_sets=False,
    classes=None,
    activation=None,
    threshold=0.5,
    batch_size=32,
    mistakes=16,
    names=None,
    progress=None,
):
    """Evaluates a classifier: accuracy, loss, classes, calibration, and the most confident mistakes.

    Batches are scored as they come: memory holds a few numbers of each image, of several labels an image its logits.

    Args:
        model: a model of keras_vit with classes, or one built around one. A calibration in its metadata is applied to
            the probabilities.
        dataset: iterable of batches `(images, labels)` or `(images, labels, weights)`, such as a `tf.data.Dataset`,
            or one pair of arrays. Images are normalized as `InputSpec.normalize` does, or uint8 pixels of the model's
            size. Labels are class numbers `(batch,)` or rows `(batch, classes)` of 0 and 1. Images of weight 0, the
            padding of a batch, are left out; other weights play no part.
        class_names: sequence of str, or `None`: the labels of the model, else numbers.
        multi_label: bool. Whether an image may have several classes or none. Default `None`: for rows of labels by the
            model's activation, `sigmoid` or `softmax`.
        label_sets: bool. Whether each class of a row counts as right for an image of one class, as in ImageNet ReaL;
            images without any are left out. Or a sequence with the numbers of these classes for each image, in order,
            in place of the labels of `dataset`. Default False.
        classes: numbers of the classes to choose among, or `None`: all. For data sets with a part of the model's
            classes; the probabilities are those of these classes alone.
        activation: `softmax` or `sigmoid`, or `None`: by the model.
        threshold: float in (0, 1). With several labels an image, the probability from which on one is there.
        batch_size: int. For a pair of arrays.
        mistakes: int. How many of the most confident mistakes are kept. Default 16.
        names: sequence of str, of the images in order; or a callable that returns it after the last batch. Default
            `None`: their numbers.
        progress: callable that gets the number of images of each batch, or `None`.

    Returns:
        A `SingleLabelReport` or `MultiLabelReport`.

    Raises:
        ValueError: if there are no images; if labels do not fit the classes of the model; if the model has no classes.
    """
    classifier = classifier_of(model, activation)
    if class_names is not None and len(class_names) != classifier.num_classes:
        raise ValueError(
            "class_names must name every class of the model. "
            f"Received: {len(class_names)} names for {classifier.num_classes} classes"
        )
    if not 0 < threshold < 1:
        raise ValueError(f"threshold must be in (0, 1). Received: threshold={threshold!r}")
    sets = None if isinstance(label_sets, bool) else list(label_sets)
    label_sets = label_sets if sets is None else True
    if multi_label and (label_sets or classes is not None):
        raise ValueError(
            "label_sets and classes are for images of one class. "
            f"Received: multi_label=True with label_sets={label_sets}, classes={classes!r}"
        )
    class_names = tuple(class_names or classifier.class_names)
    selection = _check_classes(classes, classifier)
    count, shown, clock, scorer = 0, _Worst(mistakes), _Clock(), None
    for images, targets, weights in image_batches(dataset, classifier.input_spec, batch_size):
        if scorer is None:
            is_multi = multi_label
            if is_multi is None:
                is_multi = targets.ndim == 2 and classifier.activation == "sigmoid" and classifier.units > 1
                is_multi = is_multi and not label_sets and selection is None
            classifier = _for_kind(classifier, is_multi)
            scorer = _MultiLabel(threshold) if is_multi else _SingleLabel(label_sets, selection)
        if sets is not None:
            targets = _rows(sets[count : count + len(targets)], len(targets), classifier.num_classes)
        logits = classifier.logits(classifier.predict(images))
        labels = read_labels(targets, classifier, scorer.kind)
        keep = scorer.kept(labels, weights)
        numbers = count + np.flatnonzero(keep)
        count += len(logits)
        if not keep.all():
            images, logits, labels = to_numpy(images)[keep], logits[keep], labels[keep]
        if len(labels):
            shown.add(numbers, images, *scorer.add(numbers, classifier.calibrated(logits), labels))
        clock.lap(len(keep))
        if progress is not None:
            progress(len(keep))
    if scorer is None or not scorer.numbers:
        raise ValueError(
            f"a data set must hold at least one image with a label. Received: {count} images, of which none has one"
        )
    found = names() if callable(names) else names
    if found is not None and len(found) != count:
        raise ValueError(f"names must name every image. Received: {len(found)} names for {count} images")
    found = np.arange(count) if found is None else np.asarray(found)
    calibration = classifier.calibration and classifier.calibration.get_config()
    common = {"images_per_second": clock.speed, "calibration": calibration}
    return scorer.report(class_names, found, count, shown.sorted(classifier.input_spec), common)


def _for_kind(classifier, is_multi_label):
    """Returns a classifier whose probabilities are of independent classes where an image may have several.

    Raises:
        ValueError: if it is calibrated for one class an image.
    """
    if not is_multi_label:
        return classifier
    if classifier.calibration is not None and classifier.calibration.activation != "sigmoid":
        raise ValueError(
            "the model is calibrated for one class an image; calibrate it again, with multi_label=True. "
            f"Received: model={classifier.name!r}, multi_label=True"
        )
    return dataclasses.replace(classifier, activation="sigmoid")


def _rows(sets, count, num_classes):
    """Makes rows of 0 and 1 of the class numbers of each image of a batch."""
    if len(sets) != count:
        raise ValueError("label_sets must have an entry for each image. Received: fewer than there are images")
    rows = np.zeros((count, num_classes), "uint8")
    for row, classes in zip(rows, sets, strict=True):
        classes = np.asarray(classes, "int64")
        if len(classes) and not 0 <= classes.min() <= classes.max() < num_classes:
            raise ValueError(
                f"label_sets must have classes of the model, in 0..{num_classes - 1}. Received: {classes.tolist()}"
            )
        row[classes] = 1
    return rows


def _check_classes(classes, classifier):
    """Returns the numbers of the classes to choose among as an array, or `None` for all."""
    if classes is None:
        return None
    classes = np.asarray(classes)
    valid = classes.ndim == 1 and len(classes) > 1 and np.issubdtype(classes.dtype, np.integer)
    if (
        not valid
        or len({*classes.tolist()}) < len(classes)
        or not 0 <= classes.min() <= classes.max() < (classifier.num_classes)
    ):
        raise ValueError(
            f"classes must be two or more different numbers in 0..{classifier.num_classes - 1}. "
            f"Received: classes={classes.tolist()!r}"
        )
    return classes


class _Clock:
    """Measures images per second, without the first batch, which compiles."""

    def __init__(self):
        self._times, self._counts = [time.perf_counter()], []

    def lap(self, count):
        self._times.append(time.perf_counter())
        self._counts.append(count)

    @property
    def speed(self):
        start = 1 if len(self._counts) > 1 else 0
        return sum(self._counts[start:]) / max(self._times[-1] - self._times[start], 1e-9)


class _Worst:
    """Keeps the images of the most confident mistakes."""

    def __init__(self, limit):
        self._limit, self._heap = limit, []

    def add(self, numbers, images, confidence, describe):
        """Takes a batch: the confidence of its mistakes, -inf for what is right, and a function of a row to its words.

        `describe` returns `(labels, predicted)`, numbers of classes.
        """
        for row in np.argsort(-confidence, kind="stable")[: self._limit]:
            if confidence[row] == -np.inf:
                return
            # Of equal ones the earlier image goes first.
            entry = (float(confidence[row]), -int(numbers[row]))
            if len(self._heap) == self._limit and entry <= self._heap[0][0]:
                return
            item = (entry, (describe(row), np.array(to_numpy(images[row]))))
            if len(self._heap) < self._limit:
                heapq.heappush(self._heap, item)
            else:
                heapq.heapreplace(self._heap, item)

    def sorted(self, spec):
        """Returns `(number, labels, predicted, confidence, pixels)` of each, the most confident first."""
        found = sorted(self._heap, key=lambda item: item[0], reverse=True)
        return [
            (-number, labels, predicted, confidence, _pixels(image, spec))
            for (confidence, number), ((labels, predicted), image) in found
        ]


def _pixels(image, spec):
    """Returns what a model saw as uint8 pixels; `None` unless it has one channel or three."""
    if image.shape[-1] not in (1, 3):
        return None
    values = (image * np.asarray(spec.std, "float32") + np.asarray(spec.mean, "float32")) * 255
    return np.clip(np.round(values), 0, 255).astype("uint8")


class _SingleLabel:
    """Scores of images of one class, or of several that count as right."""

    def __init__(self, label_sets, selection):
        self.kind = "sets" if label_sets else "single"
        self._selection = selection
        self.numbers, self._scores, self._labels = [], [], []

    def kept(self, labels, weights):
        """Returns which images of a batch count."""
        keep = np.ones(len(labels), bool) if weights is None else weights > 0
        if self.kind == "sets":
            keep &= (labels if self._selection is None else labels[:, self._selection]).any(axis=-1)
        return keep

    def add(self, numbers, logits, labels):
        """Takes a batch; returns what `_Worst.add` needs."""
        if self._selection is not None:
            logits, labels = logits[:, self._selection], self._selected(labels)
        scores = score_images(log_softmax(logits), labels)
        self.numbers.append(numbers)
        self._scores.append(scores)
        self._labels.append(labels if labels.ndim == 1 else _packed(labels))
        wrong = np.where(scores["correct"], -np.inf, scores["confidence"])
        return wrong, lambda row: (_packed(labels[row : row + 1])[0], int(scores["predicted"][row]))

    def _selected(self, labels):
        """Returns labels as positions among the selected classes."""
        if labels.ndim == 2:
            return labels[:, self._selection]
        positions = np.full(max(labels.max(), self._selection.max()) + 1, -1)
        positions[self._selection] = np.arange(len(self._selection))
        if (positions[labels] < 0).any():
            outside = sorted({*labels[positions[labels] < 0].tolist()})
            raise ValueError(f"labels must be among classes. Received: labels {outside[:10]}, which are not")
        return positions[labels]

    def report(self, class_names, names, count, worst, common):
        """Makes the report."""
        columns = {key: np.concatenate([part[key] for part in self._scores]) for key in self._scores[0]}
        numbers = np.concatenate(self.numbers)
        if self._selection is not None:
            class_names = tuple(class_names[i] for i in self._selection)
        labels = [label for part in self._labels for label in part]
        words = [_words(label, class_names) for label in labels]
        bins = reliability(columns["confidence"], columns["correct"])
        table, matrix = (), None
        if self.kind == "single":
            detail = classification_report(np.array(labels), columns["predicted"], class_names)
            table, matrix = tuple(detail["classes"]), np.array(detail["confusion_matrix"])
        right = int(columns["correct"].sum())
        return SingleLabelReport(
            images=len(numbers),
            accuracy=right / len(numbers),
            interval=accuracy_interval(right, len(numbers)),
            top5=float((columns["rank"] < 5).mean()) if len(class_names) > 5 else None,
            loss=float(columns["loss"].mean(dtype="float64")),
            ece=float(error_of(bins)),
            reliability=tuple(bins),
            classes=table,
            confusion_matrix=matrix,
            mistakes=_named(worst, names, class_names),
            predictions={
                "image": names[numbers],
                "label": np.array(words, object),
                "predicted": np.array(class_names, object)[columns["predicted"]],
                **{key: columns[key] for key in ("confidence", "correct", "loss")},
            },
            class_names=class_names,
            left_out=count - len(numbers),
            **common,
        )


class _MultiLabel:
    """Scores of images of several classes."""

    kind = "multi"

    def __init__(self, threshold):
        self._threshold = threshold
        self.numbers, self._logits, self._labels = [], [], []

    def kept(self, labels, weights):
        """Returns which images of a batch count."""
        return np.ones(len(labels), bool) if weights is None else weights > 0

    def add(self, numbers, logits, labels):
        """Takes a batch; returns what `_Worst.add` needs."""
        self.numbers.append(numbers)
        self._logits.append(logits)
        self._labels.append(labels)
        scores = _sigmoid(logits)
        # The probability that is given to the wrong answer about a class.
        wrong = np.where(labels, 1 - scores, scores)
        decided = (scores >= self._threshold) != labels
        wrong = np.where(decided, wrong, -np.inf)
        classes = wrong.argmax(axis=-1)
        return wrong.max(axis=-1), lambda row: (_packed(labels[row : row + 1])[0], int(classes[row]))

    def report(self, class_names, names, count, worst, common):
        """Makes the report."""
        numbers = np.concatenate(self.numbers)
        logits, labels = np.concatenate(self._logits), np.concatenate(self._labels)
        if not labels.any():
            raise ValueError("at least one image must have a class. Received: rows of labels that are all 0")
        loss, scores = multi.binary_cross_entropy(logits, labels), _sigmoid(logits)
        table, f1 = multi.report_by_class(scores, labels, self._threshold, class_names)
        bins = reliability(scores.ravel(), labels.ravel())
        known = [row["average_precision"] for row in table if row["average_precision"] is not None]
        return MultiLabelReport(
            images=len(numbers),
            mean_average_precision=float(np.mean(known)),
            interval=multi.mean_precision_interval(scores, labels),
            f1_micro=f1["micro"],
            f1_macro=f1["macro"],
            exact=float(((scores >= self._threshold) == labels).all(axis=-1).mean()),
            loss=loss,
            ece=float(error_of(bins)),
            threshold=self._threshold,
            reliability=tuple(bins),
            classes=tuple(table),
            mistakes=_named(worst, names, class_names),
            predictions={"image": names[numbers], "labels": labels, "probabilities": scores},
            class_names=class_names,
            left_out=count - len(numbers),
            **common,
        )


def _sigmoid(logits):
    """Computes float32 probabilities without overflow."""
    return (0.5 * (1 + np.tanh(0.5 * logits))).astype("float32")


def _packed(rows):
    """Returns the numbers of the classes of each row, or class numbers as they are."""
    return rows if rows.ndim == 1 else [tuple(np.flatnonzero(row).tolist()) for row in rows]


def _words(label, class_names):
    """Returns the names of one class, or of several."""
    if isinstance(label, tuple):
        return ", ".join(class_names[i] for i in label) or "none"
    return class_names[label]


def _named(worst, names, class_names):
    """Makes a tuple of `Mistake` of the rows of `_Worst.sorted`."""
    return tuple(
        Mistake(str(names[number]), _words(labels, class_names), class_names[predicted], confidence, pixels)
        for number, labels, predicted, confidence, pixels in worst
    )
