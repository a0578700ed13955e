"""The training curve of a run as a picture."""


def training_curve(record, path, log=print):
    """Draws loss and accuracy over the epochs, with the accuracy of the evaluation as a line.

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
        log("no training curve: pip install 'keras_vit[plots]'")
        return None
    epochs = range(1, len(record["epochs"]) + 1)
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    for axes, key, title in ((loss, "loss", "training loss"), (accuracy, "accuracy", "accuracy")):
        axes.plot(epochs, [epoch[key] for epoch in record["epochs"]], label="training, augmented")
        axes.set(xlabel="epoch", title=title)
        axes.grid(alpha=0.3)
    for name in ("test", "validation"):
        if f"{name}_accuracy" in record:
            value = record[f"{name}_accuracy"]
            accuracy.axhline(value, color="C1", linestyle="--", label=f"{name}, at the end: {value:.4f}")
    accuracy.legend(loc="lower right")
    figure.suptitle(f"{record['recipe']}, seed {record['seed']}: {record['model']['parameters']:,} parameters")
    figure.savefig(path, dpi=120)
    return path
