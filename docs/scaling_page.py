"""Fills the table of docs/distributed.md from the benchmark's record; no number gets there by hand.

python docs/scaling_page.py           rewrite docs/distributed.md
python docs/scaling_page.py --check   exit with 1 if it is not what the record says
"""

import json
import pathlib
import sys

from tables import ROOT, fill, own_tables

PAGE = pathlib.Path(__file__).with_name("distributed.md")
RECORD = ROOT / "benchmarks" / "results" / "scaling.json"
MARKER = "scaling"


def scaling(record=RECORD):
    """The tables of a record of `benchmarks/scaling.py`, or what makes one."""
    if not record.exists():
        return f"Not measured yet: `python benchmarks/scaling.py --json {RECORD.relative_to(ROOT)}` writes the record."
    return own_tables(json.loads(record.read_text()), record.name)


def main(arguments):
    """Rewrites or checks the page; returns the exit code."""
    old = PAGE.read_text()
    new = fill(old, MARKER, scaling())
    if "--check" in arguments:
        return int(new != old)
    PAGE.write_text(new)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
