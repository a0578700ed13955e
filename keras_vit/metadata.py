"""Metadata that travels inside a model: config, preprocessing, labels and origin of the weights.

They live in the config of the layer named `metadata`, an identity right behind the input, and so
survive `.keras` files, `clone_model` and `load_model`. Export, prediction and interpretation read only this.
Of a model built around one of this library they are told as the whole model has them: behind layers that normalize
pixels, it takes pixels.
"""

import dataclasses

import keras
import numpy as np

from keras_vit.backend.keras_private import outermost_layer
from keras_vit.calibration import Calibration
from keras_vit.composition import compose, find_layers, front_error
from keras_vit.loss_check import check_loss
from keras_vit.origin import portable_origin
from keras_vit.outputs import describe_output, fits
from keras_vit.preprocessing import InputSpec
from keras_vit.validation import replace_fields

LAYER_NAME = "metadata"


@dataclasses.dataclass(frozen=True)
class ModelMetadata:
    """The description that a model holds of itself.

    Args:
        config: the architecture, for example a `ViTConfig`.
        input_spec: `InputSpec`. How its images are prepared.
        labels: tuple of str or `None`. Class names in the order of the logits.
        origin: str or `None`. Where the weights come from; `None` for random ones. Of a path a saved model has the last
            part alone.
        license: str or `None`. License of these weights, an SPDX identifier where there is one; `None` if unknown.
            It stays with a model that is trained further.
        calibration: `keras_vit.calibration.Calibration` or `None`. What makes its probabilities as certain as they are
            right; it does not change the outputs. A head of one's own with another number of outputs has none.
            Calibrate a model again after further training.
    """

    config: object
    input_spec: InputSpec
    labels: tuple | None = None
    origin: str | None = None
    license: str | None = None
    calibration: Calibration | None = None

    def __post_init__(self):
        spec, config = self.input_spec, self.config
        if spec.size != config.image_size or spec.num_channels != config.num_channels:
            raise ValueError(
                "input_spec must have the size and the channels of the config. "
                f"Received: {spec.size} with {spec.num_channels} channels for "
                f"image_size={config.image_size}, num_channels={config.num_channels}"
            )
        if self.labels is not None:
            if isinstance(self.labels, str):
                raise ValueError(f"labels must be a sequence of names. Received: labels={self.labels!r}")
            object.__setattr__(self, "labels", tuple(str(label) for label in self.labels))
            num_classes = config.num_classes
            # A single logit may name both of its classes.
            if num_classes and len(self.labels) != num_classes and (num_classes, len(self.labels)) != (1, 2):
                raise ValueError(
                    f"labels must name every class. Received: {len(self.labels)} labels for num_classes={num_classes}"
                )


