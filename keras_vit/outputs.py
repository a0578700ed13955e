"""The outputs of a model: classes or values, logits or probabilities.

A head of one's own tells it by its layers, its loss and its labels. Where none of them does, the caller has to.
"""

import dataclasses
import functools

import keras

# Stages of the models of this library from the pooled tokens on; the first ones end models without a classifier.
REPRESENTATIONS = ("representation", "encoder_norm", "pre_logits")
HEADS = ("head", "head_dist", "logits")
_PROBABILITIES = {keras.activations.softmax: "softmax", keras.activations.sigmoid: "sigmoid"}
_NO_ACTIVATION = (None, keras.activations.linear)
# They hand on what they get, at inference.
_PASSING = (
    keras.layers.Dropout,
    keras.layers.Flatten,
    keras.layers.GaussianNoise,
    keras.layers.Identity,
    keras.layers.Reshape,
)
_NORMS = (
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
    keras.layers.Normalization,
    keras.layers.RMSNormalization,
    keras.layers.UnitNormalization,
)
_OF_VALUES = (
    "mean_squared_error",
    "mean_absolute_error",
    "mean_absolute_percentage_error",
    "mean_squared_logarithmic_error",
    "huber",
    "log_cosh",
    "poisson",
)
_OF_YES_AND_NO = ("binary_crossentropy", "binary_focal_crossentropy")
# What an export may be told: what makes probabilities of the outputs, or that they are values.
ACTIVATIONS = (None, "softmax", "sigmoid", "linear")


@dataclasses.dataclass(frozen=True)
class Output:
    """Description of a model's output for an image.

    Args:
        units: int or `None`. Numbers an image; `None` where it is no single vector.
        activation: `softmax` or `sigmoid` where the model itself ends in it, `linear` where it ends in an activation
            that leaves no logits, such as `relu`; `None` for logits or plain values.
        has_head: bool. Whether something with weights follows the representation.
        is_own: bool. Whether that is a head of one's own.
    """

    units: int | None
    activation: str | None
    has_head: bool
    is_own: bool


def describe_output(composition, config):
    """The `Output` of a composition.

    Args:
        composition: `keras_vit.composition.Composition`.
        config: the config of the inner model, whose `classifier_activation` counts where its own heads end the model.
    """
    tensors = keras.tree.flatten(composition.outputs)
    vector = tensors[0] if len(tensors) == 1 and len(tensors[0].shape) == 2 else None
    units = None if vector is None else vector.shape[-1]
    operations = list(_last_first(composition.core()))
    behind = []
    names = (*REPRESENTATIONS, *(HEADS if getattr(config, "num_classes", 0) else ()))
    ours = {id(layer) for layer in composition.inner.layers if _is_stage(layer, names)}
    for operation in operations:
        if id(operation) in ours:
            break
        behind.append(operation)
    ending = next((item for item in operations if not _passes(item)), None)
    if ending is None or ending not in behind:
        has_head = getattr(ending, "name", None) not in REPRESENTATIONS
        return Output(units, _own_activation(ending, config), has_head, False)
    weighted = [item for item in behind if getattr(item, "weights", []) and not isinstance(item, _NORMS)]
    has_head = bool(weighted) or bool(getattr(config, "num_classes", 0))
    return Output(units, _activation(ending), has_head, bool(weighted))


def _last_first(model):
    """The operations of a functional model and of models inside it, the last one first."""
    for operation in reversed(model.operations):
        if hasattr(operation, "operations"):
            yield from _last_first(operation)
        elif isinstance(operation, keras.Sequential):
            for layer in reversed(operation.layers):
                yield from _last_first(layer) if hasattr(layer, "operations") else [layer]
        elif not isinstance(operation, keras.layers.InputLayer):
            yield operation


def _is_stage(layer, names):
    return layer.name in names or type(layer).__module__.startswith("keras_vit.")


def _passes(operation):
    if isinstance(operation, keras.layers.Activation):
        return operation.activation in _NO_ACTIVATION
    return isinstance(operation, _PASSING) or type(operation).__name__ in ("Cast", "Reshape", "Squeeze")


def _activation(operation):
    """The field of `Output`, from the last operation that changes anything."""
    if isinstance(operation, keras.layers.Softmax):
        return "softmax"
    if not hasattr(operation, "activation"):
        # Of `keras.ops.softmax(x)` in a functional model there is an operation with this name.
        return {"Softmax": "softmax", "Sigmoid": "sigmoid"}.get(type(operation).__name__)
    if operation.activation in _NO_ACTIVATION:
        return None
    return _PROBABILITIES.get(operation.activation, "linear")


def _own_activation(operation, config):
    """The same of a head of this library, where the mean of two heads has no activation of its own."""
    if hasattr(operation, "activation"):
        return _PROBABILITIES.get(operation.activation)
    name = getattr(config, "classifier_activation", None)
    return name if name in _PROBABILITIES.values() else None


def score_activation(model, output, labels=None, activation=None):
    """Chooses the activation that turns a model's outputs into scores.

    Args:
        model: `keras.Model`, whose loss tells classes from values where it is compiled.
        output: its `Output`, with a head.
        labels: class names, or `None`. Two of them make a single logit that of the second class.
        activation: what somebody asked for, one of `ACTIVATIONS`.

    Returns:
        `softmax` or `sigmoid`, to be applied; `None` where the outputs are probabilities; `linear` where they are
        values of a regression.

    Raises:
        ValueError: if it cannot be known, or contradicts how the model ends.
    """
    if output.activation in ("softmax", "sigmoid"):
        if activation not in (None, "linear", output.activation):
            raise ValueError(f"the model ends in {output.activation} already. Received: activation={activation!r}")
        return "linear" if activation == "linear" else None
    if activation or output.activation:
        return activation or output.activation
    kind = _loss_kind(getattr(model, "loss", None))
    if kind == "linear":
        return kind
    if output.units != 1:
        return kind or "softmax"
    if kind == "sigmoid" or not output.is_own or (labels is not None and len(labels) == 2):
        return "sigmoid"
    raise ValueError(
        "a single output may be the logit of a class or a value: pass activation='sigmoid' for a classifier of two "
        "classes or activation='linear' for a regression, or compile the model with its loss, or name both classes by "
        f"labels. Received: model={model.name!r}, which tells neither"
    )


def _loss_kind(loss):
    """`linear` for a loss of values, `sigmoid` for one of independent classes, else `None`."""
    losses = [item for item in keras.tree.flatten(loss) if item is not None]
    if len(losses) != 1:
        return None
    (loss,) = losses
    if isinstance(loss, str):
        try:
            loss = keras.losses.get(loss)
        except ValueError:
            return None
    loss = loss.func if isinstance(loss, functools.partial) else loss
    name = getattr(loss, "__name__", None) or _snake(type(loss).__name__)
    return "linear" if name in _OF_VALUES else "sigmoid" if name in _OF_YES_AND_NO else None


def _snake(name):
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")


def class_names(labels, units):
    """Names of all classes of a classifier, a list of str.

    Args:
        labels: those of its outputs, or both of a single one, or `None`: numbers.
        units: int. Its outputs.
    """
    count = max(units, 2)
    if labels is None:
        return [str(number) for number in range(count)]
    return [f"not {labels[0]}", *labels] if (units, len(labels)) == (1, 1) else list(labels)


def fits(labels, units):
    """Returns whether there is a label for every output; a single output may have one or two."""
    return len(labels) == units or (units == 1 and len(labels) == 2)
