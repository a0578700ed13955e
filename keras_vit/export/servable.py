"""From a model and what is asked of it to a `Servable`, or to an error that says what does not fit."""

from keras_vit.export.decode import MAX_PIXELS
from keras_vit.export.flatten import check_backend, flat, with_compute_dtype
from keras_vit.export.headers import FORMATS
from keras_vit.export.signatures import Servable
from keras_vit.export.stored import STORAGE, StoredWeights
from keras_vit.metadata import has_classifier, metadata, output_activation
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
    given = flat(model)
    wanted = given if dtype is None else with_compute_dtype(given, check_choice(dtype, COMPUTE_DTYPES, "dtype"))
    return Servable(
        model=wanted,
        weights=StoredWeights(wanted, check_choice(weights, STORAGE, "weights")),
        input_spec=_input_spec(given, input_spec),
        labels=_labels(given, labels),
        top_k=_top_k(given, top_k),
        activation=_activation(given, activation),
        formats=_formats(formats),
        max_pixels=_max_pixels(given, max_pixels),
        upright=bool(upright),
        is_inexact=weights != "float32" or wanted is not given,
    )


def _input_spec(model, input_spec):
    own = metadata(model).input_spec
    if input_spec is None:
        return own
    if input_spec.size != own.size or input_spec.num_channels != own.num_channels:
        raise ValueError(
            "input_spec must have the size and the channels of the model. "
            f"Received: {input_spec.size} and {input_spec.num_channels}, for {own.size} and {own.num_channels}"
        )
    return input_spec


def _labels(model, labels):
    """The class names, a tuple of str; `None` for numbers."""
    if not has_classifier(model):
        if labels is not None:
            raise ValueError(f"a model without a classifier has no labels. Received: model={model.name!r}")
        return None
    labels, count = metadata(model).labels if labels is None else labels, model.outputs[0].shape[-1]
    if labels is None:
        return None
    labels = tuple(str(label) for label in labels)
    if len(labels) != count:
        raise ValueError(f"labels must name every class. Received: {len(labels)} labels for {count} classes")
    size = sum(len(label.encode()) for label in labels)
    if size > _MOST_LABEL_BYTES:
        raise ValueError(f"labels must have at most {_MOST_LABEL_BYTES} bytes together. Received: {size} bytes")
    return labels


def _top_k(model, top_k):
    check_positive(top_k, "top_k")
    if len(model.outputs[0].shape) != 2:
        raise ValueError(
            "a model to export must return one vector an image. "
            f"Received: model={model.name!r} with outputs of the shape {tuple(model.outputs[0].shape)}"
        )
    return min(top_k, model.outputs[0].shape[-1])


def _activation(model, activation):
    """What makes probabilities of the model's outputs: `softmax`, `sigmoid`, or `None` where they are."""
    check_choice(activation, (None, "softmax", "sigmoid"), "activation")
    own = output_activation(model)
    if own is not None:
        if activation not in (None, own):
            raise ValueError(f"the model ends in {own} already. Received: activation={activation!r}")
        return None
    return activation or ("sigmoid" if model.outputs[0].shape[-1] == 1 else "softmax")


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
