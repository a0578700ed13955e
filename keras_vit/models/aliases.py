"""Names of config fields in Keras Applications, timm and Hugging Face."""

import dataclasses

from keras_vit.validation import SYNONYMS

_MAX_POOLING = (
    "there is no max pooling; take the tokens by keras_vit.features(model, 'encoder_norm') and put "
    "keras.layers.GlobalMaxPooling1D() behind them"
)
_TOKENS = "for all tokens use keras_vit.features(model, 'encoder_norm')"
# What is no field here, or means something else, and what to do instead.
_ADVICE = {
    "act_layer": "use activation=, for example 'gelu_tanh'",
    "drop_rate": ("timm's is the dropout of the classifier; dropout_rate= is that of positions, projections and MLPs"),
    "features_only": "use keras_vit.features(model, names)",
    "fc_norm": "use pool_before_norm=",
    "input_size": "use image_size=(height, width) and num_channels=",
    "input_tensor": "build the model and call it on the tensor",
    "mlp_ratio": "use mlp_dim=, the width itself",
    "out_indices": "use keras_vit.features(model, names)",
    "pos_drop_rate": "use dropout_rate=, which is that of positions, projections and MLPs",
    "pretrained": "use weights=",
    "proj_drop_rate": "use dropout_rate=, which is that of positions, projections and MLPs",
}
_POOLING = {
    None: {},
    "avg": {"pooling": "gap"},
    "max": _MAX_POOLING,
    "avgmax": _MAX_POOLING,
    "": _TOKENS,
}
# In timm a ViT that averages its tokens normalizes afterwards.
_GLOBAL_POOL = {**_POOLING, "avg": {"pooling": "gap", "pool_before_norm": True}, "token": {"pooling": "token"}}


def resolve_aliases(overrides, config=None):
    """Replaces the words of other libraries by the fields of a config.

    Args:
        overrides: dict of keywords.
        config: a config, or a class of one, whose fields are known; `None` where the family is not known yet.

    Returns:
        Dict. Words that are neither fields nor known elsewhere stay as they are.

    Raises:
        ValueError: if a word and the field that it stands for are both given, or if a word means something else
            here, with the word to use instead.
    """
    fields = {field.name for field in dataclasses.fields(config)} if config is not None else None
    resolved, given = {}, {}
    for word, value in overrides.items():
        for name, meaning in _meaning(word, value, fields).items():
            if name in resolved:
                raise ValueError(
                    f"{name} must be given once. Received: {given[name][0]}={given[name][1]!r}, {word}={value!r}"
                )
            resolved[name], given[name] = meaning, (word, value)
    return resolved


def _meaning(word, value, fields):
    """The fields that one keyword stands for: a dict."""
    if word == "pooling" or (word == "global_pool" and (fields is None or word not in fields)):
        return _pooling(word, value, fields)
    if fields is not None and word in fields:
        return {word: value}
    if word in ("input_shape", "image_shape"):  # Keras Applications, KerasHub
        if not isinstance(value, tuple | list) or len(value) != 3 or None in value:
            raise ValueError(f"{word} must be (height, width, channels). Received: {word}={value!r}")
        return {"image_size": tuple(value[:2]), "num_channels": value[2]}
    if word == "include_top":
        return {} if value else {"num_classes": 0}
    if word == "mlp_ratio" and fields is None:
        return {word: value}
    if word in _ADVICE:
        raise ValueError(f"{word} is no field of the config; {_ADVICE[word]}. Received: {word}={value!r}")
    target = SYNONYMS.get(word)
    if target is None or (target not in fields if fields is not None else word == "embed_dim"):
        return {word: value}
    return {target: value}


def _pooling(word, value, fields):
    table = _POOLING if word == "pooling" else _GLOBAL_POOL
    meaning = table.get(value, {"pooling": value}) if value is None or isinstance(value, str) else {"pooling": value}
    if isinstance(meaning, str):
        raise ValueError(f"{word} must be a pooling of this library; {meaning}. Received: {word}={value!r}")
    if fields is not None and "pooling" not in fields and meaning.get("pooling") == "gap":
        return {}  # the only one of such a family, and always there
    return meaning