@keras.saving.register_keras_serializable(package="keras_vit")
class Metadata(keras.layers.Layer):
    """Identity that carries a `ModelMetadata` in its config.

    Args:
        config, input_spec, labels, origin, license, calibration: the fields of `ModelMetadata`.

    Call arguments:
        images: tensor of any shape.
        training: bool. Whether the model is trained: then its loss is checked, see `keras_vit.loss_check`.

    Returns:
        `images`, unchanged.
    """

    def __init__(self, config, input_spec, labels=None, origin=None, license=None, calibration=None, **kwargs):
        super().__init__(**kwargs)
        self.content = ModelMetadata(config, input_spec, labels, origin, license, calibration)
        self.built = True

    def call(self, images, training=False):
        self._check(images.shape)
        if training:
            outermost = outermost_layer(self)
            if getattr(outermost, "compiled", False):
                check_loss(outermost)
        return images

    def _check(self, shape):
        wanted = (*self.content.config.input_size, self.content.input_spec.num_channels)
        if len(shape) != 4 or any(
            None not in (side, want) and side != want for side, want in zip(shape[1:], wanted, strict=True)
        ):
            raise ValueError(
                f"images must have the shape (batch, {', '.join(map(str, wanted))}). Received: shape={tuple(shape)}"
            )

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        content = self.content
        return {
            **super().get_config(),
            "config": keras.saving.serialize_keras_object(content.config),
            "input_spec": keras.saving.serialize_keras_object(content.input_spec),
            "labels": None if content.labels is None else list(content.labels),
            # What is saved may go to others, who have no use for the folders of this machine.
            "origin": portable_origin(content.origin),
            # Absent where there is none, so that such files also load where the field does not exist yet.
            **({} if content.license is None else {"license": content.license}),
            **({} if content.calibration is None else {"calibration": content.calibration.get_config()}),
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        for field in ("config", "input_spec"):
            config[field] = keras.saving.deserialize_keras_object(config[field])
        if config.get("calibration"):
            config["calibration"] = Calibration(**config["calibration"])
        return cls(**config)


def _find(model):
    """The `Metadata` layer of a model or of a model inside it."""
    found = find_layers(model, Metadata)
    if len(found) != 1:
        raise ValueError(
            "a model must hold exactly one keras_vit model to have metadata. "
            f"Received: model={model.name!r} with {len(found)}"
        )
    return found[0]


def composition(model):
    """Takes a model apart: the model of keras_vit in it, what stands in front and what follows.

    Args:
        model: a model of keras_vit, or a model that holds one.

    Returns:
        A `keras_vit.composition.Composition`.

    Raises:
        ValueError: if the model holds no keras_vit model, or several, or cannot be taken apart.
    """
    _find(model)
    return compose(model, Metadata)


def metadata(model):
    """Reads what travels inside a model.

    Args:
        model: a model of keras_vit, or a model that holds one (for example behind augmentation layers).

    Returns:
        A `ModelMetadata`. Of a model built around another one its `input_spec` is that of the whole: behind layers that
        normalize pixels, images come as pixels, 0 to 255 or 0 to 1. The labels of a head that is not there any more are
        left out.

    Raises:
        ValueError: if the model holds no keras_vit model, or several; if it changes its images in a way that is not
            known, with what to do instead.
    """
    layer = _find(model)
    if _is_plain(model, layer) or type(model).__module__.startswith("keras_vit."):
        return layer.content
    return composed_metadata(compose(model, Metadata))


def composed_metadata(parts):
    """The same of a `Composition`."""
    content = parts.marker.content
    labels, units = content.labels, describe_output(parts, content.config).units
    calibration = content.calibration
    if labels and content.config.num_classes and units is not None and not fits(labels, units):
        labels = None
    if calibration is not None and calibration.outputs != units:
        calibration = None
    if parts.front is None and (labels, calibration) == (content.labels, content.calibration):
        return content
    content = dataclasses.replace(content, labels=labels, calibration=calibration)
    if parts.front is not None:
        # The whole model may take images of another size than the one inside.
        object.__setattr__(content, "input_spec", _outer_spec(parts))
    return content


def _is_plain(model, layer):
    """Returns whether the images of a model go straight to its metadata, and its own heads end it."""
    if not any(inside is layer for inside in model.layers) or not hasattr(model, "operations"):
        return False
    content, outputs = layer.content, model.outputs
    if content.config.num_classes and len(outputs) == 1:
        units = outputs[0].shape[-1]
        if (content.labels and not fits(content.labels, units)) or (
            content.calibration is not None and content.calibration.outputs != units
        ):
            return False
    return layer.input is model.inputs[0] and len(model.inputs) == 1


def _outer_spec(parts):
    """The `InputSpec` of the images in front of all layers: pixels 0 to 255, or 0 to 1."""
    front, spec = parts.front, _geometry(parts)
    spec = spec.replace(size=front.size or spec.size)
    level, channels = 1 / _pixel_range(parts), spec.num_channels
    return spec.replace(mean=(0.0,) * channels, std=(level,) * channels)


def folded_spec(parts):
    """The `InputSpec` of the model inside a `Composition` with all that the layers in front of it do.

    So the model inside can be fed without them.

    Raises:
        ValueError: if they are none that augment images or normalize pixels.
    """
    spec, front = parts.marker.content.input_spec, parts.front
    if front is None:
        return spec
    scale, offset = (np.array(values) for values in (front.scale, front.offset))
    scale, folded = scale * _pixel_range(parts), _geometry(parts)
    mean, std = -offset / scale, 1 / scale
    # What is the same but for rounding is the same.
    if np.allclose(mean, spec.mean, atol=1e-3) and np.allclose(std, spec.std, rtol=1e-3):
        return folded
    return folded.replace(mean=tuple(mean), std=tuple(std))


def _geometry(parts):
    """The `InputSpec` of the model inside with the resizing and the crop of the layers in front of it."""
    spec, layer, size = parts.marker.content.input_spec, parts.front.resize, parts.front.size
    if layer is None:
        return spec
    if isinstance(layer, keras.layers.Resizing):
        whole = not (layer.crop_to_aspect_ratio or layer.pad_to_aspect_ratio)
        if layer.pad_to_aspect_ratio:
            raise front_error(parts, f"{layer.name!r} pads images")
        name = {"lanczos3": "lanczos", "lanczos5": "lanczos"}.get(layer.interpolation, layer.interpolation)
        return spec.replace(crop_fraction=None if whole else 1.0, interpolation=name)
    if size is None:
        raise front_error(parts, f"{layer.name!r} crops images of any size; give the model a `keras.Input` of one")
    fractions = {ours / theirs for ours, theirs in zip(spec.size, size, strict=True)}
    if len(fractions) > 1:
        raise front_error(parts, f"{layer.name!r} crops {size} to {spec.size}, which have other proportions")
    return spec.replace(crop_fraction=fractions.pop())


# Of the width of the range that a model's weights were made for: what layers in front may leave of it, and the center
# of that range from its own.
_WIDTHS, _FARTHEST = (0.1, 10), 5
_SAME = 0.05


def _pixel_range(parts):
    """The highest value of the pixels that layers in front of a model make images of: 255, or 1."""
    spec, front = parts.marker.content.input_spec, parts.front
    mean, std = np.array(spec.mean), np.array(spec.std)
    scale, offset = np.array(front.scale), np.array(front.offset)
    if np.allclose(scale, 1 / std, rtol=_SAME) and np.allclose(offset, -mean / std, atol=_SAME / std.min()):
        return 1
    widths = 255 * scale * std
    centers = offset + 127.5 * scale
    fits = (scale > 0).all() and (widths > _WIDTHS[0]).all() and (widths < _WIDTHS[1]).all()
    if not fits or np.abs(centers).max() > _FARTHEST:
        low, high = offset.min(), (255 * scale + offset).max()
        raise front_error(parts, f"they make {low:.4g} to {high:.4g} of pixels 0 to 255")
    return 255


def describe_front(model):
    """Describes the layers in front of a model of keras_vit in words; `None` without such layers.

    Args:
        model: as for `metadata`.
    """
    parts = composition(model)
    if not parts.fronts:
        return None
    names = ", ".join(part.name for part in parts.front_layers)
    if parts.front is None:
        return f"{names} in front: without effect at inference"
    return f"{names} in front: the model takes pixels 0 to {_pixel_range(parts)}"


def update_metadata(model, **changes):
    """Changes fields of a model's metadata in place, for example `labels=` after training.

    Args:
        model: a model of keras_vit itself. A model around it has no metadata of its own: what it says is that of the
            model inside, which may be part of others too, so it is changed there.
        **changes: fields of `ModelMetadata`.

    Returns:
        The new `ModelMetadata`.

    Raises:
        ValueError: on a model built around one of keras_vit, with the model to change; on an unknown field, with the
            nearest one; on values that do not fit the model.
    """
    layer = _find(model)
    if not any(inside is layer for inside in model.layers):
        inner = next(part for part in find_layers(model, keras.Model) if any(item is layer for item in part.layers))
        raise ValueError(
            "metadata must be changed on the model of keras_vit itself, as other models may share it: "
            f"keras_vit.update_metadata(model inside, ...), where the model inside is the layer {inner.name!r}. "
            f"Received: model={model.name!r}, built around it"
        )
    layer.content = replace_fields(layer.content, changes)
    return layer.content


def output(model):
    """Finds what a model's outputs are, a custom head included.

    Args:
        model: as for `metadata`.

    Returns:
        A `keras_vit.outputs.Output`.
    """
    parts = composition(model)
    return describe_output(parts, parts.marker.content.config)


def output_activation(model):
    """The final activation of a classifier: `softmax`, `sigmoid`, or `None` for logits.

    A head of one's own behind the model counts; where the last layer has no activation, as the mean of two heads,
    the config tells.

    Args:
        model: a model of keras_vit, or one built on it.
    """
    activation = output(model).activation
    return None if activation == "linear" else activation


def has_classifier(model):
    """Returns whether a model ends in scores of classes, its own or those of a head that somebody put behind it."""
    return output(model).has_head
