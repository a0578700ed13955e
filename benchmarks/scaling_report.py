"""Cost of data parallelism: bytes of a step, and a projection from them with all its assumptions."""

import report
from flops import step_flops

GRADIENT_BYTES = 4  # Variables, and so their gradients, are float32 under every dtype policy.
COLUMNS = (
    ("devices", "contender", "{}"),
    ("images/s", "images_per_second", "{:.1f}"),
    ("min", "minimum", "{:.1f}"),
    ("IQR", "interquartile_range", "{:.1f}"),
    ("of ideal", "efficiency", "{:.1%}"),
    ("step against no strategy", "step_ratio", "{:.3f}"),
)


def volume(model):
    """Sums over the replicas of a model in a step.

    Args:
        model: a `keras.Model`.

    Returns:
        dict: `parameters` that are trained, `bytes` of their gradients.
    """
    count = sum(int(variable.shape.num_elements()) for variable in model.trainable_variables)
    return {"parameters": count, "bytes": GRADIENT_BYTES * count}


def ring_seconds(size, devices, bandwidth, latency):
    """Seconds of a ring all-reduce.

    Args:
        size: int, bytes.
        devices: int.
        bandwidth: float, bytes a second that each device sends.
        latency: float, seconds of a message.

    Source: Patarasu and Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations" (2009): every
    device sends `2 (n - 1)` messages of an n-th of the bytes.
    """
    messages = 2 * (devices - 1)
    return messages * (size / devices / bandwidth + latency)


def projection(size, compute_seconds, devices, bandwidth, latency):
    """The step of several devices, each with a batch as large as that of one.

    Nothing overlaps: `keras_vit` sums up the gradients when all of them are there, and then clips.

    Returns:
        dict: `devices`, `step_seconds`, `efficiency`.
    """
    step = compute_seconds + ring_seconds(size, devices, bandwidth, latency)
    return {"devices": devices, "step_seconds": step, "efficiency": compute_seconds / step}


def projections(volumes, configs, assumptions):
    """Rows of models, networks and numbers of devices.

    Args:
        volumes: dict from a model's name to its `volume`.
        configs: dict from a model's name to its config.
        assumptions: dict with `batch` (images of a device), `flops` (operations a second that a device sustains),
            `latency` (seconds), `networks` (dict from name to bytes a second) and `devices` (list).
    """
    rows = []
    for name, known in volumes.items():
        compute = step_flops(configs[name], assumptions["batch"], training=True) / assumptions["flops"]
        for network, bandwidth in assumptions["networks"].items():
            for devices in assumptions["devices"]:
                row = projection(known["bytes"], compute, devices, bandwidth, assumptions["latency"])
                rows.append({"model": name, "network": network, "compute_seconds": compute, **row})
    return rows


def measured_rows(task, results, devices, baseline):
    """Rows of the contenders.

    Args:
        task: `Task`, whose batch is that of one device.
        results: as `harness.take_turns` returns them; rates are of the images of one device.
        devices: dict from a contender's name to how many it has.
        baseline: str. The contender without a strategy.
    """
    reference, rows = results.get(baseline, {}).get("rates", []), []
    for name, result in results.items():
        row = {"model": task.label, "precision": task.precision, "contender": name, "devices": devices[name]}
        if "note" in result:
            rows.append({**row, "note": result["note"]})
            continue
        ratio = report.paired_ratio(reference, result["rates"])
        row |= report.summary([rate * devices[name] for rate in result["rates"]])
        row |= {"efficiency": None if ratio is None else 1 / ratio, "step_ratio": ratio}
        rows.append({**row, "first_step": result["first_step"], "rates": result["rates"]})
    return rows


def markdown(record):
    """The tables of a record, with a line about the machine above."""
    return f"{report.headline(record)}\n\n{tables(record)}"


def tables(record):
    """The report: measured, computed and projected figures, with the assumptions of the projection."""
    lines = []
    for label in dict.fromkeys((row["model"], row["precision"]) for row in record["rows"]):
        rows = [row for row in record["rows"] if (row["model"], row["precision"]) == label]
        lines += [f"{label[0]}, {label[1]}, one thread a device, every device with a batch of its own:", ""]
        lines += _table([title for title, _, _ in COLUMNS], [_cells(row) for row in rows])
    lines += _table(
        ["model", "parameters", "MB summed in a step"],
        [[name, f"{v['parameters']:,}", f"{v['bytes'] / 1e6:.0f}"] for name, v in record["volumes"].items()],
    )
    lines += ["Projected, not measured. " + record["assumptions"]["in_words"], ""]
    counts = record["assumptions"]["devices"]
    rows = {}
    for row in record["projections"]:
        rows.setdefault((row["model"], row["network"]), []).append(f"{row['efficiency']:.0%}")
    rows = [[*group, *shares] for group, shares in rows.items()]
    return "\n".join(lines + _table(["model", "network", *(f"{count} devices" for count in counts)], rows))


def _cells(row):
    texts = ["-" if row.get(key) is None else form.format(row[key]) for _, key, form in COLUMNS]
    return [texts[0], row["note"].replace("|", "\\|"), *texts[2:]] if "note" in row else texts


def _table(titles, rows):
    lines = ["| " + " | ".join(titles) + " |", "|" + " --- |" + " ---: |" * (len(titles) - 1)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows), ""]
