"""What travels inside a model: its config, its preprocessing, its labels and where its weights come from.

They live in the config of the layer named `metadata`, an identity right behind the input, and so
survive `.keras` files, `clone_model` and `load_model`. Export, prediction and interpretation read only this.
"""

import dataclasses

import keras

from keras_vit.backend import outermost_layer
from keras_vit.loss_check import check_loss
from keras_vit.preprocessing import InputSpec
from keras_vit.validation import replace_fields

LAYER_NAME = "metadata"


@dataclasses.dataclass(frozen=True)
class ModelMetadata:
    """What a model says of itself.

    Args:
        config: the architecture, for example a `ViTConfig`.
        input_spec: `InputSpec`. How its images are prepared.
        labels: tuple of str or `None`. Class names in the order of the logits.
        origin: str or `None`. Where the weights come from; `None` for random ones.
    """

    config: object
    input_spec: InputSpec
    labels: tuple | None = None
    origin: str | None = None

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
            if num_classes and len(self.labels) != num_classes:
                raise ValueError(
                    f"labels must name every class. Received: {len(self.labels)} labels for num_classes={num_classes}"
                )


@keras.saving.register_keras_serializable(package="keras_vit")
class Metadata(keras.layers.Layer):
    """Identity that carries a `ModelMetadata` in its config.

    Args:
        config, input_spec, labels, origin: the fields of `ModelMetadata`.

    Call arguments:
        images: tensor of any shape.
        training: bool. Whether the model is trained: then its loss is checked, see `keras_vit.loss_check`.

    Returns:
        `images`, unchanged.
    """

    def __init__(self, config, input_spec, labels=None, origin=None, **kwargs):
        super().__init__(**kwargs)
        self.content = ModelMetadata(config, input_spec, labels, origin)
        self.built = True

    def call(self, images, training=False):
        self._check(images.shape)
        if training:
            outermost = outermost_layer(self)
            if getattr(outermost, "compiled", False):
                check_loss(outermost)
        return images

    def _check(self, shape):
        spec = self.content.input_spec
        wanted = (*spec.size, spec.num_channels)
        if len(shape) != 4 or any(side not in (None, want) for side, want in zip(shape[1:], wanted, strict=True)):
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
            "origin": content.origin,
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        for field in ("config", "input_spec"):
            config[field] = keras.saving.deserialize_keras_object(config[field])
        return cls(**config)


def _walk(model):
    """Every layer of a model and of the models inside it."""
    for layer in getattr(model, "layers", []):
        yield layer
        yield from _walk(layer)


def _find(model):
    """The `Metadata` layer of a model or of a model inside it."""
    found = [layer for layer in _walk(model) if isinstance(layer, Metadata)]
    if len(found) != 1:
        raise ValueError(
            "a model must hold exactly one keras_vit model to have metadata. "
            f"Received: model={model.name!r} with {len(found)}"
        )
    return found[0]


def metadata(model):
    """Reads what travels inside a model.

    Args:
        model: a model of keras_vit, or a model that holds one (for example behind augmentation layers).

    Returns:
        A `ModelMetadata`.

    Raises:
        ValueError: if the model holds no keras_vit model, or several.
    """
    return _find(model).content


def update_metadata(model, **changes):
    """Changes fields of a model's metadata in place, for example `labels=` after training.

    Args:
        model: as for `metadata`.
        **changes: fields of `ModelMetadata`.

    Returns:
        The new `ModelMetadata`.

    Raises:
        ValueError: on an unknown field, with the nearest one; on values that do not fit the model.
    """
    layer = _find(model)
    layer.content = replace_fields(layer.content, changes)
    return layer.content


def output_activation(model):
    """What a classifier ends in: `softmax`, `sigmoid`, or `None` where it gives logits.

    A head of one's own behind the model counts; where the last layer has no activation, as the mean of two heads,
    the config tells.

    Args:
        model: a model of keras_vit, or one built on it.
    """
    known = {keras.activations.softmax: "softmax", keras.activations.sigmoid: "sigmoid"}
    last = model.layers[-1]
    if hasattr(last, "activation"):
        return known.get(last.activation)
    name = getattr(metadata(model).config, "classifier_activation", None)
    return name if name in known.values() else None


def has_classifier(model):
    """Whether a model ends in scores of classes, its own or those of a head that somebody put behind it."""
    # Without classes of its own the model ends in one of these.
    return model.layers[-1].name not in ("representation", "encoder_norm", "pre_logits")
