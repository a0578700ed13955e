"""Run records: settings, code, hardware and results of a run."""

import contextlib
import datetime
import json
import os
import pathlib
import platform
import subprocess
import time
from importlib import metadata

import keras

from keras_vit.atomic import replaced
from keras_vit.origin import portable_origin

_PATHS = (pathlib.PurePosixPath, pathlib.PureWindowsPath)
RESULTS = pathlib.Path("recipes/results")
PACKAGES = ("keras_vit", "keras", "tensorflow", "jax", "torch", "numpy", "pillow", "tensorflow-datasets", "keras-cv")


def _git(*arguments, cwd):
    try:
        return subprocess.run(["git", *arguments], cwd=cwd, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def commit():
    """Returns `(commit, dirty)` of the checkout of the library, ignoring records; `(None, None)` outside one."""
    root = pathlib.Path(__file__).parents[3]
    if not (root / ".git").exists():
        return None, None
    status = _git(
        "status", "--porcelain", "--", ".", ":!recipes/results", ":!benchmarks/results", ":!tests/results", cwd=root
    )
    return _git("rev-parse", "HEAD", cwd=root), None if status is None else bool(status)


def hardware():
    """Describes CPU model, cores and memory, as a dict."""
    name = platform.processor()
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        name = lines[0].partition(":")[2].strip() if lines else name
    found = {"cpu": name, "cores": os.cpu_count(), "machine": platform.machine(), "system": platform.system()}
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found["gigabytes"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    return found


def process_seconds():
    """Measures the seconds since this process started, imports included; `None` without `/proc`."""
    try:
        # The fields behind the command, which may hold anything, from the third on; the 22nd is the start.
        ticks = int(pathlib.Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return None
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def versions():
    """Lists the versions of Python and of the packages that affect results, as a dict."""
    installed = {package: version for package, version in package_versions(PACKAGES).items() if version is not None}
    return {"python": platform.python_version(), "backend": keras.backend.backend(), **installed}


def package_versions(packages):
    """Lists the versions of packages by name, `None` for those that are not installed."""
    found = dict.fromkeys(packages)
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def code():
    """Describes the running code: `commit`, `dirty`, `versions`. Call it at the start, as files may change later."""
    revision, dirty = commit()
    return {"commit": revision, "dirty": dirty, "versions": versions()}


def run_record(recipe, result, model, evaluation, **extra):
    """Builds the record that is needed to verify and repeat a run.

    Args:
        recipe: the resolved `Recipe`.
        result: what `fit` returned; the last of its `code` is the one named, `earlier_code` what ran in front of it.
        model: the trained model.
        evaluation: dict with `accuracy`, where there are classes, `loss`, `examples` and the `split` they belong to; of
            a segmentation with `mean_iou` too.
        **extra: further JSON types, for example a baseline.

    Returns:
        A dict of JSON types. `wall_seconds` are those of training; `process_seconds` all since the process began, data,
        compilation and evaluation among them, `None` for a run of several processes.
    """
    *earlier, ran = result.get("code") or [code()]
    whole = process_seconds()
    place = result["resumed_from"], result.get("resumed_step", 0)
    # Not by the name of the split: that of ImageNet to test on is called validation.
    name = "validation" if recipe.data.has_validation else "test"
    return {
        "recipe": recipe.name,
        "model": {"name": model.name, "parameters": model.count_params()},
        "config": recipe.to_dict(),
        "commit": ran["commit"],
        "dirty": ran["dirty"],
        "hardware": hardware(),
        "versions": ran["versions"],
        **({"earlier_code": earlier} if earlier else {}),
        # The learning rate was that of these lengths before it was that of the recipe's.
        **({"earlier_epochs": result["earlier_epochs"]} if result.get("earlier_epochs") else {}),
        "seed": recipe.training.seed,
        "epochs": result["history"],
        "best_epoch": result.get("best_epoch"),
        "resumed_from": place[0],
        "resumed_step": place[1],
        "wall_seconds": round(result["seconds"], 2),
        "process_seconds": None if any(place) or whole is None else round(whole, 1),
        **({f"{name}_accuracy": evaluation["accuracy"]} if "accuracy" in evaluation else {}),
        **({f"{name}_mean_iou": evaluation["mean_iou"]} if "mean_iou" in evaluation else {}),
        f"{name}_examples": evaluation["examples"],
        f"{name}_loss": evaluation.get("loss"),
        **extra,
    }


def without_folders(record):
    """A record for others: of every absolute path in its config, which is one of this machine, the last part.

    Args:
        record: dict of JSON types, as `run_record` returns it.
    """

    def shortened(value):
        if isinstance(value, dict):
            return {key: shortened(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [shortened(item) for item in value]
        if isinstance(value, str) and any(kind(value).is_absolute() for kind in _PATHS):
            return portable_origin(value)
        return value

    return record | {"config": shortened(record["config"])}


def record_path(recipe):
    """Returns the path of the record of today's run, relative to the working directory."""
    return RESULTS / recipe.name / f"{datetime.date.today().isoformat()}-seed{recipe.training.seed}.json"


def write_json(path, record):
    """Writes a record atomically."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path) as partial:
        partial.write_text(json.dumps(record, indent=1) + "\n")
