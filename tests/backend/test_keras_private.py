"""The private names of Keras still exist, and no public ones replace them yet."""

import keras
import numpy as np

from keras_vit.backend.keras_private import outermost_layer, own_variables, sublayers
from keras_vit.layers import TransformerEncoder


def test_sublayers_are_those_of_every_depth():
    block = TransformerEncoder(2, 8)
    block.build((None, 3, 4))
    names = [layer.name for layer in sublayers(block)]
    assert {"attention", "qkv", "mlp", "dense_2"} <= set(names)
    assert len(names) == len(set(names))
    assert not hasattr(block, "layers"), "Keras has a public list of sublayers: use it and delete `sublayers`"


def test_own_variables_exclude_those_of_sublayers():
    block = TransformerEncoder(2, 8, layer_scale_init=0.1)
    block.build((None, 3, 4))
    assert own_variables(block) == []
    assert [variable.name for variable in own_variables(block.attention_scale)] == ["gamma"]
    assert len(block.variables) == 14


def test_the_outermost_layer_is_the_model_that_is_called():
    outermost = []

    class Recorder(keras.layers.Layer):
        def call(self, x):
            outermost.append(outermost_layer(self))
            return x

    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.Sequential([Recorder()])(inputs))
    model(np.ones((1, 2)))
    assert outermost[-1] is model
