"""Reads any stage of a model by its name."""

import keras

from keras_vit.composition import find_layers
from keras_vit.metadata import Metadata, composition
from keras_vit.validation import nearest


def features(model, names):
    """A model that returns stages of another one.

    Args:
        model: a functional `keras.Model`, or any model built around one of this library, whose stages are known by
            the same names beside the layers that follow it.
        names: str or list of str. Layers, for example `patch_encoder`, `encoder_block_3`, `encoder_norm`,
            `representation`, `head`; of a Swin Transformer also `stage_0`, of a hybrid `stem_root`,
            `stem_stage_0`.

    Returns:
        A `keras.Model` of the same inputs and weights whose outputs are a dict keyed by these names; tokens
        have the shape `(batch, prefix + patches, hidden_dim)`, of a Swin Transformer `(batch, h * w, hidden_dim)`
        of the stage; the ResNet of a hybrid gives `(batch, height, width, channels)`.

    Raises:
        ValueError: on an unknown name, with the nearest one.
    """
    names = [names] if isinstance(names, str) else list(names)
    parts = composition(model) if len(find_layers(model, Metadata)) == 1 else None
    stages = parts.tensors if parts else {layer.name: layer.output for layer in model.layers}
    known = list(stages)
    for name in names:
        if name not in known:
            raise ValueError(
                f"unknown stage of model {model.name!r}{nearest(name, known)} Received: name={name!r}, known: {known}"
            )
    if not names:
        raise ValueError("names must hold at least one stage. Received: names=[]")
    outputs, name = {name: stages[name] for name in names}, f"{model.name}_features"
    return parts.with_front(outputs, name) if parts else keras.Model(model.input, outputs, name=name)
