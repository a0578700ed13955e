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
    """A layer with sublayers, whose config remembers what was done to them after they were built.

    `model.quantize` gives the dense layers inside a dtype policy each, which Keras' `DTypePolicyMap` keeps in the
    config of the parent; `enable_lora` and `trainable = False` of sublayers stand there under `sublayers`, where there
    are some. So `clone_model`, `load_model` and copies build the same sublayers again. A file holds the kernels of LoRA
    with the adapters merged into them, as Keras saves them, and the adapters start anew.

    A frozen layer is made anew, by `load_model` or `clone_model`, with `trainable=False` before it has sublayers, and
    Keras passes that on to variables of its own alone: here sublayers are told as they are assigned.
    """

    def __setattr__(self, name, value):
        super().__setattr__(name, value)
        if name == "built" and value and getattr(self, "_pending_sublayers", None):
            self._restore_sublayers()
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

    def _restore_sublayers(self):
        """Does to the sublayers, now that they are built, what the config remembers."""
        changes, self._pending_sublayers = self._pending_sublayers, {}
        sublayers = {self._relative_path(layer): layer for layer in self._flatten_layers(include_self=False)}
        for path, change in changes.items():
            if "lora_rank" in change:
                sublayers[path].enable_lora(change["lora_rank"], change["lora_alpha"])
                _redraw_adapters_when_loaded(sublayers[path])
        # In this order: a layer with new variables would not be frozen as a whole.
        for path, change in changes.items():
            if not change.get("trainable", True):
                sublayers[path].trainable = False

    def _relative_path(self, layer):
        return layer.path.removeprefix(f"{self.path}/")

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
        if changes := self._sublayer_changes():
            config["sublayers"] = changes
        return config

    def _sublayer_changes(self):
        """What was done to sublayers, by their paths inside this layer: dict of dicts of JSON types."""
        if not self.built:
            return {path: dict(change) for path, change in getattr(self, "_pending_sublayers", {}).items()}
        changes = {}
        for layer in self._flatten_layers(include_self=False):
            change = {}
            if getattr(layer, "lora_enabled", False):
                change |= {"lora_rank": layer.lora_rank, "lora_alpha": layer.lora_alpha}
            if self.trainable and not layer.trainable and layer.variables:
                change["trainable"] = False
            if change:
                changes[self._relative_path(layer)] = change
        return changes

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        changes = config.pop("sublayers", {})
        layer = super().from_config(config)
        layer._pending_sublayers = changes
        return layer

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)


def _redraw_adapters_when_loaded(layer):
    """Lets LoRA train on after its layer is loaded: Keras sets both factors to zero then, where no gradient is left.

    The second factor stays zero, so the layer computes the same.
    """
    load = layer.load_own_variables

    def load_own_variables(store):
        load(store)
        first = next(
            weight for weight in layer.weights if weight.name.startswith("lora_") and weight.name.endswith("_a")
        )
        first.assign(keras.initializers.HeUniform()(first.shape, first.dtype))

    layer.load_own_variables = load_own_variables
