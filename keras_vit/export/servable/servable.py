"""From a model and what is asked of it to a `Servable`, or to an error that says what does not fit."""

from keras_vit.export.servable.functional import check_backend, flat_composition, with_compute_dtype, without_lora
from keras_vit.export.servable.quantization import STORAGE, StoredWeights
from keras_vit.export.servable.signatures import Servable
from keras_vit.image_ops.decode import MAX_PIXELS
from keras_vit.image_ops.headers import FORMATS
from keras_vit.metadata import composed_metadata, composition, describe_front, folded_spec, metadata
from keras_vit.outputs import ACTIVATIONS, class_names, describe_output, fits, score_activation
from keras_vit.validation import check_choice, check_positive

COMPUTE_DTYPES = ("float32", "bfloat16")
# They are a constant of the graph.
_MOST_LABEL_BYTES = 2**20


def make_servable(
    model,
    labels=None,
    input_spec=None,
    top_k=5,
    dtype=None,
    weights="float32",
    activation=None,
    formats=FORMATS,
    max_pixels=MAX_PIXELS,
    upright=True,
):
    """Checks what an export is asked for.

    Args:
        model, labels, input_spec, top_k, dtype, weights, activation, formats, max_pixels, upright: as for
            `keras_vit.export.saved_model`.

    Returns:
        A `Servable`.

    Raises:
        ValueError: if the model cannot be exported, or an argument does not fit it; under another backend of Keras.
    """
    check_backend()
    parts = composition(model)
    given = flat_composition(parts)
    output = describe_output(parts, parts.marker.content.config)
    _check_vector(given)
    check_choice(activation, ACTIVATIONS, "activation")
    if labels is None and output.has_head:
        labels = composed_metadata(parts).labels
    activation = score_activation(model, output, labels, activation) if output.has_head else None
    exact = without_lora(given)
    wanted = exact if dtype is None else with_compute_dtype(given, check_choice(dtype, COMPUTE_DTYPES, "dtype"))
    return Servable(
        model=wanted,
        weights=StoredWeights(wanted, check_choice(weights, STORAGE, "weights")),
        input_spec=_input_spec(folded_spec(parts), input_spec),
        labels=_labels(given, output, labels, activation),
        top_k=_top_k(output, top_k),
        activation=activation,
        has_head=output.has_head,
        formats=_formats(formats),
        max_pixels=_max_pixels(given, max_pixels),
        upright=bool(upright),
        front=describe_front(model),
        is_inexact=weights != "float32" or _computes_otherwise(wanted, given),
    )


def _computes_otherwise(model, other):
    """Whether two models of the same layers have other dtype policies."""
    policies = ([layer.compute_dtype for layer in m.layers if layer.weights] for m in (model, other))
    return model is not other and [*next(policies)] != [*next(policies)]


def _input_spec(own, input_spec):
    if input_spec is None:
        return own
    if input_spec.size != own.size or input_spec.num_channels != own.num_channels:
        raise ValueError(
            "input_spec must have the size and the channels of the model. "
            f"Received: {input_spec.size} and {input_spec.num_channels}, for {own.size} and {own.num_channels}"
        )
    return input_spec


def _labels(model, output, labels, activation):
    """Names of the classes, or of the values of a regression, a tuple of str; `None` for numbers."""
    if labels is None:
        return None
    if not output.has_head:
        raise ValueError(f"a model without a classifier has no labels. Received: model={model.name!r}")
    labels, count = tuple(str(label) for label in labels), output.units
    if len(labels) != count and (activation == "linear" or not fits(labels, count)):
        raise ValueError(f"labels must name every class. Received: {len(labels)} labels for {count} classes")
    size = sum(len(label.encode()) for label in labels)
    if size > _MOST_LABEL_BYTES:
        raise ValueError(f"labels must have at most {_MOST_LABEL_BYTES} bytes together. Received: {size} bytes")
    return labels if activation == "linear" else tuple(class_names(labels, count))


def _check_vector(model):
    if len(model.outputs[0].shape) != 2:
        raise ValueError(
            "a model to export must return one vector an image. "
            f"Received: model={model.name!r} with outputs of the shape {tuple(model.outputs[0].shape)}"
        )


def _top_k(output, top_k):
    # A single logit is of two classes.
    return min(check_positive(top_k, "top_k"), max(output.units, 2))


def _max_pixels(model, max_pixels):
    height, width = metadata(model).input_spec.size
    if check_positive(max_pixels, "max_pixels") < height * width:
        raise ValueError(
            "max_pixels must allow an image of the model's own size, else every answer is a refusal of larger ones. "
            f"Received: max_pixels={max_pixels} for {height} x {width}"
        )
    return max_pixels


def _formats(formats):
    formats = (formats,) if isinstance(formats, str) else tuple(formats)
    for name in formats:
        check_choice(name, FORMATS, "formats")
    if not formats:
        raise ValueError("at least one format must be accepted. Received: formats=()")
    return tuple(dict.fromkeys(formats))
