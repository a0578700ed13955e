"""Building layers without initializing their weights."""

import keras
import numpy as np
import pytest

from keras_vit.backend.skip_init import skip_init, skippable
from keras_vit.layers.core.dense import make_dense


@pytest.fixture
def twins():
    """Two dense layers built within `skip_init`, which share memory."""
    parent = keras.layers.Layer()
    with skip_init():
        layers = [make_dense(parent, name, units) for name, units in (("first", 6), ("second", 3))]
        for layer, width in zip(layers, (4, 6), strict=True):
            layer.build((None, width))
    return layers


def test_weights_are_zeros_of_the_right_shape(twins):
    assert [tuple(weight.shape) for layer in twins for weight in layer.weights] == [(4, 6), (6,), (6, 3), (3,)]
    assert not any(np.any(weight.numpy()) for layer in twins for weight in layer.weights)


@pytest.mark.parametrize("change", ["assign", "assign_add"])
def test_an_assigned_weight_leaves_the_others_as_they_are(twins, change):
    first, second = twins
    getattr(second.kernel, change)(np.ones((6, 3), "float32"))
    assert np.all(second.kernel.numpy() == 1)
    assert not any(np.any(weight.numpy()) for weight in (first.kernel, first.bias, second.bias))


def test_training_changes_weights_independently(twins):
    model = keras.Sequential(twins)
    model.compile("sgd", "mse")
    model.fit(np.ones((8, 4), "float32"), np.ones((8, 3), "float32"), verbose=0)
    first, second = twins
    assert np.all(second.bias.numpy() > 0)
    assert not any(np.any(weight.numpy()) for weight in (first.kernel, first.bias, second.kernel))


def test_weights_are_initialized_outside():
    with skip_init():
        assert skippable("ones") != "ones"
    assert skippable("ones") == "ones"
    layer = make_dense(keras.layers.Layer(), "dense", 3)
    layer.build((None, 4))
    assert np.all(layer.kernel.numpy() != 0)


def test_the_shared_memory_is_released_at_the_end(twins):
    initializer = twins[0].kernel_initializer
    first, second = (initializer((2, 2), "float32") for _ in range(2))
    assert first is not second
    assert not np.any(keras.ops.convert_to_numpy(first))


@pytest.mark.skipif(keras.config.backend() != "tensorflow", reason="the names are TensorFlow's")
def test_names_of_tensorflow_variables_are_short_and_paths_complete():
    def kernel():
        parent = keras.layers.Layer(name="parent")
        layer = make_dense(parent, "dense", 3)
        with keras.name_scope("parent", caller=parent):
            layer.build((None, 4))
        return layer.kernel

    with skip_init():
        short = kernel()
    assert (short.path, short.value.name) == ("parent/dense/kernel", "kernel:0")
    assert (kernel().path, kernel().value.name) == ("parent/dense/kernel", "parent/dense/kernel:0")
