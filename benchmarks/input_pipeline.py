"""Input pipelines: keras_vit beside keras.layers, keras-cv and timm's transforms, interleaved in one run, on one core.

Photographs lie in memory as JPEGs; every contender crops 8 to 100 % of the area, resizes to 224 pixels, mirrors, and
applies a policy. `tf.io.decode_and_crop_jpeg` alone is the yardstick; with the antialiased resize behind it, it shows
what that costs. The RandAugment of keras.layers and keras-cv has other operations than timm's and big_vision's, so that
their rates are of comparable work, not of equal. At 32 pixels images lie in memory decoded: padded crop, mirror, mixup.

All contenders keep the memory that they free: in a virtual machine, pages that go back to the system with every batch
take as long as the images themselves.

    KERAS_VIT_DATA=DIR python benchmarks/input_pipeline.py --json benchmarks/results/input_pipeline.json
"""

import argparse
import os
import pathlib

import report
from contenders import Contender, Task, choose
from harness import take_turns

POLICIES = ("none", "rand-m9-mstd0.5-inc1", "randaugment(2, 10)", "three_augment", "32 px", "32 px, vit_lite_cifar10")
BASELINE = "tf decode_and_crop_jpeg"
_KERAS = ("tensorflow", "keras", "keras_vit")
_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**35)}  # of glibc, in bytes


def _contender(name, packages, how, **options):
    return Contender(name, packages, f"pipeline_contenders:{how}", options)


CONTENDERS = (
    _contender(BASELINE, ("tensorflow",), "raw"),
    _contender("tf decode_and_crop_jpeg, resize", ("tensorflow",), "raw", resize=True),
    _contender("tf decode, resize, not antialiased", ("tensorflow",), "raw", resize=True, antialias=False),
    _contender("keras_vit", _KERAS, "keras_vit"),
    _contender("keras_vit, not antialiased", _KERAS, "keras_vit", crop_antialias=False),
    _contender("keras.layers", ("tensorflow", "keras"), "keras_layers"),
    _contender("keras-cv", ("tensorflow", "keras_cv"), "keras_cv"),
    _contender("timm", ("torch", "timm"), "timm"),
)
COLUMNS = (
    ("policy", "{}"),
    ("contender", "{}"),
    ("images_per_second", "{:.0f}"),
    ("minimum", "{:.0f}"),
    ("interquartile_range", "{:.0f}"),
    ("ratio", "{:.2f}"),
)


def is_small(policy):
    """Returns whether a policy is one of small images that lie in memory."""
    return policy.startswith("32 px")


def takes_part(contender, policy):
    """Returns whether a contender has its own program for a policy."""
    if is_small(policy):
        return contender.name in ("keras_vit", "timm")
    if policy in ("none", POLICIES[1]):
        return policy == "none" or "not antialiased" not in contender.name
    if policy == "randaugment(2, 10)":  # timm has none; the layers' own stand at the policy before
        return contender.name in (BASELINE, "keras_vit")
    return contender.name in (BASELINE, "keras_vit", "timm")


def rows_of(policy, results):
    """A row for every contender of a policy.

    Args:
        policy: str.
        results: dict from contender to `rates` (images/s, one a round) or a `note`.

    Returns:
        A list of dicts.
    """
    reference = results.get(BASELINE, {}).get("rates", [])
    rows = []
    for contender, result in results.items():
        row = {"policy": policy, "contender": contender}
        if "note" in result:
            rows.append({**row, "note": result["note"]})
            continue
        rates = result["rates"]
        ratio = report.paired_ratio(rates, reference)
        rows.append({**row, **report.summary(rates), "ratio": ratio, "memory": result.get("memory"), "rates": rates})
    return rows


def markdown(record):
    """The table of a record under a line about the machine."""
    return f"{report.headline(record)}\n\n{tables(record)}\n"


def tables(record):
    """The table of a record."""
    titles = ("policy", "contender", "images/s on a core", "min", "IQR", f"against {BASELINE}")
    lines = ["| " + " | ".join(titles) + " |", "| --- | --- | ---: | ---: | ---: | ---: |"]
    for row in record["rows"]:
        texts = ["-" if row.get(key) is None else form.format(row[key]) for key, form in COLUMNS]
        if "note" in row:
            texts[2] = row["note"].replace("|", "\\|")
        lines.append("| " + " | ".join(texts) + " |")
    return "\n".join(lines)


def parser():
    """The options."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    data = os.environ.get("KERAS_VIT_DATA")
    options.add_argument(
        "--folder",
        default=data and str(pathlib.Path(data) / "imagenet_samples"),
        help="of JPEGs; imagenet_samples in the folder that KERAS_VIT_DATA names",
    )
    options.add_argument("--policies", default="; ".join(POLICIES), help="a list with semicolons")
    options.add_argument("--contenders", default="", help="names with semicolons; all if not given")
    options.add_argument("--image-size", type=int, default=224, help="pixels")
    options.add_argument("--batch", type=int, default=64, help="images of a batch")
    options.add_argument("--batches", type=int, default=8, help="of a pass; 25 times as many at 32 pixels")
    options.add_argument("--rounds", type=int, default=10, help="turns of each contender")
    options.add_argument("--seconds", type=float, default=3.0, help="length of a turn, of one pass at least")
    options.add_argument("--json", help="where to write the record, for example benchmarks/results/x.json")
    options.add_argument("--markdown", help="where to write the table, which is printed in any case")
    return options


def main(argv=None):
    """Measures, prints the table, and writes what was asked for."""
    options = parser()
    arguments = options.parse_args(argv)
    try:
        chosen = choose(CONTENDERS, [name.strip() for name in arguments.contenders.split(";") if name.strip()])
    except ValueError as error:
        options.error(str(error))
    policies = [policy.strip() for policy in arguments.policies.split(";")]
    if unknown := set(policies) - set(POLICIES):
        options.error(f"--policies must be of {POLICIES}. Received: {sorted(unknown)}")
    if not arguments.folder:
        options.error("--folder must name a folder of JPEGs where KERAS_VIT_DATA is not set")
    setting = {k: v for k, v in vars(arguments).items() if k not in ("json", "markdown", "folder")} | {"threads": 1}
    record = report.make_record("input_pipeline", setting, BASELINE)
    for policy in policies:
        small = is_small(policy)
        config = {
            "folder": None if small else arguments.folder,
            "policy": None if policy in ("none", "32 px") else policy.removeprefix("32 px, "),
            "image_size": 32 if small else arguments.image_size,
            "batch": arguments.batch,
        }
        images = arguments.batch * arguments.batches * (25 if small else 1)
        task = Task(policy, config, images, "float32", training=True)
        contenders = [contender for contender in chosen if takes_part(contender, policy)]
        results = take_turns(contenders, task, arguments.rounds, arguments.seconds, 1, report.progress)
        record["rows"] += rows_of(policy, results)
        report.save(record, markdown(record), arguments)
    print(markdown(record))


if __name__ == "__main__":
    os.environ.update(_KEEP_MEMORY)  # of the contenders' processes
    main()
