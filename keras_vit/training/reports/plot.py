"""Plots of the training curve and the confusion matrix of a run."""


def training_curve(record, path, log=print):
    """Draws loss and, where there are classes, accuracy over the epochs, with that of the evaluation as a line.

    Args:
        record: a run record.
        path: of the PNG.
        log: callable for a line where matplotlib is missing.

    Returns:
        `path`, or `None` where matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        log("no training curve: pip install 'keras-vit-zoo[plots] @ git+<this repository>'")
        return None
    epochs = range(1, len(record["epochs"]) + 1)
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    titles = {"loss": "training loss", "accuracy": "accuracy"}
    keys = [key for key in titles if key in record["epochs"][0]]
    for axes, key in zip(figure.subplots(1, len(keys), squeeze=False)[0], keys, strict=True):
        axes.plot(epochs, [epoch[key] for epoch in record["epochs"]], label="training, augmented")
        if all(f"val_{key}" in epoch for epoch in record["epochs"]):
            axes.plot(epochs, [epoch[f"val_{key}"] for epoch in record["epochs"]], label="validation")
        axes.set(xlabel="epoch", title=titles[key])
        axes.grid(alpha=0.3)
    for name in ("test", "validation"):  # in the last picture
        if (value := record.get(f"{name}_{key}")) is not None:
            axes.axhline(value, color="C1", linestyle="--", label=f"{name}, at the end: {value:.4f}")
    axes.legend()
    figure.suptitle(f"{record['recipe']}, seed {record['seed']}: {record['model']['parameters']:,} parameters")
    figure.savefig(path, dpi=120)
    return path


def confusion_matrix(report, path, log=print):
    """Draws the confusion matrix, normalized by the true class.

    Args:
        report: a `classification_report`.
        path: of the PNG.
        log: callable for a line where matplotlib is missing.

    Returns:
        `path`, or `None` where matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        log("no plot of the confusion matrix: pip install matplotlib")
        return None
    counts, names = report["confusion_matrix"], [row["name"] for row in report["classes"]]
    side = min(3 + 0.4 * len(names), 20)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    shares = [[count / max(sum(row), 1) for count in row] for row in counts]
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="fraction of the true class")
    axes.set(xlabel="predicted", ylabel="true", title=f"{report['examples']:,} images, {report['accuracy']:.1%} right")
    if len(names) <= 60:
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
    if len(names) <= 20:
        for i, row in enumerate(counts):
            for j, count in enumerate(row):
                axes.text(j, i, f"{count}", ha="center", va="center", color="white" if shares[i][j] > 0.5 else "black")
    figure.savefig(path, dpi=120)
    return path
