"""The base of layers that are built of other layers."""

import contextlib

import keras
import numpy as np

from keras_vit.backend.keras_private import frozen_variables, own_variables, sublayers
from keras_vit.backend.runtime import remat_redraws_dropout

# Larger arrays are computed in each call, at little cost: as constants of the graph they would make a SavedModel large.
MAX_CONSTANT_BYTES = 2**20

_UNMERGED = "unmerged_"  # in front of names of variables of LoRA in a file

# More random masks than any layer draws in a call.
_MAX_DRAWS = 64


class CompositeLayer(keras.layers.Layer):
    """Layer with sublayers, whose config records how they were changed after they were built.

    `model.quantize` gives each dense layer inside its own dtype policy, which Keras' `DTypePolicyMap` stores in the
    config of the parent. `enable_lora`, and `trainable = False` of sublayers and of single variables, are stored under
    `sublayers`, if there are any. So `clone_model`, `load_model` and copies build the same sublayers again. A file
    holds the adapters of `keras_vit.add_lora`; of `enable_lora` alone it holds kernels with the adapters merged into
    them, as Keras saves them, and the adapters start anew.

    `load_model` and `clone_model` create a frozen layer with `trainable=False` before it has sublayers, and Keras
    applies that to the layer's own variables only: here sublayers are frozen as they are assigned.
    """

    def __setattr__(self, name, value):
        super().__setattr__(name, value)
        if name == "built" and value and getattr(self, "_pending_changes", None):
            self._restore_changes()
        # Before `Layer.__init__` there is no `trainable` yet.
        if not getattr(self, "trainable", True):
            for item in keras.tree.flatten(value):
                if isinstance(item, keras.layers.Layer):
                    item.trainable = False

    def rematerialized_call(self, layer_call, *args, **kwargs):
        """Wraps the call for `keras.RematScope`, as Keras does, with the same dropout masks in both passes.

        TensorFlow's `recompute_grad` takes no keyword arguments in graphs, and dropout would draw another mask when the
        call is computed again.
        """
        if not kwargs.get("training"):
            # Nothing is differentiated, and no state may change: a server would write it in every call.
            return lambda *tensors, **_: layer_call(*tensors, **kwargs)
        generators = self._dropout_generators() if remat_redraws_dropout() else []

        def call(*tensors, **_):
            # Drawn once, outside of the part that is computed twice; far apart, as a block draws several times.
            seeds = [generator.next() * np.array([1, _MAX_DRAWS], "uint32") for generator in generators]
            states = [(generator.state, seed) for generator, seed in zip(generators, seeds, strict=True)]

            def seeded(*tensors):
                with keras.StatelessScope(states) if states else contextlib.nullcontext():
                    return layer_call(*tensors, **kwargs)

            return super(CompositeLayer, self).rematerialized_call(seeded, *args)(*tensors)

        return call

    def _dropout_generators(self):
        return [layer.seed_generator for layer in sublayers(self) if hasattr(layer, "seed_generator")]

    def _relative_path(self, layer):
        return layer.path.removeprefix(f"{self.path}/")

    def _restore_changes(self):
        """Applies the changes that the config records to the sublayers, once they are built."""
        changes, self._pending_changes = self._pending_changes, {}
        by_path = {self._relative_path(layer): layer for layer in sublayers(self)}
        for path, change in changes.items():
            if "lora_rank" in change:
                by_path[path].enable_lora(change["lora_rank"], change["lora_alpha"])
                keep_adapters(by_path[path])
        # Afterwards, as `enable_lora` adds trainable variables.
        for path, change in changes.items():
            if not change.get("trainable", True):
                by_path[path].trainable = False
            for variable in own_variables(by_path.get(path, self)):
                if variable.name in change.get("frozen", ()):
                    variable.trainable = False

    def _recorded_changes(self):
        """The changes of sublayers, by their paths inside this layer: dict of dicts of JSON types."""
        if not self.built:
            return {path: dict(change) for path, change in getattr(self, "_pending_changes", {}).items()}
        changes = {}
        for layer in sublayers(self):
            change = {}
            if getattr(layer, "lora_enabled", False):
                change |= {"lora_rank": layer.lora_rank, "lora_alpha": layer.lora_alpha}
            if self.trainable and not layer.trainable and layer.variables:
                change["trainable"] = False
            elif frozen := frozen_variables(layer):
                change["frozen"] = frozen
            if change:
                changes[self._relative_path(layer)] = change
        if frozen := frozen_variables(self):
            changes[""] = {"frozen": frozen}
        return changes

    def get_config(self):
        config = super().get_config()
        quantized = {
            layer.path: layer.dtype_policy
            for layer in sublayers(self)
            if getattr(layer, "quantization_mode", None) is not None
        }
        if quantized and not isinstance(self.dtype_policy, keras.dtype_policies.DTypePolicyMap):
            policies = keras.dtype_policies.DTypePolicyMap(self.dtype_policy, quantized)
            config["dtype"] = keras.dtype_policies.serialize(policies)
        if changes := self._recorded_changes():
            config["sublayers"] = changes
        return config

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        changes = config.pop("sublayers", {})
        layer = super().from_config(config)
        layer._pending_changes = changes
        return layer

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)


def keep_adapters(layer):
    """Lets a dense layer with LoRA save its adapters, and the kernel without them, beside what Keras saves.

    Keras saves the kernel with the adapters merged into it, in the dtype of the computation, and sets both factors to
    zero when it loads that, where no gradient is left. A file without adapters still loads: its kernel is the new one,
    the first factor is drawn again, and the second stays zero, so the layer computes the same.
    """
    if getattr(layer, "keeps_adapters", False):
        return
    save, load = layer.save_own_variables, layer.load_own_variables
    kept = {v.name: v for v in own_variables(layer) if v.name == "kernel" or v.name.startswith("lora_")}

    def save_own_variables(store):
        save(store)
        for name, variable in kept.items():
            store[f"{_UNMERGED}{name}"] = keras.ops.convert_to_numpy(variable)

    def load_own_variables(store):
        load(store)
        names = {name for name in store.keys() if name.startswith(_UNMERGED)}  # noqa: SIM118
        if names == {f"{_UNMERGED}{name}" for name in kept}:
            for name, variable in kept.items():
                variable.assign(store[f"{_UNMERGED}{name}"])
        else:
            first = next(variable for name, variable in kept.items() if name.endswith("_a"))
            first.assign(keras.initializers.HeUniform()(first.shape, first.dtype))

    layer.save_own_variables, layer.load_own_variables, layer.keeps_adapters = (
        save_own_variables,
        load_own_variables,
        True,
    )
