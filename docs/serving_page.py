"""Fills the table of docs/serving.md from the benchmark's record; no number gets there by hand.

python docs/serving_page.py           rewrite docs/serving.md
python docs/serving_page.py --check   exit with 1 if it is not what the record says
"""

import pathlib
import sys

from tables import ROOT, record_tables, rewrite

PAGE = pathlib.Path(__file__).with_name("serving.md")
RECORD = ROOT / "benchmarks" / "results" / "serving.json"
MARKER = "latency"


def main(arguments):
    """Rewrites or checks the page; returns the exit code."""
    return rewrite(PAGE, {MARKER: record_tables(RECORD)}, arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
