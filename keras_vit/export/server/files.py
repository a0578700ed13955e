"""Writes files for TF Serving beside the versions: configuration, compose file, Kubernetes manifest.

The texts are in `server/`, with comments on every choice. TF Serving takes the children of a model's folder whose names
are integers for versions and passes over all others, so the files lie among the versions: one folder is all to mount.
Source: `IndexChildrenByVersion` in `sources/storage_path/file_system_storage_path_source.cc` of TF Serving.
"""

import os
import pathlib
import re
import string
import tempfile

from google.protobuf import text_format

from keras_vit.export.servable.description import read_options
from keras_vit.export.servable.options import BATCH_SIZES, check_batch_sizes
from keras_vit.export.server.protos import BatchingParameters
from keras_vit.export.versions import MODEL_FILE, check_folder, newest
from keras_vit.image_ops.decode import BYTES_PER_PIXEL, MAX_PIXELS, PARALLEL
from keras_vit.validation import check_count, check_positive

# The server itself, the graph, the activations of its batches, the requests.
BASE_MIB = 1024
_STEP_MIB = 256
# How many times the bytes on the disk are the weights that a call unpacks.
_UNPACKED = {"float32": 0, "bfloat16": 2, "int8": 4}


def memory_needed(directory, cpus):
    """Computes the memory of a server of the newest version, with images of the maximum size.

    The sum of `BASE_MIB`; the weights twice, since a new version is loaded beside the old one; what each batch unpacks
    of weights that are stored in fewer bytes; and the images that are decoded at the same time: `PARALLEL` of each
    batch, of which there are as many as cores, with `BYTES_PER_PIXEL * max_pixels` bytes each. The limit is that of the
    graph: what clients send is for a proxy to bound.

    Args:
        directory: path of the folder of the versions. Where there is none yet, the images are those that an export
            allows by default, and the weights nothing.
        cpus: int. Cores, which are also the batches that are computed at the same time.

    Returns:
        int, MiB, a multiple of 256.
    """
    version = newest(pathlib.Path(directory))
    weights, unpacked, max_pixels = 0, 0, MAX_PIXELS
    if (version / MODEL_FILE).exists():
        weights = sum(file.stat().st_size for file in (version / "variables").iterdir())
        options = read_options(version)
        unpacked, max_pixels = _UNPACKED.get(options.get("weights"), 0), options.get("max_pixels", MAX_PIXELS)
    images = PARALLEL * cpus * BYTES_PER_PIXEL * max_pixels
    needed = BASE_MIB + (weights * (2 + unpacked * cpus) + images) / 2**20
    return _STEP_MIB * -int(-needed // _STEP_MIB)


MODELS_CONFIG, BATCHING_CONFIG = "models.config", "batching.config"
FILES = (MODELS_CONFIG, BATCHING_CONFIG, "monitoring.config", "compose.yaml", "kubernetes.yaml")
# The server should be no older than the TensorFlow that wrote the model.
IMAGE = "tensorflow/serving:2.21.0"
_TEMPLATES = pathlib.Path(__file__).with_name("templates")
_MAX_KUBERNETES_NAME = 50


def write_server_files(
    directory,
    name=None,
    batch_sizes=BATCH_SIZES,
    *,
    base_path=None,
    cpus=2,
    memory_mib=None,
    batch_timeout_micros=2000,
    image=IMAGE,
    overwrite=False,
):
    """Writes `models.config`, `batching.config`, `monitoring.config`, `compose.yaml` and `kubernetes.yaml`.

    Args:
        directory: path of the folder of the versions, such as `saved_models/flowers`; made if it is not there.
        name: str, the model's name on the server: letters, digits, `_`, `-` and `.`. Default: the folder's name.
        batch_sizes: increasing positive ints, `allowed_batch_sizes`; the last is `max_batch_size`. They should be
            those of the warm-up records. Default `(1, 2, 4, 8)`.
        base_path: str, where the server sees the folder. Default `/models/<name>`.
        cpus: int. Cores of a server. Default 2.
        memory_mib: int. Memory of a server, in MiB. Default: `memory_needed(directory, cpus)`, which is safe.
        batch_timeout_micros: int. How long a request waits for others to share its batch. Default 2000.
        image: str, the Docker image.
        overwrite: bool. Whether files that are there are replaced; else they stay, since one edits them. Default False.

    Returns:
        A list with the paths of the files that were written.

    Raises:
        ValueError: if the name or a number is none, or `directory` is a version.
    """
    directory = pathlib.Path(directory)
    check_folder(directory)
    values = _values(
        directory.resolve().name if name is None else name,
        check_batch_sizes(batch_sizes),
        base_path,
        check_positive(cpus, "cpus"),
    )
    memory_mib = memory_needed(directory, cpus) if memory_mib is None else memory_mib
    values["memory_mib"] = check_positive(memory_mib, "memory_mib")
    values["batch_timeout_micros"] = check_count(batch_timeout_micros, "batch_timeout_micros")
    values["image"] = image
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for file in FILES:
        if overwrite or not (directory / file).exists():
            template = string.Template((_TEMPLATES / file).read_text(encoding="utf-8"))
            _replace(directory / file, template.substitute(values))
            written.append(directory / file)
    return written


def check_model_name(name):
    """Raises a `ValueError` unless a name has only letters, digits, `_`, `-` and `.`, as servers and URLs require."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise ValueError(f"name must be of letters, digits, '_', '-' and '.'. Received: name={name!r}")


def allowed_batch_sizes(directory):
    """Reads the batch sizes that `batching.config` in a folder allows.

    Args:
        directory: path of the folder of the versions.

    Returns:
        A tuple of int, or `None` where there is no `batching.config`, or it allows every size.

    Raises:
        ValueError: if that file is none.
    """
    file = pathlib.Path(directory) / BATCHING_CONFIG
    if not file.exists():
        return None
    try:
        config = text_format.Parse(file.read_text(encoding="utf-8"), BatchingParameters())
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise ValueError(
            f"a server must be able to read {BATCHING_CONFIG}. Received: {str(file)!r} ({error})"
        ) from error
    return tuple(config.allowed_batch_sizes) or None


def server_flags(base_path, batch_sizes, cpus):
    """Returns the flags of `tensorflow_model_server` for these files.

    Args:
        base_path: str, where the server sees the folder of the versions.
        batch_sizes: increasing positive ints.
        cpus: int. Cores of the server.

    Returns:
        A list of str.
    """
    # A request keeps a thread while it waits for its batch, and as many as a batch holds again should be waiting.
    threads = max(16, 2 * batch_sizes[-1])
    return [
        "--port=8500",
        "--rest_api_port=8501",
        f"--model_config_file={base_path}/{MODELS_CONFIG}",
        "--model_config_file_poll_wait_seconds=60",
        # Else a server does not start with labels for versions that it is about to load.
        "--allow_version_labels_for_unavailable_models=true",
        "--enable_batching=true",
        f"--batching_parameters_file={base_path}/{BATCHING_CONFIG}",
        f"--monitoring_config_file={base_path}/monitoring.config",
        # Within a container the server counts the cores of the whole machine.
        f"--tensorflow_intra_op_parallelism={cpus}",
        f"--tensorflow_inter_op_parallelism={cpus}",
        f"--rest_api_num_threads={threads}",
        f"--grpc_max_threads={threads}",
        "--rest_api_timeout_in_ms=30000",
    ]


def _values(name, batch_sizes, base_path, cpus):
    """Returns the values of the templates."""
    check_model_name(name)
    base_path = f"/models/{name}" if base_path is None else str(base_path).rstrip("/")
    if not re.fullmatch(r"(/[\w.+-]+)+", base_path):
        raise ValueError(f"base_path must be an absolute path without blanks. Received: base_path={base_path!r}")
    flags = server_flags(base_path, batch_sizes, cpus)
    return {
        "name": name,
        "service": _service(name),
        "base_path": base_path,
        "cpus": cpus,
        "max_batch_size": batch_sizes[-1],
        "allowed_batch_sizes": "\n".join(f"allowed_batch_sizes: {size}" for size in batch_sizes),
        "max_enqueued_batches": 4 * cpus,
        "compose_flags": "\n".join(f"      - {flag}" for flag in flags),
        "kubernetes_flags": "\n".join(f"            - {flag}" for flag in flags),
    }


def _service(name):
    """Converts a name for Kubernetes: lower case letters, digits and hyphens, starting with a letter."""
    service = re.sub(r"[^a-z0-9]+", "-", name.lower())[:_MAX_KUBERNETES_NAME].strip("-")
    return service if service[0].isalpha() else f"model-{service}"


def _replace(file, text):
    """Writes a file atomically, because a server exits on half a `models.config`."""
    handle, partial = tempfile.mkstemp(prefix=".partial-", dir=file.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(partial, 0o644)
        os.replace(partial, file)
    except BaseException:
        pathlib.Path(partial).unlink(missing_ok=True)
        raise
