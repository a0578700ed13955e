"""Run by test_layers_dropout.py in a process of its own: which masks do replicas draw?

Prints JSON with an array (step, replica, sample) of what became of a one, for our stochastic depth and for
`keras.layers.Dropout`, under a MirroredStrategy on four logical CPUs.
"""

import json

import keras
import tensorflow as tf

REPLICAS, STEPS, SAMPLES = 4, 6, 200
RATE = 0.25


def masks(make):
    """What became of a one in every sample, of shape (steps, replicas, samples)."""
    strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(REPLICAS)])
    with strategy.scope():
        layer = make()
    ones = tf.ones((SAMPLES, 3, 2))

    @tf.function
    def step():
        return strategy.run(lambda: layer(ones, training=True))

    drawn = [strategy.experimental_local_results(step()) for _ in range(STEPS)]
    return [[(replica.numpy()[:, 0, 0]).tolist() for replica in step] for step in drawn]


if __name__ == "__main__":
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * REPLICAS)
    from keras_vit.layers import Dropout

    shape = (None, 1, 1)
    ours = masks(lambda: Dropout(RATE, noise_shape=shape, seed=1))
    theirs = masks(lambda: keras.layers.Dropout(RATE, noise_shape=shape, seed=1))
    print(json.dumps({"keras_vit": ours, "keras": theirs}))
