"""Facts about layers that only private attributes of Keras state. Each function gives the reason."""


def outermost_layer(layer):
    """Finds the layer or model whose call the call of `layer` is part of, such as the model that `fit` trains.

    Keras has no public way to it. Returns `None` where the private one is missing.
    """
    context = getattr(layer, "_get_call_context", None)
    return getattr(context() if context else None, "entry_layer", None)


def sublayers(layer):
    """Lists all layers inside a layer, at every depth. Keras has a public list in models only (`Model.layers`)."""
    return layer._flatten_layers(include_self=False)


def own_variables(layer):
    """Lists the variables of a layer without those of its sublayers, which the public `Layer.variables` includes."""
    return layer._trainable_variables + layer._non_trainable_variables


def frozen_variables(layer):
    """Lists the names of a trainable layer's own variables that are frozen one by one (`variable.trainable = False`).

    Keras has no public list of the variables that were made to be trained. The kernel under LoRA is not among them: it
    is frozen with `enable_lora`.
    """
    if not layer.trainable:
        return []
    is_lora = getattr(layer, "lora_enabled", False)
    return [v.name for v in layer._trainable_variables if not v.trainable and not (is_lora and v.name == "kernel")]
