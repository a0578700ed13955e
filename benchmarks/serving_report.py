"""The rows and tables of `serving.py`."""

import statistics

from report import headline

MEGABYTE = 2**20
# Of fewer calls the 99th percentile is the longest one.
_LEAST_CALLS = 100
_FORMATS = (
    ("saved_model", "SavedModel"),
    ("kerashub", "KerasHub's export"),
    ("onnx", "ONNX"),
    ("openvino", "OpenVINO"),
    ("keras", ".keras"),
)


def percentile(values, share):
    """The smallest value that at least a `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * round(1000 * share) // 1000) - 1)]


def rows_of(model, kind, results, baseline):
    """A row for every contender and batch.

    Args:
        model: str.
        kind: `bytes` or `floats`.
        results: dict from contender to `times`, a dict from batch to seconds of calls, and `memory` (MB); or a `note`.
        baseline: str. The contender whose images/s the others' are multiples of.

    Returns:
        A list of dicts.
    """
    reference = results.get(baseline, {}).get("times", {})
    rows = []
    for contender, result in results.items():
        row = {"model": model, "kind": kind, "contender": contender}
        if "note" in result:
            rows.append({**row, "note": result["note"]})
            continue
        for batch, times in result["times"].items():
            rate = batch * len(times) / sum(times)
            other = reference.get(batch)
            ratio = rate / (batch * len(other) / sum(other)) if other else None
            p50, p99 = (1000 * percentile(times, share) for share in (0.5, 0.99))
            measured = {"batch": batch, "p50": p50, "p99": p99, "calls": len(times), "images_per_second": rate}
            rows.append({**row, **measured, "ratio": ratio, "memory": result.get("memory")})
    return rows


def tables(record):
    """All tables as Markdown."""
    parts = [_latencies(record, kind) for kind in ("bytes", "floats")]
    parts += [_stages(record["stages"]), _cold_starts(record["cold_starts"]), _sizes(record["sizes"])]
    return "\n\n".join(part for part in parts if part)


def _latencies(record, kind):
    """A row for every model and contender, a column for every batch."""
    rows = [row for row in record["rows"] if row.get("kind", kind) == kind]
    batches = sorted({row["batch"] for row in rows if "batch" in row})
    if not batches:
        return ""
    ends = " and ".join(str(batch) for batch in dict.fromkeys((batches[0], batches[-1])))
    seconds = f"max, ms (p99 from {_LEAST_CALLS} calls on)"
    titles = [f"from {kind}: p50 / {seconds}", "contender", *(f"batch {batch}" for batch in batches)]
    titles += [f"images/s, batch {batches[-1]}", f"times {record['baselines'][kind]}, batch {ends}", "memory, MB"]
    lines = ["| " + " | ".join(titles) + " |", "|---|---" + "|---:" * (len(titles) - 2) + "|"]
    for model, contender in dict.fromkeys((row["model"], row["contender"]) for row in rows):
        same = [row for row in rows if (row["model"], row["contender"]) == (model, contender)]
        if notes := [row["note"] for row in same if "note" in row]:
            cells = [_escaped(notes[0])] + [""] * (len(titles) - 3)
        else:
            by_batch = {row["batch"]: row for row in same}
            cells = [_percentiles(by_batch[batch]) for batch in batches]
            first, last = by_batch[batches[0]], by_batch[batches[-1]]
            ratios = [row["ratio"] for row in (first, last)][: len(batches)]
            cells += [f"{last['images_per_second']:.1f}", " and ".join(_number(ratio, ".2f") for ratio in ratios)]
            cells.append(_number(last["memory"], ".0f"))
        lines.append("| " + " | ".join([model, contender, *cells]) + " |")
    return "\n".join(lines)


def _percentiles(row):
    """The median and the longest time, or the 99th percentile where there are calls enough for one."""
    mark = "p99 " if row["calls"] >= _LEAST_CALLS else ""
    return f"{row['p50']:.1f} / {mark}{row['p99']:.1f}"


def _number(value, form):
    return "-" if value is None else format(value, form)


def _stages(rows):
    titles = ("parts of an answer to bytes", "batch", "whole, ms", "decode, resize, normalize, ms")
    titles += ("of that, bare decoding, ms", "model, ms", "preparing / model")
    lines = [f"| {' | '.join(titles)} |", "|---" + "|---:" * (len(titles) - 1) + "|"]
    for row in rows:
        cells = [row["name"]]
        if "note" in row:
            cells += [_escaped(row["note"])] + [""] * (len(titles) - 2)
        else:
            cells.append(str(row["batch"]))
            cells += [f"{row[key]:.1f}" for key in ("total", "preparing", "decoding", "model")]
            cells.append(f"{row['preparing'] / row['model']:.1%}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) if rows else ""


def _cold_starts(rows):
    lines = [
        "| fresh process | batch | warm-up | load, ms | warm-up, ms | first answer, ms | second answer, ms |",
        "|---|---:|---|---:|---:|---:|---:|",
    ]
    settings = dict.fromkeys((row["model"], row["batch"], row["warm"]) for row in rows)
    for model, batch, warm in settings:
        same = [row for row in rows if (row["model"], row["batch"], row["warm"]) == (model, batch, warm)]
        start = f"| {model} | {batch} | {'yes' if warm else 'no'} |"
        if notes := [row["note"] for row in same if "note" in row]:
            lines.append(f"{start} {_escaped(notes[0])} | | | |")
            continue
        keys = ("load", "warm_up", "first", "second")
        medians = [statistics.median(row[key] for row in same) if key in same[0] else None for key in keys]
        lines.append(f"{start} " + " | ".join(_number(median, ".0f") for median in medians) + " |")
    return "\n".join(lines) if rows else ""


def _sizes(rows):
    titles = " | ".join(title for _, title in _FORMATS)
    lines = [f"| size on disk, MB | weights, MB | {titles} |", "|---|---:" + "|---:" * len(_FORMATS) + "|"]
    for row in rows:
        cells = [f"{4 * row['parameters'] / MEGABYTE:.1f}"]
        cells += [f"{row[kind] / MEGABYTE:.1f}" if kind in row else "-" for kind, _ in _FORMATS]
        lines.append(f"| {row['model']} | {' | '.join(cells)} |")
    return "\n".join(lines) if rows else ""


def _escaped(text):
    return text.replace("|", "\\|")


def markdown(record):
    """The tables under a line about the setting and the machine."""
    return f"{headline(record)}\n\n{tables(record)}\n"
