"""Plot of the training curve of a run."""


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
    titles = {"loss": "training loss", "mean_iou": "mean IoU", "accuracy": "accuracy"}
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
