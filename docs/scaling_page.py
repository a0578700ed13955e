"""Fills the table of docs/distributed.md from the benchmark's record; no number gets there by hand.

python docs/scaling_page.py           rewrite docs/distributed.md
python docs/scaling_page.py --check   exit with 1 if it is not what the record says
"""

import pathlib
import sys

from tables import ROOT, record_tables, rewrite

PAGE = pathlib.Path(__file__).with_name("distributed.md")
RECORD = ROOT / "benchmarks" / "results" / "scaling.json"
MARKER = "scaling"


def main(arguments):
    """Rewrites or checks the page; returns the exit code."""
    return rewrite(PAGE, {MARKER: record_tables(RECORD)}, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
