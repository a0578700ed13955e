"""A model with taps: chosen values inside it come out, and their gradients can be taken."""

import weakref

import keras
import numpy as np
from keras import ops

from keras_vit.backend.gradients import gradients
from keras_vit.backend.runtime import to_numpy

# Those of each model that was explained: to build one takes longer than to run a small one. A `TappedModel` holds
# layers of its model, not the model itself, which so stays alive no longer.
_TAPPED = weakref.WeakKeyDictionary()


class TappedOutput(keras.layers.Layer):
    """A layer whose output comes out of the model.

    Args:
        layer: any layer with one output.

    Call arguments:
        offset: tensor of the shape of the output, which is added to it.
        *args, **kwargs: of the layer.

    Returns:
        The output twice: for the next layer, and for whoever asked.
    """

    def __init__(self, layer, **kwargs):
        super().__init__(dtype=layer.dtype_policy, **kwargs)
        self.layer, self.built = layer, True

    def call(self, offset, *args, **kwargs):
        outputs = self.layer(*args, **kwargs)
        outputs = outputs + ops.cast(offset, outputs.dtype)
        return outputs, outputs

    def compute_output_spec(self, offset, *args, **kwargs):
        spec = self.layer.compute_output_spec(*args, **kwargs)
        return spec, keras.KerasTensor(spec.shape, dtype=spec.dtype)


class TappedAttention(keras.layers.Layer):
    """A layer with attention whose probabilities come out of the model.

    Args:
        layer: `TransformerEncoder` or `AttentionPooling`.

    Call arguments:
        offset: tensor of the shape of the probabilities, which is added to them.
        tokens: tensor `(batch, tokens, hidden_dim)`.

    Returns:
        The layer's output, and the probabilities.
    """

    def __init__(self, layer, **kwargs):
        super().__init__(dtype=layer.dtype_policy, **kwargs)
        self.layer, self.built = layer, True

    def call(self, offset, tokens):
        return self.layer(tokens, return_attention=True, attention_offset=offset)

    def compute_output_spec(self, offset, tokens):
        return self.layer.compute_output_spec(tokens, return_attention=True)


class TappedModel:
    """A model from the images that enter the inner model, out of which chosen values come.

    It shares the layers of the model, which stays as it is.

    Args:
        scores: `keras_vit.interpret.class_scores.ClassScores` of the model.
        attention: names of layers whose attention probabilities come out.
        outputs: names of layers whose outputs come out.

    Raises:
        ValueError: on a layer that the outputs of the model do not depend on.
    """

    def __init__(self, scores, attention=(), outputs=()):
        self._kinds = dict.fromkeys(attention, TappedAttention) | dict.fromkeys(outputs, TappedOutput)
        parts, core, self._values = scores.parts, scores.core, {}
        layers = {layer.name: layer for layer in core.layers}
        for name in self._kinds:
            if name not in layers:
                raise ValueError(
                    "a layer must lead to the outputs of the model. "
                    f"Received: layer={name!r} of model={parts.model.name!r}, known: {list(layers)}"
                )
        self._offsets = {name: keras.Input(self._shape(layers[name]), name=f"{name}_offset") for name in self._kinds}
        inputs = [parts.images, *self._offsets.values()]
        # The offsets are outputs too: Keras takes no inputs on which nothing depends.
        carrier = keras.Model(inputs, [core.outputs, *self._offsets.values()])
        clone = keras.models.clone_model(carrier, inputs, lambda layer: layer, self._call)
        self._shapes = [tuple(tensor.shape[1:]) for tensor in self._offsets.values()]
        self._names, self._scale = list(self._kinds), scores.gradient_scale
        self.model = keras.Model(inputs, [clone.outputs[0], *(self._values[name] for name in self._names)])

    def _shape(self, layer):
        if self._kinds[layer.name] is TappedOutput:
            return layer.output.shape[1:]
        _, probabilities = layer.compute_output_spec(layer.input, return_attention=True)
        return probabilities.shape[1:]

    def _call(self, layer, *args, **kwargs):
        kind = self._kinds.get(layer.name)
        if kind is None:
            return layer(*args, **kwargs)
        kwargs.pop("training", None)
        outputs, self._values[layer.name] = kind(layer, name=layer.name)(self._offsets[layer.name], *args, **kwargs)
        return outputs

    def __call__(self, images, score):
        """Computes values and their gradients for a batch, with one pass forward and one backward.

        Args:
            images: array `(batch, height, width, channels)`, as they enter the inner model.
            score: callable from the outputs `(batch, units)` to a tensor `(batch,)`, of which gradients are taken.

        Returns:
            Two dicts from the names of layers to float32 arrays: values, and gradients.
        """
        images = ops.convert_to_tensor(np.asarray(images, "float32"))
        offsets = [ops.zeros((len(images), *shape), "float32") for shape in self._shapes]

        def run(*offsets):
            outputs, *values = self.model([images, *offsets], training=False)
            return self._scale * ops.sum(ops.cast(score(outputs), "float32")), values

        values, found = gradients(run, offsets)
        values = {name: to_numpy(value).astype("float32") for name, value in zip(self._names, values, strict=True)}
        found = [to_numpy(gradient).astype("float32") / self._scale for gradient in found]
        return values, dict(zip(self._names, found, strict=True))


def tapped_model(scores, attention=(), outputs=()):
    """Builds a `TappedModel`, or returns that which was built before.

    Args:
        scores, attention, outputs: as for `TappedModel`.

    Raises:
        ValueError: as `TappedModel`.
    """
    of_model = _TAPPED.setdefault(scores.parts.model, {})
    key = (tuple(attention), tuple(outputs))
    if key not in of_model:
        of_model[key] = TappedModel(scores, attention, outputs)
    return of_model[key]


def inner_images(parts, images):
    """Images as they enter the inner model: what layers in front make of those of the whole model.

    Args:
        parts: `keras_vit.composition.Composition`.
        images: array `(batch, height, width, channels)`, as the whole model takes them.

    Returns:
        float32 array `(batch, height, width, channels)`.
    """
    images = np.asarray(images, "float32")
    if parts.front is not None:
        for part in parts.fronts:
            images = part(images, training=False)
    return to_numpy(images).astype("float32")
