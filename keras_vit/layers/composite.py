"""The base of layers that are built of other layers."""

import keras


class CompositeLayer(keras.layers.Layer):
    """A layer with sublayers, whose config remembers what `model.quantize` did to them.

    Keras quantizes the dense layers inside and gives each a dtype policy of its own. A file can only be
    loaded again when the parent's config names those policies, which is what Keras' `DTypePolicyMap` is for.
    """

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
