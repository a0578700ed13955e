"""The rows and tables of `serving.py`."""

import statistics

from report import headline

MEGABYTE = 2**20
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
    rows = [row for row in record["rows"] if row.get("kind", kind) == kind]
    if not rows:
        return ""
    baseline = record["baselines"][kind]
    lines = [
        f"| from {kind} | contender | batch | p50, ms | p99, ms | images/s | times {baseline} | memory, MB |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        start = f"| {row['model']} | {row['contender']} |"
        if "note" in row:
            lines.append(f"{start} {_escaped(row['note'])} | | | | | |")
            continue
        ratio, memory = ("-" if row[k] is None else f"{row[k]:{f}}" for k, f in (("ratio", ".2f"), ("memory", ".0f")))
        rate = f"{row['images_per_second']:.1f}"
        lines.append(f"{start} {row['batch']} | {row['p50']:.1f} | {row['p99']:.1f} | {rate} | {ratio} | {memory} |")
    return "\n".join(lines)


def _stages(rows):
    lines = [
        "| share of a request | batch | whole, ms | model, ms | before the model | of that, bare decoding, ms |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        if "note" in row:
            lines.append(f"| {row['model']} | {_escaped(row['note'])} | | | | |")
            continue
        share = (row["total"] - row["model_milliseconds"]) / row["total"]
        times = f"{row['total']:.1f} | {row['model_milliseconds']:.1f} | {share:.1%} | {row['decoding']:.1f}"
        lines.append(f"| {row['model']} | {row['batch']} | {times} |")
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
        lines.append(f"{start} " + " | ".join("-" if m is None else f"{m:.0f}" for m in medians) + " |")
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
