"""What must hold of the files beside the graph: warm-up records, the configuration of a server."""

from google.protobuf import text_format

from keras_vit.export.checked import DoesNotApply, NotMet, require
from keras_vit.export.server_files import MODELS_CONFIG
from keras_vit.export.server_messages import BatchingParameters, MonitoringConfig
from keras_vit.export.warmup import MAX_RECORDS, WARMUP_FILE, has_protos, replay_warmup


def _needs_the_api():
    if not has_protos():
        raise DoesNotApply("needs tensorflow-serving-api: pip install 'keras_vit[serving]'")


def warm_up_records_run(exported):
    """1 to 1,000 records, for every signature, each of which the graph answers: one that fails makes a load fail."""
    if not (exported.path / WARMUP_FILE).exists():
        raise DoesNotApply(f"there is no {WARMUP_FILE}: a server's first answers are slow")
    _needs_the_api()
    try:
        replayed = replay_warmup(exported.path)
    except ValueError as error:
        raise NotMet(str(error)) from error
    require(1 <= len(replayed) <= MAX_RECORDS, f"there are {len(replayed)} records")
    missing = sorted(set(exported.signatures) - {name for name, _ in replayed})
    require(not missing, f"no record is for {', '.join(missing)}")
    sizes = sorted({size for _, size in replayed})
    return f"{len(replayed)} records, batches of {', '.join(map(str, sizes))}"


def the_configuration_parses(exported):
    """`models.config`, `batching.config` and `monitoring.config` are the messages that a server reads, and agree."""
    folder = exported.path.parent
    files = [folder / name for name in (MODELS_CONFIG, "batching.config", "monitoring.config")]
    found = [file for file in files if file.exists()]
    if not found:
        raise DoesNotApply("there are no files for a server beside the versions")
    require(found == files, f"only {', '.join(file.name for file in found)} are there")
    _needs_the_api()
    from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

    models, batching, _ = (
        _parse(file, message)
        for file, message in zip(files, (ModelServerConfig, BatchingParameters, MonitoringConfig), strict=True)
    )
    names = [model.name for model in models.model_config_list.config]
    require(names, f"{MODELS_CONFIG} names no model")
    sizes = list(batching.allowed_batch_sizes)
    require(sizes == sorted(set(sizes)), f"allowed_batch_sizes must increase: {sizes}")
    require(not sizes or sizes[-1] == batching.max_batch_size.value, f"max_batch_size must be the last of {sizes}")
    return f"{', '.join(names)}; batches up to {batching.max_batch_size.value}"


def _parse(file, message):
    try:
        return text_format.Parse(file.read_text(encoding="utf-8"), message())
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise NotMet(f"{file.name}: {error}") from error
