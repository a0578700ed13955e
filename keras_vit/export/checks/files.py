"""Checks of warm-up records and server configuration files."""

import re

from google.protobuf import text_format

from keras_vit.export.checks.base import CheckFailed, NotApplicable, require
from keras_vit.export.server.files import BATCHING_CONFIG, MODELS_CONFIG, allowed_batch_sizes
from keras_vit.export.server.protos import BatchingParameters, MonitoringConfig
from keras_vit.export.server.warmup import MAX_RECORDS, WARMUP_FILE, has_protos, replay_warmup


def _needs_the_api():
    if not has_protos():
        raise NotApplicable(
            "needs tensorflow-serving-api: pip install 'keras-vit-zoo[serving] @ git+<this repository>'"
        )


def warm_up_records_run(exported):
    """Checks that 1 to 1,000 warm-up records run, for every signature and batch size of the server.

    One that fails makes a load fail; a batch without one makes the first requests of its size slow.
    """
    if not (exported.path / WARMUP_FILE).exists():
        raise NotApplicable(f"there is no {WARMUP_FILE}: a server's first answers are slow")
    _needs_the_api()
    try:
        replayed = replay_warmup(exported.path)
    except ValueError as error:
        raise CheckFailed(str(error)) from error
    require(1 <= len(replayed) <= MAX_RECORDS, f"there are {len(replayed)} records")
    sizes = sorted(_allowed(exported) or {size for _, size in replayed})
    missing = sorted({(name, size) for name in exported.signatures for size in sizes} - set(replayed))
    text = ", ".join(f"{name} with {size} images" for name, size in missing[:3])
    require(not missing, f"no record is for {text}" + (f" and {len(missing) - 3} others" if len(missing) > 3 else ""))
    return f"{len(replayed)} records, batches of {', '.join(map(str, sizes))}"


def _allowed(exported):
    try:
        return allowed_batch_sizes(exported.path.parent)
    except ValueError as error:
        raise CheckFailed(str(error)) from error


def the_configuration_parses(exported):
    """Checks that `models.config`, `batching.config` and `monitoring.config` parse and agree.

    With each other, with what the version is called, and with the place where the other files have the folder mounted.
    """
    folder = exported.path.parent
    files = [folder / name for name in (MODELS_CONFIG, BATCHING_CONFIG, "monitoring.config")]
    found = [file for file in files if file.exists()]
    if not found:
        raise NotApplicable("there are no files for a server beside the versions")
    require(found == files, f"only {', '.join(file.name for file in found)} are there")
    _needs_the_api()
    from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

    models, batching, _ = (
        _parse(file, message)
        for file, message in zip(files, (ModelServerConfig, BatchingParameters, MonitoringConfig), strict=True)
    )
    names = [model.name for model in models.model_config_list.config]
    require(names, f"{MODELS_CONFIG} names no model")
    wanted = exported.description["name"]
    require(wanted in names, f"{MODELS_CONFIG} names {', '.join(names)}; the version is one of {wanted}")
    _is_mounted(models.model_config_list.config[names.index(wanted)].base_path, folder)
    sizes = list(batching.allowed_batch_sizes)
    require(sizes == sorted(set(sizes)), f"allowed_batch_sizes must increase: {sizes}")
    require(not sizes or sizes[-1] == batching.max_batch_size.value, f"max_batch_size must be the last of {sizes}")
    return f"{', '.join(names)}; batches up to {batching.max_batch_size.value}"


def _is_mounted(base_path, folder):
    """Requires that the base path of `models.config` is mounted in the server."""
    for file in (folder / name for name in ("compose.yaml", "kubernetes.yaml")):
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        places = re.findall(r"\b(?:target|mountPath):\s*[\"']?(/[\w.+/-]*)", text)
        seen = any(f"{base_path}/".startswith(f"{place.rstrip('/')}/") for place in places)
        require(seen or not places, f"{MODELS_CONFIG} has the base_path {base_path}, where {file.name} mounts nothing")


def _parse(file, message):
    try:
        return text_format.Parse(file.read_text(encoding="utf-8"), message())
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise CheckFailed(f"{file.name}: {error}") from error
