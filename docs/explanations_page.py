"""Fills the table of docs/explanations.md from its record; no number gets there by hand.

python docs/explanations_page.py           rewrite docs/explanations.md
python docs/explanations_page.py --check   exit with 1 if it is not what the record says
"""

import json
import pathlib
import sys

from tables import ROOT, rewrite

PAGE = pathlib.Path(__file__).with_name("explanations.md")
RECORD = ROOT / "recipes" / "results" / "faithfulness.json"


def table():
    """A row for each method, and a sentence on the images and the model."""
    record = json.loads(RECORD.read_text())
    lines = [
        "| method | deletion, less is better | insertion, more is better | pointing game | seconds an image | "
        "time in forward passes |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in record["methods"].items():
        cells = [f"{row['deletion_auc']:.3f}", f"{row['insertion_auc']:.3f}", f"{row['pointing_game']:.0%}"]
        cells += [f"{row['seconds_an_image']:.2f}", f"{row['forward_passes']:.1f}"]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    side = record["image_size"]
    return "\n".join(lines) + (
        f"\n\n{record['images']} photographs of {side} by {side} pixels that the head is "
        f"right on; it is right on {record['accuracy']:.1%} of those that it was not trained on. An object covers "
        f"{record['object_area']:.1%} of its image. `integrated_gradients` and `smooth_grad` take "
        f"{record['steps_of_pixel_gradients']} steps. Batches of eight, on two cores that other "
        "programs used too, with TensorFlow."
    )


def main(arguments=None):
    """Rewrites the page, or checks it; returns the exit code."""
    return rewrite(PAGE, {"faithfulness": table()}, sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    sys.exit(main())
