"""Read any stage of a model by its name."""

import keras

from keras_vit.validation import nearest


def features(model, names):
    """A model that returns stages of another one.

    Args:
        model: a functional `keras.Model`.
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
    known = [layer.name for layer in model.layers]
    for name in names:
        if name not in known:
            raise ValueError(
                f"unknown stage of model {model.name!r}{nearest(name, known)} Received: name={name!r}, known: {known}"
            )
    if not names:
        raise ValueError("names must hold at least one stage. Received: names=[]")
    return keras.Model(
        model.input, {name: model.get_layer(name).output for name in names}, name=f"{model.name}_features"
    )
