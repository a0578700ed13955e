"""The rows and tables of `loading.py`."""

import statistics

from report import headline, paired_ratio

MEGABYTE = 2**20


def load_rows(name, size, results, baseline):
    """One row a contender of create + load.

    Args:
        name: str. The model's name.
        size: int. Bytes of the weights.
        results: dict from contender to `parameters`, `memory` (MB), `seconds` (a list), or a `note`.
        baseline: str. The contender whose time the others' are multiples of.

    Returns:
        A list of dicts.
    """
    reference = results.get(baseline, {}).get("seconds", [])
    rows = []
    for contender, result in results.items():
        row = {"model": name, "contender": contender, "megabytes": size / MEGABYTE, **result}
        if "note" not in result:
            row |= {"median": statistics.median(result["seconds"]), "minimum": min(result["seconds"])}
            row |= {"ratio": paired_ratio(result["seconds"], reference), "memory_ratio": _times(result["memory"], size)}
        rows.append(row)
    return rows


def _times(memory, size):
    return memory * MEGABYTE / size


def fill_row(name, result):
    """The row of filling one model: medians, and the multiples of reading within a round.

    Args:
        name: str. The model's name.
        result: dict with `bytes`, `memory` (MB) and lists of seconds `fill`, `read`, `read_into`, or with a `note`.

    Returns:
        dict.
    """
    row = {"model": name, **result}
    if "note" in result:
        return row
    row["medians"] = {key: statistics.median(result[key]) for key in ("fill", "read", "read_into")}
    row["ratios"] = {key: paired_ratio(result["fill"], result[key]) for key in ("read", "read_into")}
    return row | {"memory_ratio": _times(result["memory"], result["bytes"])}


def tables(record):
    """Both tables as Markdown."""
    lines = [
        f"| model | contender | create + load, s | least, s | times {record['baseline']} | memory / file |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for row in record["rows"]:
        start = f"| {row['model']} | {row['contender']} |"
        if "note" in row:
            lines.append(f"{start} {_escaped(row['note'])} | | | |")
            continue
        ratio = "-" if row["ratio"] is None else f"{row['ratio']:.2f}"
        lines.append(f"{start} {row['median']:.2f} | {row['minimum']:.2f} | {ratio} | {row['memory_ratio']:.2f} |")
    lines += [
        "",
        "| filling alone | file, MB | seconds | times `read()` | times `readinto` | create + load: memory / file |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in record["filling"]:
        if "note" in row:
            lines.append(f"| {row['model']} | {_escaped(row['note'])} | | | | |")
            continue
        ratios = f"{row['ratios']['read']:.2f} | {row['ratios']['read_into']:.2f} | {row['memory_ratio']:.2f}"
        lines.append(f"| {row['model']} | {row['bytes'] / MEGABYTE:.0f} | {row['medians']['fill']:.2f} | {ratios} |")
    lines += [
        "",
        "Memory: the most anonymous memory above that after the imports, over the size of the weights. `read()` gives "
        "new memory, `readinto` fills a buffer that exists; both of a file that lies in the system's cache.",
    ]
    return "\n".join(lines)


def _escaped(text):
    return text.replace("|", "\\|")


def markdown(record):
    """The tables under a line about the setting and the machine."""
    return f"{headline(record)}\n\n{tables(record)}\n"
