"""`tf.distribute` strategies by name.

    strategy = keras_vit.distribution.strategy("auto")
    with strategy.scope():
        model = keras_vit.ViTBase(num_classes=10)
        model.compile(...)
    keras_vit.distribution.prepare(model)
    model.fit(...)

`prepare` is the one line beyond plain Keras; `tests/distribution/test_one_device.py` shows what it corrects.
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

_BROADCAST_SIZE = 2**21  # int64 numbers in one all-reduce of a broadcast


def strategy(name="auto"):
    """Makes the strategy of a name.

    Args:
        name: one of

            - `auto`: `multi_worker` if `TF_CONFIG` names several workers, else `tpu` if there is one, else `mirrored`
              if there are several GPUs, else `one`.
            - `one`: TensorFlow's default strategy: one device, XLA allowed.
            - `mirrored`: all GPUs of this machine, or two logical CPUs if there is none.
            - `multi_worker`: the GPUs, or the CPU, of every worker that `TF_CONFIG` names, each of which runs the
              same program. It waits for all of them. Unless TensorFlow already has a seed, all workers get a random one
              from the chief, so that they shuffle in the same order.
            - `tpu`: the TPU of this machine, or the one that the environment variable `TPU_NAME` names.
            - `cpu:<n>`: `n` logical CPUs, which must be requested before TensorFlow uses its devices.

    Returns:
        A `tf.distribute.Strategy`, always the same one for a name within a process, as the collective operations of two
        would be confused. Build and compile models within its `scope()`, then `prepare` them.

    Raises:
        ValueError: on an unknown name; if logical devices are requested too late; if `TF_CONFIG` is invalid or missing;
            if there is no TPU.
    """
    check_strategy(name)
    name = resolve_name(name)
    return tf.distribute.get_strategy() if name == "one" else _make_strategy(name)


@functools.cache
def _make_strategy(name):
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
    """Resolves `auto` to the name of the strategy for this machine; returns other names unchanged."""
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
            "multi_worker needs the environment variable TF_CONFIG with several workers. "
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
            "tpu needs a TPU on this machine, or the environment variable TPU_NAME. "
            f"Received: TPU_NAME={os.environ.get('TPU_NAME')!r} ({reason})"
        ) from error
    return tf.distribute.TPUStrategy(resolver)


def _split_cpu(count):
    """Configures at least `count` logical CPUs."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    configured = tf.config.get_logical_device_configuration(cpu) or [None]
    if len(configured) >= count:
        return
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError as error:
        raise ValueError(
            f"logical CPUs must be requested before TensorFlow uses its devices. Received: cpu:{count}"
        ) from error


def make_workers(strategy):
    """Makes the collective operations of the processes of a strategy.

    Args:
        strategy: a `tf.distribute.Strategy`, as `strategy` returns it.

    Returns:
        `Workers`.
    """
    if not isinstance(strategy, MultiWorkerStrategy):
        return Workers()
    is_chief = read_tf_config().is_chief
    local_replicas = strategy.num_replicas_in_sync // strategy.num_workers

    @tf.function
    def sum_over_workers(numbers):
        def on_replica(numbers):  # Only the first replica of each worker contributes.
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            return numbers * tf.cast(replica % local_replicas == 0, numbers.dtype)

        return strategy.reduce("SUM", strategy.run(on_replica, args=(numbers,)), axis=None)

    def all_reduce_sum(number):
        return int(sum_over_workers(tf.constant(number, tf.int64)))

    def broadcast(content):
        length = all_reduce_sum(len(content) if is_chief else 0)
        padded = np.zeros(-(-length // 8) * 8, "uint8")
        if is_chief:
            padded[:length] = np.frombuffer(content, "uint8")
        numbers = padded.view("int64")
        parts = [
            sum_over_workers(tf.constant(numbers[i : i + _BROADCAST_SIZE])).numpy()
            for i in range(0, len(numbers), _BROADCAST_SIZE)
        ]
        return np.concatenate([np.zeros(0, "int64"), *parts]).tobytes()[:length]

    return Workers(is_chief, strategy.num_workers, all_reduce_sum, broadcast)


def accelerators():
    """The names of the GPUs and TPUs that TensorFlow sees, as a list."""
    devices = [device for kind in ("TPU", "GPU") for device in tf.config.list_physical_devices(kind)]
    return [tf.config.experimental.get_device_details(d).get("device_name", d.device_type) for d in devices]


def device_kind():
    """The fastest kind of device that TensorFlow sees: `tpu`, `gpu` or `cpu`."""
    for kind in ("TPU", "GPU"):
        if tf.config.list_physical_devices(kind):
            return kind.lower()
    return "cpu"


def check_device(name):
    """Selects the kind of device that TensorFlow uses.

    Args:
        name: `cpu`, `gpu` or `gpu:<n>`.

    Raises:
        ValueError: if a GPU is requested that TensorFlow does not see.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if name == "cpu":
        if gpus:  # Unless an environment variable has already hidden them.
            tf.config.set_visible_devices([], "GPU")
    elif not gpus:
        raise ValueError(
            "TensorFlow must see the GPU: install tensorflow[and-cuda] and a driver, or omit --device. "
            f"Received: --device {name}, devices: {[d.name for d in tf.config.list_physical_devices()]}"
        )
