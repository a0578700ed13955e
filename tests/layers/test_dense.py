import keras
import numpy as np
import pytest

from keras_vit.layers.core.dense import dense, initial, weights_follow


@pytest.fixture
def twins():
    """Two dense layers that were built where weights follow, which share memory."""
    parent = keras.layers.Layer()
    with weights_follow():
        layers = [dense(parent, name, units) for name, units in (("first", 6), ("second", 3))]
        for layer, width in zip(layers, (4, 6), strict=True):
            layer.build((None, width))
    return layers


def test_placeholders_are_zeros_of_the_right_shape(twins):
    assert [tuple(weight.shape) for layer in twins for weight in layer.weights] == [(4, 6), (6,), (6, 3), (3,)]
    assert not any(np.any(weight.numpy()) for layer in twins for weight in layer.weights)


@pytest.mark.parametrize("change", ["assign", "assign_add"])
def test_a_placeholder_that_changes_leaves_the_others(twins, change):
    first, second = twins
    getattr(second.kernel, change)(np.ones((6, 3), "float32"))
    assert np.all(second.kernel.numpy() == 1)
    assert not any(np.any(weight.numpy()) for weight in (first.kernel, first.bias, second.bias))


def test_training_on_placeholders_keeps_them_apart(twins):
    model = keras.Sequential(twins)
    model.compile("sgd", "mse")
    model.fit(np.ones((8, 4), "float32"), np.ones((8, 3), "float32"), verbose=0)
    first, second = twins
    assert np.all(second.bias.numpy() > 0)
    assert not any(np.any(weight.numpy()) for weight in (first.kernel, first.bias, second.kernel))


def test_outside_numbers_are_drawn():
    with weights_follow():
        assert initial("ones") != "ones"
    assert initial("ones") == "ones"
    layer = dense(keras.layers.Layer(), "dense", 3)
    layer.build((None, 4))
    assert np.all(layer.kernel.numpy() != 0)


def test_placeholders_let_go_of_their_memory_at_the_end(twins):
    initializer = twins[0].kernel_initializer
    first, second = (initializer((2, 2), "float32") for _ in range(2))
    assert first is not second
    assert not np.any(keras.ops.convert_to_numpy(first))


@pytest.mark.skipif(keras.config.backend() != "tensorflow", reason="the names are TensorFlow's")
def test_tensorflow_names_variables_briefly_where_weights_follow_and_keras_in_full():
    def kernel():
        parent = keras.layers.Layer(name="parent")
        layer = dense(parent, "dense", 3)
        with keras.name_scope("parent", caller=parent):
            layer.build((None, 4))
        return layer.kernel

    with weights_follow():
        brief = kernel()
    assert (brief.path, brief.value.name) == ("parent/dense/kernel", "kernel:0")
    assert (kernel().path, kernel().value.name) == ("parent/dense/kernel", "parent/dense/kernel:0")
