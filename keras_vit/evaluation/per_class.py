"""Classification report: recall, precision and confusions per class."""

import numpy as np


def classification_report(labels, predictions, class_names):
    """Computes accuracy, per-class recall and precision, and the confusion matrix.

    Args:
        labels: int array `(examples,)`.
        predictions: int array `(examples,)`, the best class of every example.
        class_names: sequence of str, in the order of the labels.

    Returns:
        A dict of JSON types: `examples`, `accuracy`, `classes` (one dict a class with `name`, `examples`, `recall`,
        `precision`, `taken_for`, the name and the count of its most frequent mistake; numbers are `None` where there is
        nothing to count), and `confusion_matrix` (rows are the true classes, columns the predicted ones).
    """
    labels, predictions, count = np.asarray(labels), np.asarray(predictions), len(class_names)
    matrix = np.bincount(labels * count + predictions, minlength=count**2).reshape(count, count)
    classes = []
    for i, name in enumerate(class_names):
        mistakes = matrix[i].copy()
        mistakes[i] = 0
        worst = int(mistakes.argmax())
        classes.append(
            {
                "name": str(name),
                "examples": int(matrix[i].sum()),
                "recall": _ratio(matrix[i, i], matrix[i].sum()),
                "precision": _ratio(matrix[i, i], matrix[:, i].sum()),
                "taken_for": [str(class_names[worst]), int(mistakes[worst])] if mistakes[worst] else None,
            }
        )
    return {
        "examples": len(labels),
        "accuracy": _ratio(np.trace(matrix), len(labels)),
        "classes": classes,
        "confusion_matrix": matrix.tolist(),
    }


def markdown_report(report):
    """Formats the classes of a `classification_report` as a Markdown table."""
    lines = ["| class | images | recall | precision | most often taken for |", "|---|---:|---:|---:|---|"]
    for row in report["classes"]:
        recall, precision = ("-" if row[key] is None else f"{row[key]:.1%}" for key in ("recall", "precision"))
        mistake = "" if row["taken_for"] is None else "{} ({})".format(*row["taken_for"])
        lines.append(f"| {row['name']} | {row['examples']:,} | {recall} | {precision} | {mistake} |")
    return "\n".join(lines)


def _ratio(part, whole):
    return float(part / whole) if whole else None
