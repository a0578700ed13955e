"""`tf.distribute` strategies by name.

    strategy = keras_vit.distribution.strategy("auto")
    with strategy.scope():
        model = keras_vit.ViTBase(num_classes=10)
        model.compile(...)
    keras_vit.distribution.prepare(model)
    model.fit(...)

`prepare` is the one line that Keras does not have; `tests/distribution/test_one_device.py` shows what it corrects.
"""

import functools
import os

import numpy as np
import tensorflow as tf

from keras_vit.distribution.datasets import MultiWorkerStrategy, distribute_shards, with_sharding
from keras_vit.distribution.tf_config import read_tf_config
from keras_vit.distribution.trainer import prepare
from keras_vit.training.loop.workers import Workers
from keras_vit.validation import check_strategy

__all__ = [
    "MultiWorkerStrategy",
    "accelerators",
    "check_device",
    "device_kind",
    "distribute_shards",
    "make_workers",
    "prepare",
    "resolve_name",
    "strategy",
    "with_sharding",
]

_PIECE = 2**21  # numbers of 8 bytes that go from the chief to the others at once


def strategy(name="auto"):
    """The strategy of a name.

    Args:
        name: one of

            - `auto`: `multi_worker` where `TF_CONFIG` names several workers, else `tpu` where there is one, else
              `mirrored` where there are several GPUs, else `one`.
            - `one`: TensorFlow's default strategy: one device, XLA allowed.
            - `mirrored`: all GPUs of this machine, or two logical CPUs where there is none.
            - `multi_worker`: the GPUs, or the CPU, of every worker that `TF_CONFIG` names, each of which runs the
              same program. It returns when all of them are there. Unless TensorFlow has a seed already, all workers
              get one that the chief draws: without it each would shuffle in an order of its own.
            - `tpu`: the TPU of this machine, or the one that the environment variable `TPU_NAME` names.
            - `cpu:<n>`: `n` logical CPUs, which must be asked for before TensorFlow has used its devices.

    Returns:
        A `tf.distribute.Strategy`, the same one whenever its name is asked for in a process: a second one would take
        the first one's sums for its own. Build and compile models within its `scope()`, then `prepare` them.

    Raises:
        ValueError: on an unknown name; when logical devices are asked for too late; on a `TF_CONFIG` that is none, or
            is missing; where there is no TPU.
    """
    check_strategy(name)
    name = resolve_name(name)
    return tf.distribute.get_strategy() if name == "one" else _made(name)


@functools.cache
def _made(name):
    if name == "multi_worker":
        return _multi_worker()
    if name == "tpu":
        return _tpu()
    if name == "mirrored" and tf.config.list_physical_devices("GPU"):
        return tf.distribute.MirroredStrategy()
    count = 2 if name == "mirrored" else int(name.partition(":")[2])
    _split_cpu(count)
    return tf.distribute.MirroredStrategy([f"/cpu:{i}" for i in range(count)])


def resolve_name(name):
    """The name that `auto` stands for on this machine; any other one itself."""
    if name != "auto":
        return name
    if len(read_tf_config().workers) > 1:
        return "multi_worker"
    if os.environ.get("TPU_NAME") or tf.config.list_physical_devices("TPU"):
        return "tpu"
    return "mirrored" if len(tf.config.list_physical_devices("GPU")) > 1 else "one"


def _multi_worker():
    if len(read_tf_config().workers) < 2:
        raise ValueError(
            "multi_worker needs an environment variable TF_CONFIG that names several workers. "
            f"Received: TF_CONFIG={os.environ.get('TF_CONFIG')!r}"
        )
    strategy = MultiWorkerStrategy()
    if tf.compat.v1.get_seed(None)[0] is None:
        seed = make_workers(strategy).broadcast(os.urandom(4))
        tf.random.set_seed(int.from_bytes(seed, "little"))
    return strategy


def _tpu():
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(os.environ.get("TPU_NAME", "local"))
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except (ValueError, tf.errors.OpError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            "tpu needs the TPU of this machine, or the environment variable TPU_NAME. "
            f"Received: TPU_NAME={os.environ.get('TPU_NAME')!r} ({reason})"
        ) from error
    return tf.distribute.TPUStrategy(resolver)


def _split_cpu(count):
    """Makes sure that there are at least `count` logical CPUs."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    configured = tf.config.get_logical_device_configuration(cpu) or [None]
    if len(configured) >= count:
        return
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError as error:
        raise ValueError(
            f"logical CPUs must be asked for before TensorFlow uses its devices. Received: {count} wanted"
        ) from error


def make_workers(strategy):
    """What the processes of a strategy agree about.

    Args:
        strategy: as `strategy` gives it.

    Returns:
        `keras_vit.training.Workers`, with `is_chief`: whether this process writes what a run leaves behind.
    """
    if not isinstance(strategy, MultiWorkerStrategy):
        return Workers()
    is_chief = read_tf_config().is_chief
    local = strategy.num_replicas_in_sync // strategy.num_workers

    @tf.function
    def summed(numbers):
        def of_worker(numbers):  # of whose replicas the first one counts
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            return numbers * tf.cast(replica % local == 0, numbers.dtype)

        return strategy.reduce("SUM", strategy.run(of_worker, args=(numbers,)), axis=None)

    def all_reduce_sum(number):
        return int(summed(tf.constant(number, tf.int64)))

    def broadcast(content):
        length = all_reduce_sum(len(content) if is_chief else 0)
        padded = np.zeros(-(-length // 8) * 8, "uint8")
        if is_chief:
            padded[:length] = np.frombuffer(content, "uint8")
        numbers = padded.view("int64")
        parts = [summed(tf.constant(numbers[i : i + _PIECE])).numpy() for i in range(0, len(numbers), _PIECE)]
        return np.concatenate([np.zeros(0, "int64"), *parts]).tobytes()[:length]

    return Workers(is_chief, strategy.num_workers, all_reduce_sum, broadcast)


def accelerators():
    """Names of the GPUs and TPUs that TensorFlow sees."""
    devices = [device for kind in ("TPU", "GPU") for device in tf.config.list_physical_devices(kind)]
    return [tf.config.experimental.get_device_details(d).get("device_name", d.device_type) for d in devices]


def device_kind():
    """`tpu`, `gpu` or `cpu`: the fastest kind of device that TensorFlow sees."""
    for kind in ("TPU", "GPU"):
        if tf.config.list_physical_devices(kind):
            return kind.lower()
    return "cpu"


def check_device(name):
    """Makes sure that TensorFlow computes on the kind of device that a command was asked for.

    Args:
        name: `cpu`, `gpu` or `gpu:<n>`.

    Raises:
        ValueError: if a GPU is asked for that TensorFlow does not see.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if name == "cpu":
        if gpus:  # Those that an environment variable does not hide.
            tf.config.set_visible_devices([], "GPU")
    elif not gpus:
        raise ValueError(
            "TensorFlow must see the GPU: install tensorflow[and-cuda] and a driver, or leave --device out. "
            f"Received: --device {name}, devices: {[d.name for d in tf.config.list_physical_devices()]}"
        )
