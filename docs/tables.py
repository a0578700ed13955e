"""Writes the tables of README.md, serving.md and distributed.md from the records; no number gets there by hand.

python docs/tables.py           rewrite the pages
python docs/tables.py --check   exit with 1 if one is not what the records say
"""

import importlib
import json
import pathlib
import re
import statistics
import sys

ROOT = pathlib.Path(__file__).parents[1]
# The modules of the benchmarks that know how their tables look.
REPORTS = {
    "loading": "loading_report",
    "input_pipeline": "input_pipeline",
    "serving": "serving_report",
    "scaling": "scaling_report",
}
# The records that have a page of their own, and their place in it.
PAGES = {"serving": (ROOT / "docs" / "serving.md", "latency"), "scaling": (ROOT / "docs" / "distributed.md", "scaling")}
QUOTED = ("neighbors",)  # in a sentence of docs/few_images.md
RECORDS = ROOT / "benchmarks" / "results"


def recipe_table(folder):
    """One row a recipe: mean, lowest and highest test accuracy over the seeds, time, baseline."""
    names = (
        "recipe",
        "parameters",
        "seeds",
        "test images",
        "test accuracy, mean",
        "lowest",
        "highest",
        "seconds a run",
    )
    lines = [f"| {' | '.join(names)} | compare with |", "|---" + "|---:" * (len(names) - 1) + "|---|"]
    shown = []
    for directory in sorted(p for p in folder.iterdir() if p.is_dir()):
        records = [json.loads(path.read_text()) for path in sorted(directory.glob("*.json"))]
        records = [record for record in records if "test_accuracy" in record]
        # The points of a comparison have no file of their own; docs/training.md has them.
        if not records or not (ROOT / "recipes" / f"{directory.name}.py").exists():
            continue
        shown += records
        accuracies = [record["test_accuracy"] for record in records]
        baseline = records[0].get("baseline")
        beside = f"{baseline['name']}: {baseline['accuracy']:.4f}" if baseline else ""
        cells = [
            f"`{directory.name}`",
            f"{records[0]['model']['parameters']:,}",
            f"{len(records)}",
            f"{records[0]['test_examples']:,}",
            *(f"{value(accuracies):.4f}" for value in (statistics.mean, min, max)),
            f"{statistics.median(record['wall_seconds'] for record in records):.0f}",
            beside,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    cpus = {f"{r['hardware']['cpu']}, {r['hardware']['cores']} cores" for r in shown}
    notes = sorted({f"`{r['recipe']}`: {r['note']}." for r in shown if "note" in r})
    measured = f"Measured on: {'; '.join(sorted(cpus))}. Records: `recipes/results`."
    return "\n".join([*lines, "", " ".join([measured, *notes])])


def benchmark_table(folder):
    """The rows of every benchmark record: throughput, share of the GEMM peak, ratio to KerasHub."""
    parts = []
    for path in sorted(folder.glob("*.json")):
        record = json.loads(path.read_text())
        if record["benchmark"] in (*PAGES, *QUOTED):
            continue
        if record["benchmark"] in REPORTS:
            parts.append(own_tables(record, path.name))
            continue
        lines = [
            f"`{record['benchmark']}`, medians of {record['setting']['rounds']} interleaved rounds, "
            f"{record['hardware']['cpu']}, {record['hardware']['cores']} cores ({record['date'][:10]}, `{path.name}`):",
            "",
            f"| model | precision | contender | images/s | GFLOP/s | of GEMM peak | against {record['baseline']} |",
            "|---|---|---|---:|---:|---:|---:|",
        ]
        for row in record["rows"]:
            start = f"| {row['model']} | {row['precision']} | {row['contender']} |"
            if "note" in row:
                lines.append(f"{start} {row['note']} | | | |")
                continue
            ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
            peak = "" if row["fraction_of_peak"] is None else f"{row['fraction_of_peak']:.0%}"
            lines.append(f"{start} {row['images_per_second']:.1f} | {row['gflops']:.0f} | {peak} | {ratio} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def own_tables(record, name):
    """The tables of a record whose benchmark knows how they look."""
    sys.path.append(str(ROOT / "benchmarks"))
    try:
        tables = importlib.import_module(REPORTS[record["benchmark"]]).tables
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    hardware = record["hardware"]
    fresh = " of fresh processes" if record["benchmark"] == "loading" else ""
    return (
        f"`{record['benchmark']}`, medians of {record['setting']['rounds']} interleaved rounds{fresh}, "
        f"{hardware['cpu']}, {hardware['cores']} cores ({record['date'][:10]}, `{name}`):\n\n{tables(record)}"
    )


def record_tables(path):
    """The tables of a record, or what makes one."""
    if not path.exists():
        place = f"benchmarks/results/{path.name}"
        return f"Not measured yet: `python benchmarks/{path.stem}.py --json {place}` writes the record."
    return own_tables(json.loads(path.read_text()), path.name)


def fill(text, marker, table):
    """`text` with what stands between `<!-- marker -->` and `<!-- /marker -->` replaced."""
    pattern = rf"(<!-- {marker} -->\n).*?(<!-- /{marker} -->)"
    return re.sub(pattern, lambda match: f"{match[1]}\n{table}\n\n{match[2]}", text, flags=re.DOTALL)


def rewrite(page, parts, arguments):
    """Fills a page, or with `--check` among the arguments only compares it.

    Args:
        page: `pathlib.Path`.
        parts: dict of texts by marker.
        arguments: list of str, those of the program.

    Returns:
        The exit code: 1 where the page should be another.
    """
    old = new = page.read_text()
    for marker, part in parts.items():
        new = fill(new, marker, part)
    if "--check" in arguments:
        return int(new != old)
    page.write_text(new)
    return 0


def calibration_table(path):
    """A table of what a calibration changed, from its record, or what makes one."""
    if not path.exists():
        place = f"recipes/results/{path.name}"
        return f"Not measured yet: `python benchmarks/calibration.py RUN --json {place}` writes the record."
    record = json.loads(path.read_text())
    test, images, accuracy = record["test"], record["images"], record["model"]["test_accuracy"]
    rows = [
        f"| {name} | {test[key]['ece']:.4f} | {test[key]['nll']:.4f} |"
        for name, key in (("before", "before"), (f"after, temperature {record['temperature']:.3f}", "after"))
    ]
    speeds = record["images_per_second"]
    return "\n".join(
        [
            f"A model of the recipe `{record['recipe']}` after {record['model']['epochs']} epochs ({accuracy:.1%} "
            f"right on all test images), calibrated on {images['calibration']} of the test images and measured on "
            f"the other {images['test']} (`recipes/results/{path.name}`, by `benchmarks/calibration.py`):",
            "",
            "| | ECE | negative log-likelihood |",
            "|---|---:|---:|",
            *rows,
            "",
            f"In the same run `evaluate` made {speeds['evaluate']:,} images/s and Keras' `predict` "
            f"{speeds['predict']:,} on the same batches, on {record['hardware']['cores']} CPU cores.",
        ]
    )


def main(arguments):
    """Rewrites or checks the pages; returns the exit code."""
    results, benchmarks = recipe_table(ROOT / "recipes" / "results"), benchmark_table(RECORDS)
    codes = [rewrite(ROOT / "README.md", {"results": results, "benchmarks": benchmarks}, arguments)]
    for name, (page, marker) in PAGES.items():
        codes.append(rewrite(page, {marker: record_tables(RECORDS / f"{name}.json")}, arguments))
    calibration = calibration_table(ROOT / "recipes" / "results" / "calibration_digits.json")
    codes.append(rewrite(ROOT / "docs" / "evaluation.md", {"calibration": calibration}, arguments))
    return max(codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
