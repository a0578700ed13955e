"""`keras_vit doctor`: the installation and the machine, for a report of a problem."""

import json
import os
import pathlib
import platform
import sys
import time
import types

import keras
import numpy as np
import tensorflow as tf

from keras_vit.cli.console import say
from keras_vit.config.recipe import TrainingConfig
from keras_vit.distribution.strategies import accelerators, device_kind
from keras_vit.training.loop.hardware import choose_compiler, choose_precision, cpu_flags
from keras_vit.training.reports.run_record import commit, hardware, package_versions, versions
from keras_vit.version import __version__

# Packages of the extras; those that results depend on are in `versions`.
_OPTIONAL = (
    "tensorflow-serving-api",
    "grpcio",
    "matplotlib",
    "scikit-learn",
    "tf2onnx",
    "onnx",
    "onnxruntime",
    "ai-edge-litert",
    "openvino",
    "huggingface_hub",
    "safetensors",
)
# Features of a CPU that decide about speed.
_FEATURES = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
_VARIABLES = ("KERAS_", "TF_", "XLA_", "CUDA_", "OMP_", "JAX_", "HF_HUB_", "HF_HOME", "TFDS_")
_SECRET = ("TOKEN", "KEY", "SECRET", "PASSWORD")
_SIDE, _SECONDS = 1024, 0.2  # of the matrices of the probe, and the time for each of them


def doctor(options):
    """Prints what a report of a problem needs to say."""
    found = examine()
    if options.json:
        print(json.dumps(found, indent=1, ensure_ascii=False))
        return
    for part, content in found.items():
        if not isinstance(content, dict):
            say(f"{part}: {_text(content)}")
            continue
        say(f"{part}:")
        for name, value in content.items():
            say(f"  {name}: {_text(value)}")


def examine():
    """Examines the installation and the machine, as a dict of JSON types."""
    revision, dirty = commit()
    device = device_kind()
    recipe = types.SimpleNamespace(training=TrainingConfig())
    return {
        "keras_vit": __version__,
        "commit": None if revision is None else revision + (" with changes" if dirty else ""),
        "installed in": str(pathlib.Path(__file__).parents[1]),
        "platform": platform.platform(),
        "python": sys.version.split()[0],
        "packages": versions() | package_versions(_OPTIONAL),
        "machine": hardware()
        | {"usable cores": _usable_cores(), "cpu features": [name for name in _FEATURES if name in cpu_flags()]},
        "devices": {"kind": device, "accelerators": accelerators(), "tensorflow built with CUDA": _built_with_cuda()},
        "threads": {
            "intra-op": tf.config.threading.get_intra_op_parallelism_threads() or "by TensorFlow",
            "inter-op": tf.config.threading.get_inter_op_parallelism_threads() or "by TensorFlow",
        },
        "oneDNN": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "by TensorFlow"),
        "training": {
            "precision": choose_precision(recipe, device),
            "compiler": choose_compiler(recipe, device, max(len(accelerators()), 1)),
            "dtype policy": keras.config.dtype_policy().name,
        },
        "probe": _probe(),
        "caches": _caches(),
        "environment": {
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith(_VARIABLES) and not any(word in name for word in _SECRET)
        },
    }


def _usable_cores():
    """Returns the cores that this process may use, which a container may limit."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _built_with_cuda():
    return bool(tf.sysconfig.get_build_info().get("is_cuda_build"))


def _probe():
    """Multiplies matrices in float32 and bfloat16, and by an XLA program; returns speeds, or what went wrong."""
    values = np.random.default_rng(0).normal(size=(_SIDE, _SIDE)).astype("float32")
    found = {}
    for name, dtype, compiled in (
        ("float32", "float32", False),
        ("bfloat16", "bfloat16", False),
        ("float32 with XLA", "float32", True),
    ):
        try:
            found[name] = f"{_gigaflops(tf.cast(values, dtype), compiled):,.0f} GFLOP/s"
        except tf.errors.OpError as error:
            found[name] = f"fails: {error.message.splitlines()[0]}"
    return found


def _gigaflops(matrix, compiled):
    product = tf.function(lambda x: tf.reduce_sum(tf.cast(tf.matmul(x, x), tf.float32)), jit_compile=compiled)
    product(matrix).numpy()
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < _SECONDS:
        product(matrix).numpy()
        count += 1
    return 2 * _SIDE**3 * count / (time.perf_counter() - start) / 1e9


def _caches():
    """Returns the folders that hold what was downloaded."""
    from huggingface_hub import constants

    return {
        "keras": os.environ.get("KERAS_HOME", str(pathlib.Path("~/.keras").expanduser())),
        "hub": str(constants.HF_HUB_CACHE),
        "tensorflow_datasets": os.environ.get("TFDS_DATA_DIR", str(pathlib.Path("~/tensorflow_datasets").expanduser())),
    }


def _text(value):
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "not installed" if value is None else str(value)
