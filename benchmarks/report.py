"""From raw results to rows, a markdown table and a JSON record."""

import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys

from flops import step_flops

PACKAGES = ("keras", "keras-hub", "keras_vit", "numpy", "tensorflow", "timm", "torch")
CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "avx512_vnni", "amx_tile", "amx_bf16", "amx_int8")
COLUMNS = (
    ("model", "model", "{}"),
    ("precision", "precision", "{}"),
    ("contender", "contender", "{}"),
    ("images/s", "images_per_second", "{:.1f}"),
    ("min", "minimum", "{:.1f}"),
    ("IQR", "interquartile_range", "{:.1f}"),
    ("GFLOP/s", "gflops", "{:.0f}"),
    ("of GEMM peak", "fraction_of_peak", "{:.0%}"),
    ("peak memory, MB", "memory", "{:.0f}"),
    ("first step, s", "first_step", "{:.1f}"),
    ("against {baseline}", "ratio", "{:.2f}"),
)


def rows_of(task, config, results, peaks, baseline):
    """The rows of one task.

    Args:
        task: `Task`.
        config: the `keras_vit.ViTConfig` of the task.
        results, peaks: as `harness.measure` returns them.
        baseline: str. The contender that ratios refer to.

    Returns:
        A list of dicts; a contender without a result has `note` instead of numbers.
    """
    peak = max((rate for rate in peaks.values() if rate), default=None)
    image_flops = step_flops(config, 1, task.training)
    reference = results.get(baseline, {}).get("rates", [])
    rows = []
    for name, result in results.items():
        row = {"model": task.label, "precision": task.precision, "contender": name}
        if "note" in result:
            rows.append({**row, "note": result["note"]})
            continue
        row.update(summary(result["rates"]))
        gflops = row["images_per_second"] * image_flops / 1e9
        row["gflops"] = gflops
        row["fraction_of_peak"] = gflops * 1e9 / peak if peak else None
        row["ratio"] = paired_ratio(result["rates"], reference)
        row.update({key: result.get(key) for key in ("memory", "first_step", "parameters", "rates")})
        rows.append(row)
    return rows


def summary(rates):
    """Median, minimum and interquartile range of one rate a round."""
    spread = 0.0
    if len(rates) > 1:
        quartiles = statistics.quantiles(rates, n=4, method="inclusive")
        spread = quartiles[2] - quartiles[0]
    return {"images_per_second": statistics.median(rates), "minimum": min(rates), "interquartile_range": spread}


def paired_ratio(rates, reference):
    """The median over the rounds of the ratio within a round, or `None` without a complete reference."""
    if not rates or len(rates) != len(reference):
        return None
    return statistics.median(rate / other for rate, other in zip(rates, reference, strict=True))


def unequal_parameters(rows):
    """One sentence for every model whose contenders differ in their number of weights: not a fair comparison."""
    sentences = []
    for model in dict.fromkeys(row["model"] for row in rows):
        counts = {row["contender"]: row["parameters"] for row in rows if row["model"] == model and "note" not in row}
        if len(set(counts.values())) > 1:
            sentences.append(f"{model}: the contenders differ in their weights: {counts}.")
    return sentences


def markdown(record):
    """The table of a record, with a line about the machine above and one about the peaks below."""
    columns = [(title.format(baseline=record["baseline"]), key, form) for title, key, form in COLUMNS]
    lines = [headline(record), ""]
    lines.append("| " + " | ".join(title for title, _, _ in columns) + " |")
    lines.append(
        "|"
        + "|".join(" --- " if key in ("model", "precision", "contender") else " ---: " for _, key, _ in columns)
        + "|"
    )
    lines += ["| " + " | ".join(cells(row, columns)) + " |" for row in record["rows"]]
    lines.append("")
    for peak in record["peaks"]:
        known = {name: rate for name, rate in peak["flops_per_second"].items() if rate}
        if known:
            best = max(known, key=known.get)
            lines.append(f"GEMM peak, {peak['model']}, {peak['precision']}: {known[best] / 1e9:.0f} GFLOP/s ({best}).")
    lines += unequal_parameters(record["rows"])
    return "\n".join(lines) + "\n"


def cells(row, columns):
    """The texts of one row; a note stands in the first column of numbers."""
    texts = ["-" if row.get(key) is None else form.format(row[key]) for _, key, form in columns]
    if "note" in row:
        texts[3] = row["note"].replace("|", "\\|")
    return texts


def headline(record):
    """One line about the setting and the machine."""
    hardware, setting = record["hardware"], record["setting"]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items() if version)
    threads = f", threads: {setting['threads']}" if setting["threads"] else ""
    return (
        f"{record['benchmark']}: median of {setting['rounds']} interleaved rounds, {hardware['cpu']}, "
        f"{hardware['cores']} cores{threads}; {versions}; {record['date'][:10]}."
    )


def hardware():
    """The CPU's model, cores, flags that matter to matrix products, memory in MB, load."""
    text = pathlib.Path("/proc/cpuinfo").read_text() if pathlib.Path("/proc/cpuinfo").exists() else ""
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    flags = set(fields.get("flags", "").split())
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": fields.get("model name") or platform.processor() or platform.machine(),
        "cores": usable,
        "flags": [flag for flag in CPU_FLAGS if flag in flags],
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
    }


def versions():
    """Python and the packages that are installed, `None` for those that are not."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def commit():
    """The commit of this repository and whether files differ from it; `None` for both without git."""
    folder = pathlib.Path(__file__).parent

    def git(*arguments):
        return subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}


def make_record(benchmark, setting, baseline):
    """A record without results: what was asked, of which code, on which machine, before the first measurement."""
    return {
        "benchmark": benchmark,
        "setting": setting,
        "baseline": baseline,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **commit(),
        "versions": versions(),
        "hardware": hardware(),
        "peaks": [],
        "rows": [],
    }


def write(text, path):
    """Writes a file and the folders above it."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def save(record, tables, arguments):
    """Writes the record and its tables where the command line asks for them: after every part of a benchmark.

    So an interrupted run leaves what it has.

    Args:
        record: dict.
        tables: str.
        arguments: with `json` and `markdown`, paths or `None`.
    """
    if arguments.json:
        write(to_json(record), arguments.json)
    if arguments.markdown:
        write(tables, arguments.markdown)


def progress(line):
    """Tells who waits what is going on."""
    print(line, file=sys.stderr, flush=True)


def to_json(record):
    """The record as indented JSON."""
    return json.dumps(record, indent=1) + "\n"
