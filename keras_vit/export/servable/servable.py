"""Builds a `Servable` from a model and export options."""

import dataclasses

from keras_vit.calibration import check_activation
from keras_vit.export.servable.functional import check_backend, flat_composition, with_compute_dtype, without_lora
from keras_vit.export.servable.labels import model_labels, served_labels
from keras_vit.export.servable.options import ExportOptions
from keras_vit.export.servable.quantization import QuantizedWeights
from keras_vit.export.servable.signatures import Servable
from keras_vit.metadata import composed_metadata, composition, describe_front, folded_spec, metadata
from keras_vit.outputs import describe_output, score_activation


def make_servable(model, options=None):
    """Builds a `Servable`, whose options are those given with the model's own values in place of `None`.

    Args:
        model: as for `keras_vit.export.saved_model`.
        options: `ExportOptions`, or `None` for the defaults.

    Returns:
        A `Servable`.

    Raises:
        ValueError: if the model cannot be exported, or an option does not fit it; under another backend than
            TensorFlow.
    """
    check_backend()
    options = options or ExportOptions()
    parts = composition(model)
    flat = flat_composition(parts)
    output = describe_output(parts, parts.marker.content.config)
    _check_vector(flat)
    _check_max_pixels(flat, options.max_pixels)
    if options.labels is not None and not output.has_head:
        raise ValueError(f"a model without a classifier has no labels. Received: model={flat.name!r}")
    labels = model_labels(parts, output, options.labels)
    calibration = composed_metadata(parts).calibration if output.has_head else None
    wanted = check_activation(calibration, options.activation)
    activation = score_activation(model, output, labels, wanted) if output.has_head else None
    served = without_lora(flat) if options.dtype is None else with_compute_dtype(flat, options.dtype)
    return Servable(
        model=served,
        weights=QuantizedWeights(served, options.weights),
        options=dataclasses.replace(
            options,
            input_spec=_input_spec(folded_spec(parts), options.input_spec),
            labels=served_labels(labels, output, activation),
            # A single logit distinguishes two classes.
            top_k=min(options.top_k, max(output.units, 2)),
            activation=activation,
        ),
        has_head=output.has_head,
        front=describe_front(model),
        calibration=calibration,
        is_inexact=options.weights != "float32" or _has_other_dtypes(served, flat),
    )


def _has_other_dtypes(model, other):
    """Returns whether two models of the same layers have different compute dtypes."""
    dtypes = ([layer.compute_dtype for layer in m.layers if layer.weights] for m in (model, other))
    return model is not other and [*next(dtypes)] != [*next(dtypes)]


def _input_spec(own, input_spec):
    if input_spec is None:
        return own
    if input_spec.size != own.size or input_spec.num_channels != own.num_channels:
        raise ValueError(
            "input_spec must have the size and the channels of the model. "
            f"Received: {input_spec.size} and {input_spec.num_channels}, for {own.size} and {own.num_channels}"
        )
    return input_spec


def _check_vector(model):
    if len(model.outputs[0].shape) != 2:
        raise ValueError(
            "a model to export must return one vector per image. "
            f"Received: model={model.name!r} with outputs of the shape {tuple(model.outputs[0].shape)}"
        )


def _check_max_pixels(model, max_pixels):
    height, width = metadata(model).input_spec.size
    if max_pixels < height * width:
        raise ValueError(
            "max_pixels must allow an image of the model's own size. "
            f"Received: max_pixels={max_pixels} for {height} x {width}"
        )
