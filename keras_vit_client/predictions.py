"""Prints or writes the predictions of `keras_vit predict`, and names the images without one."""

import csv
import json
import os
import pathlib
import sys

SUFFIXES = (".csv", ".json", ".jsonl")


def report(images, answers, top, to=None, say=print, form=None):
    """Prints the best classes of images as they come, or writes them to a file or as a table.

    Args:
        images: paths.
        answers: iterable with, for each image, a list of `(class name, score)`, best first, or a str: why there is
            none.
        top: int. How many classes.
        to: path of a `.csv`, `.json` or `.jsonl` file, or `None`: lines are printed. It is also written where `answers`
            ends early, with those that have come.
        say: callable for lines of text.
        form: `json` or `csv`, which is printed at the end instead of lines; `None` for lines. Not with `to`.

    Raises:
        ValueError: if images have no answer, with all of their names; on another ending of `to`.
    """
    check_target(to)
    rows, failed = [], []
    try:
        for image, answer in zip(images, answers, strict=True):
            is_failed = isinstance(answer, str)
            best = [] if is_failed else answer[:top]
            if is_failed:
                failed.append((image, answer))
            elif to is None and form is None:
                say(f"{image}: " + ", ".join(f"{name} {score:.3f}" for name, score in best))
            if to is not None or form is not None:
                rows.append((str(image), best, answer if is_failed else None))
    finally:
        if to is not None:
            _write(pathlib.Path(to), rows)
        elif form is not None:
            _write_rows(sys.stdout, f".{form}", rows)
    if to is not None:
        say(f"{len(rows) - len(failed):,} {'image' if len(rows) - len(failed) == 1 else 'images'} classified: {to}")
    if failed:
        lines = "".join(f"\n  {image}: {reason}" for image, reason in failed)
        raise ValueError(f"every image must be readable. Received: {len(failed)} of {len(images)} that are not{lines}")


def check_target(to):
    """Raises a `ValueError` unless answers can be written to a path, or it is `None`."""
    if to is not None and pathlib.Path(to).suffix.lower() not in SUFFIXES:
        raise ValueError(f"--to must end in {', '.join(SUFFIXES)}. Received: --to {to}")


def _write(path, rows):
    """Writes `(image, [(class, score)], error)` rows; an older file is replaced at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with open(partial, "w", newline="", encoding="utf-8") as file:
        _write_rows(file, path.suffix.lower(), rows)
    os.replace(partial, path)


def _write_rows(file, suffix, rows):
    """Writes the rows of `_write` to an open file in the format of a suffix."""
    if suffix == ".csv":
        most = max((len(best) for _, best, _ in rows), default=0)
        writer = csv.writer(file, lineterminator="\n" if file is sys.stdout else "\r\n")
        columns = [f"{kind}_{rank}" for rank in range(1, most + 1) for kind in ("class", "score")]
        writer.writerow(["image", *columns, "error"])
        for image, best, error in rows:
            cells = [cell for pair in best for cell in pair]
            writer.writerow([image, *cells, *[""] * (2 * most - len(cells)), error or ""])
        return
    items = [_item(*row) for row in rows]
    if suffix == ".json":
        json.dump(items, file, indent=1, ensure_ascii=False)
        file.write("\n")
    else:
        file.writelines(json.dumps(item, ensure_ascii=False) + "\n" for item in items)


def _item(image, best, error):
    if error is not None:
        return {"image": image, "error": error}
    return {"image": image, "classes": [{"class": name, "score": float(score)} for name, score in best]}
