"""The model to export: one flat graph, in the precision that is wanted."""

import keras

from keras_vit.metadata import LAYER_NAME, Metadata, metadata

# They compute in float32 under every policy of mixed precision, as do heads of one's own.
_HEADS = ("head", "head_dist", "logits")


def flat(model):
    """The same layers without a model inside the model.

    Args:
        model: of keras_vit; or one that takes its images with such a model, and goes on with its output.

    Returns:
        A functional `keras.Model` of one input and one output whose layers are those of `model`.

    Raises:
        ValueError: if there are other inputs or outputs, or the images are changed in front of the keras_vit model.
    """
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ValueError(
            "a model to export must have one input and one output. "
            f"Received: model={model.name!r} with {len(model.inputs)} and {len(model.outputs)}"
        )
    plain = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    inner = next(layer for layer in plain.layers if _carries_metadata(layer))
    if isinstance(inner, Metadata):
        if inner.input is not plain.input:
            raise changes_images(model)
        return plain
    core = flat(inner)

    def call(layer, *args, **kwargs):
        if layer is not inner:
            return layer(*args, **kwargs)
        if args[0] is not core.input:
            raise changes_images(model)
        return core.output

    return keras.models.clone_model(plain, core.input, clone_function=lambda layer: layer, call_function=call)


def check_backend():
    """Raises a `ValueError` under another backend than TensorFlow's: what is exported is a graph of its operations."""
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise ValueError(
            "models are exported from the TensorFlow backend; a .keras file loads under all of them. "
            f"Received: KERAS_BACKEND={backend}"
        )


def _carries_metadata(layer):
    if not isinstance(layer, keras.Model):
        return isinstance(layer, Metadata)
    return any(_carries_metadata(inside) for inside in layer.layers)


def changes_images(model):
    """The error of a model whose images are changed in front of the keras_vit model."""
    return ValueError(
        "a model to export must take its images as keras_vit prepares them; export the inner model. "
        f"Received: model={model.name!r}, whose input does not go straight to its {LAYER_NAME!r} layer"
    )


def with_compute_dtype(model, dtype):
    """A copy of a flat model that computes in another type, with the same weights; its output stays float32.

    Args:
        model: from `flat`.
        dtype: `float32` or `bfloat16`.

    Returns:
        `model` itself where all of its layers compute in that type, else a copy with variables of its own.

    Raises:
        ValueError: if the model is quantized: its policies tell how.
    """
    if any("int" in weight.dtype for weight in model.weights):
        raise ValueError(f"a quantized model computes as it was quantized. Received: dtype={dtype!r}")
    policy = "float32" if dtype == "float32" else f"mixed_{dtype}"
    names = {*_HEADS, model.layers[-1].name}
    wanted = {layer.name: "float32" if layer.name in names else policy for layer in model.layers}
    if all(keras.dtype_policies.get(wanted[layer.name]) == layer.dtype_policy for layer in _weighted(model)):
        return model

    def clone(layer):
        config = layer.get_config()
        if "dtype" in config:
            config["dtype"] = wanted[layer.name]
        return type(layer).from_config(config)

    copy = keras.models.clone_model(model, clone_function=clone)
    copy.set_weights(model.get_weights())
    return copy


def _weighted(model):
    """The layers that compute with weights: the policy of the others, such as the input, tells nothing."""
    return [layer for layer in model.layers if layer.weights]


def with_representation(model):
    """A flat model that also returns what its classifier starts from.

    Returns:
        A `keras.Model` from images to a dict: `outputs`, those of `model`, and `representation`, `(batch, width)`.
    """
    name = "encoder_norm" if getattr(metadata(model).config, "pool_before_norm", False) else "representation"
    return keras.Model(model.input, {"outputs": model.output, "representation": model.get_layer(name).output})
