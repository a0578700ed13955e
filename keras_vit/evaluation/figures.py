"""Figures of a report: confusion matrix, reliability of the probabilities, precision and recall."""

from keras_vit.interpret.plots import new_figure

# With more classes their names are left out, and with more still the numbers in the cells.
_MOST_NAMES, _MOST_NUMBERS = 60, 20


def confusion_figure(report):
    """Draws a confusion matrix, normalized by the true class.

    Args:
        report: dict of `keras_vit.evaluation.per_class.classification_report`.

    Returns:
        A matplotlib `Figure`.

    Raises:
        ImportError: without matplotlib.
    """
    counts, names = report["confusion_matrix"], [row["name"] for row in report["classes"]]
    side = min(3 + 0.4 * len(names), 20)
    figure = new_figure(figsize=(side + 1, side))
    axes = figure.subplots()
    shares = [[count / max(sum(row), 1) for count in row] for row in counts]
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="fraction of the true class")
    axes.set(xlabel="predicted", ylabel="true", title=f"{report['examples']:,} images, {report['accuracy']:.1%} right")
    if len(names) <= _MOST_NAMES:
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
    if len(names) <= _MOST_NUMBERS:
        for i, row in enumerate(counts):
            for j, count in enumerate(row):
                axes.text(j, i, f"{count}", ha="center", va="center", color="white" if shares[i][j] > 0.5 else "black")
    return figure


def reliability_figure(bins, ece, is_multi_label=False):
    """Draws how often predictions are right by how confident they are: a reliability diagram.

    Args:
        bins: sequence of dicts, see `keras_vit.evaluation.metrics.reliability`.
        ece: float. Expected calibration error of the same predictions.
        is_multi_label: bool. Whether the predictions are those of single labels. Default False.

    Returns:
        A matplotlib `Figure`: the diagram, and below it the fraction of predictions in each bin.

    Raises:
        ImportError: without matplotlib.
    """
    figure = new_figure(figsize=(5, 6))
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    filled = [row for row in bins if row["count"]]
    total = sum(row["count"] for row in filled)
    lows, widths = [row["low"] for row in filled], [row["high"] - row["low"] for row in filled]
    rates = [row["accuracy"] for row in filled]
    above.bar(lows, rates, widths, align="edge", color="C0", edgecolor="white", label="fraction right")
    gaps = [row["confidence"] - row["accuracy"] for row in filled]
    above.bar(lows, gaps, widths, rates, align="edge", color="C3", alpha=0.35, label="gap to the confidence")
    above.plot((0, 1), (0, 1), "--", color="gray", label="perfectly calibrated")
    above.set(ylim=(0, 1), ylabel="fraction of positives" if is_multi_label else "accuracy", title=f"ECE {ece:.4f}")
    above.legend(loc="upper left")
    below.bar(lows, [row["count"] / total for row in filled], widths, align="edge", color="C0", edgecolor="white")
    below.set(xlim=(0, 1), xlabel="probability" if is_multi_label else "confidence", ylabel="fraction")
    return figure


def average_precision_figure(classes):
    """Draws the average precision of each class, best first.

    Args:
        classes: sequence of dicts with `name` and `average_precision`, which is `None` for classes without an image.

    Returns:
        A matplotlib `Figure`.

    Raises:
        ImportError: without matplotlib.
    """
    rows = [row for row in classes if row["average_precision"] is not None]
    rows.sort(key=lambda row: row["average_precision"])
    figure = new_figure(figsize=(6, min(1.5 + 0.25 * len(rows), 20)))
    axes = figure.subplots()
    axes.barh(range(len(rows)), [row["average_precision"] for row in rows])
    axes.set(xlim=(0, 1), xlabel="average precision")
    if len(rows) <= _MOST_NAMES:
        axes.set_yticks(range(len(rows)), [row["name"] for row in rows])
    return figure
