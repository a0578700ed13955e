"""The base of layers that are built of other layers."""

import contextlib

import keras
import numpy as np

# Bytes. What is larger is no constant of a graph, which would make a SavedModel large, but computed in each call, at
# little cost.
LARGEST_CONSTANT = 2**20

# More random masks than any layer draws in a call.
_DRAWS = 64


class CompositeLayer(keras.layers.Layer):
    """A layer with sublayers, whose config remembers what `model.quantize` did to them.

    Keras quantizes the dense layers inside and gives each a dtype policy of its own. A file can only be
    loaded again when the parent's config names those policies, which is what Keras' `DTypePolicyMap` is for.

    A frozen layer is made anew, by `load_model` or `clone_model`, with `trainable=False` before it has sublayers, and
    Keras passes that on to variables of its own alone: here sublayers are told as they are assigned.
    """

    def __setattr__(self, name, value):
        super().__setattr__(name, value)
        # Before `Layer.__init__` there is no `trainable` yet.
        if not getattr(self, "trainable", True):
            for part in keras.tree.flatten(value):
                if isinstance(part, keras.layers.Layer):
                    part.trainable = False

    def rematerialized_call(self, layer_call, *args, **kwargs):
        """As Keras', for `keras.RematScope`, where TensorFlow needs help.

        In graphs its `recompute_grad` takes no keywords, and dropout would draw another mask the second time.
        """
        if not kwargs.get("training"):
            # Nothing is differentiated, and no state may change: a server would write it in every call.
            return lambda *tensors, **_: layer_call(*tensors, **kwargs)
        generators = self._dropouts_generators() if keras.backend.backend() == "tensorflow" else []

        def call(*tensors, **_):
            # Drawn once, outside of what is computed twice; far from each other, as a block draws several times.
            seeds = [generator.next() * np.array([1, _DRAWS], "uint32") for generator in generators]
            states = [(generator.state, seed) for generator, seed in zip(generators, seeds, strict=True)]

            def seeded(*tensors):
                with keras.StatelessScope(states) if states else contextlib.nullcontext():
                    return layer_call(*tensors, **kwargs)

            return super(CompositeLayer, self).rematerialized_call(seeded, *args)(*tensors)

        return call

    def _dropouts_generators(self):
        layers = self._flatten_layers(include_self=False)
        return [layer.seed_generator for layer in layers if hasattr(layer, "seed_generator")]

    def get_config(self):
        config = super().get_config()
        # The one private name of Keras in this room: layers have no public list of their sublayers.
        quantized = {
            layer.path: layer.dtype_policy
            for layer in self._flatten_layers(include_self=False)
            if getattr(layer, "quantization_mode", None) is not None
        }
        if quantized and not isinstance(self.dtype_policy, keras.dtype_policies.DTypePolicyMap):
            policies = keras.dtype_policies.DTypePolicyMap(self.dtype_policy, quantized)
            config["dtype"] = keras.dtype_policies.serialize(policies)
        return config

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)
