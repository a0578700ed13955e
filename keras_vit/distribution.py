"""`tf.distribute` strategies by name."""

import re

import tensorflow as tf

from keras_vit.validation import nearest

NAMES = ("one", "mirrored", "cpu:<n>")


def strategy(name="one"):
    """The strategy of a name.

    Args:
        name: `one` (TensorFlow's default strategy: one device, XLA allowed), `mirrored` (all GPUs, or two logical CPUs
            where there is none), or `cpu:<n>` (`n` logical CPUs, which must be asked for before TensorFlow
            has used its devices).

    Returns:
        A `tf.distribute.Strategy`. Build and compile models within its `scope()`.

    Raises:
        ValueError: on an unknown name; when logical devices are asked for too late.
    """
    if name == "one":
        return tf.distribute.get_strategy()
    gpus = tf.config.list_physical_devices("GPU")
    if name == "mirrored" and gpus:
        return tf.distribute.MirroredStrategy()
    match = re.fullmatch(r"cpu:([1-9]\d*)", "cpu:2" if name == "mirrored" else name)
    if not match:
        raise ValueError(f"unknown strategy{nearest(name, NAMES)} Received: name={name!r}, known: {list(NAMES)}")
    count = int(match[1])
    _split_cpu(count)
    return tf.distribute.MirroredStrategy([f"/cpu:{i}" for i in range(count)])


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
