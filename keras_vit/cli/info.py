"""`keras_vit info`: what is known of a model without loading its weights."""

import json
import pathlib

from keras_vit.backend.skip_init import skip_init
from keras_vit.cli.console import say
from keras_vit.metadata import metadata
from keras_vit.models import VARIANTS, build_model
from keras_vit.models.flops import forward_flops
from keras_vit.origin import portable_origin
from keras_vit.weights.hub.catalog import catalog
from keras_vit.zoo.create import describe_model, is_saved_model

_DESCRIPTION = pathlib.Path("assets.extra") / "keras_vit.json"
_SHOWN_LABELS = 5


def info(options):
    """Prints the description of a model.

    Raises:
        ValueError: if nothing has this name.
    """
    found = _of_saved_model(options.name) if is_saved_model(options.name) else describe(options.name)
    if options.json:
        print(json.dumps(found, indent=1, ensure_ascii=False))
        return
    for line in _lines(found):
        say(line)


def describe(name):
    """Describes a model as a dict of JSON types, without loading or downloading weights.

    Args:
        name: what `keras_vit.load_model` takes.

    Returns:
        dict with `name`, `family`, `config`, `parameters`, `flops` (of one image; `None` where they are not counted),
        `bytes` by dtype of the weights, `input_spec`, `labels`, `calibration`, `license`, `origin`; of published
        weights also `source`, `paper`, `top1` and `top1_source`.

    Raises:
        ValueError, FileNotFoundError, PermissionError, ConnectionError, OSError: as `keras_vit.load_model`.
    """
    is_architecture = str(name) in VARIANTS and not pathlib.Path(name).exists()
    content = None if is_architecture else describe_model(name)
    config = VARIANTS[str(name)] if is_architecture else content.config
    # Variables that share one piece of memory: the model is only counted.
    with skip_init():
        model = build_model(config, None if content is None else content.input_spec)
        parameters = model.count_params()
        content = metadata(model) if content is None else content
    calibration, labels = content.calibration, content.labels
    entry = catalog().get(content.origin if content.origin in catalog() else str(name))
    published = {}
    if entry is not None:
        published = {key: getattr(entry, key) for key in ("source", "paper", "top1", "top1_source")}
    return {
        "name": str(name),
        "family": type(config).__name__,
        "config": config.get_config(),
        "parameters": parameters,
        "flops": counted_flops(config),
        "bytes": {"float32": 4 * parameters, "bfloat16": 2 * parameters},
        "input_spec": content.input_spec.get_config(),
        "labels": None if labels is None else list(labels),
        "calibration": None if calibration is None else calibration.get_config(),
        "license": content.license,
        "origin": portable_origin(content.origin),
        **published,
    }


def counted_flops(config):
    """Returns `keras_vit.models.flops.forward_flops`, or `None` for a config that is not counted."""
    try:
        return forward_flops(config)
    except ValueError:
        return None


def _of_saved_model(path):
    """Describes a SavedModel by its own description, in the same way."""
    path = pathlib.Path(path)
    versions = [folder for folder in path.iterdir() if folder.name.isdigit() and (folder / _DESCRIPTION).is_file()]
    if not (path / "saved_model.pb").is_file() and versions:
        path = max(versions, key=lambda folder: int(folder.name))
    try:
        content = json.loads((path / _DESCRIPTION).read_text(encoding="utf-8"))
        weights, parameters = content["weights"], content["weights"]["parameters"]
        stored = sum(file.stat().st_size for file in (path / "variables").iterdir())
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"a SavedModel of keras_vit must hold a readable {_DESCRIPTION}. Received: {str(path)!r} ({error})"
        ) from error
    return {
        "name": content["name"],
        "version": content["version"],
        "family": content["family"],
        "config": content["config"],
        "parameters": parameters,
        "flops": None,
        "bytes": {content["options"]["weights"]: stored},
        "input_spec": content["input_spec"],
        "labels": content["labels"],
        "calibration": content.get("calibration"),
        "license": weights["license"],
        "origin": weights["origin"],
        "signatures": content["signatures"],
    }


def _lines(found):
    """Yields the lines of a description for people."""
    spec, labels, top1 = found["input_spec"], found["labels"], found.get("top1")
    flops = "not counted" if found["flops"] is None else f"{found['flops'] / 1e9:.2f} GFLOPs an image"
    yield f"{found['name']}: {found['family']}"
    yield f"parameters: {found['parameters']:,}"
    yield "weights: " + ", ".join(f"{size / 1e6:,.1f} MB in {dtype}" for dtype, size in found["bytes"].items())
    yield f"arithmetic: {flops}"
    height, width = spec["size"]
    crop = "whole image" if spec["crop_fraction"] is None else f"center crop of {spec['crop_fraction']:g}"
    yield f"images: {height} x {width}, {crop}, {spec['interpolation']}"
    yield f"normalization: mean {_numbers(spec['mean'])}, std {_numbers(spec['std'])}, of pixels 0 to 1"
    if labels is None:
        yield f"classes: {found['config']['num_classes']}, without names"
    else:
        yield f"classes: {len(labels)}, {', '.join(labels[:_SHOWN_LABELS])}{', ...' * (len(labels) > _SHOWN_LABELS)}"
    if found["calibration"] is not None:
        yield f"calibration: temperature {found['calibration']['temperature']:.4g}"
    yield f"license: {found['license'] or 'unknown'}"
    yield f"origin: {found['origin'] or 'random weights'}"
    if "source" in found:
        yield f"source: {found['source']}"
        yield f"paper: {found['paper']}"
    if top1 is not None:
        yield f"top-1 on ImageNet-1k: {top1} % ({found['top1_source']})"
    yield "config: " + ", ".join(f"{key}={value}" for key, value in found["config"].items())


def _numbers(values):
    return " ".join(f"{value:.4g}" for value in values)
