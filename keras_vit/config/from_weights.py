"""Completes the model and preprocessing of a recipe from its weights."""

import dataclasses
import pathlib
import warnings

from keras_vit.models import ModelConfig
from keras_vit.origin import is_remote
from keras_vit.preprocessing import InputSpec
from keras_vit.validation import replace_fields
from keras_vit.weights.hub.catalog import catalog
from keras_vit.zoo.create import describe_model

# Fields in which a model and its initial weights must agree, since nothing resizes or replaces them.
_ARCHITECTURE = (
    *("hidden_dim", "embed_dim", "widths", "num_layers", "depths", "num_heads", "mlp_dim", "mlp_ratio", "version"),
    *("class_token", "distillation_token", "num_registers", "patch_bias", "embedding_norm", "qk_norm", "qkv_bias"),
    *("norm_placement", "stem_depths"),
)
# Fields that follow the data set, whatever the weights.
_OF_THE_DATA = ("num_classes", "num_channels", "classifier_activation")
# Fields of a config that mean the same in every family.
_OF_EVERY_FAMILY = ("image_size", "dropout_rate", "drop_path_rate")


def complete_from_weights(recipe):
    """Completes the model and preprocessing that a recipe leaves open from its weights.

    Args:
        recipe: `Recipe`.

    Returns:
        A `Recipe` with a whole model; without weights the recipe itself.

    Raises:
        ValueError: if the model of the recipe is not that of the weights, with the fields that differ.
        FileNotFoundError, PermissionError, ConnectionError, OSError: as `keras_vit.load_model`.
    """
    if not recipe.weights:
        return recipe
    source, model, spec = weights_metadata(recipe), recipe.model, recipe.input_spec
    if isinstance(model, ModelConfig):
        _check_architecture(recipe, source.config)
    else:
        # The head is new, and a recipe trains on logits.
        changes = {"classifier_activation": None, **(model or {})}
        model = source.config.adapt(**changes)
    if not isinstance(spec, InputSpec):
        spec = replace_fields(source.input_spec, {"size": model.image_size, **(spec or {})})
    return recipe.replace(model=model, input_spec=spec)


def weights_metadata(recipe):
    """Reads the `ModelMetadata` of a recipe's weights."""
    return describe_model(recipe.weights, recipe.weights_selection)


def is_local(weights):
    """Returns whether weights are local files, neither published nor on the Hub."""
    return pathlib.Path(weights).exists() or not (is_remote(weights) or str(weights) in catalog())


def differences_from_weights(recipe, weights, selection):
    """Finds the fields in which a recipe differs from its present weights, for use with other weights.

    Args:
        recipe: `Recipe`.
        weights: str. The others.
        selection: `KeySelection` of what is taken of their file.

    Returns:
        A dict of the fields `model` and `input_spec`; an empty one where the recipe has no weights to compare with.

    Raises:
        ValueError, OSError: as `keras_vit.load_model`, of the others.
    """
    other = describe_model(weights, selection)
    try:
        own = weights_metadata(recipe) if recipe.weights else None
    except (ValueError, OSError):
        own = None
    if own is None:
        return {}
    model, spec = recipe.model, recipe.input_spec
    if type(model) is type(own.config):
        names = [field.name for field in dataclasses.fields(model) if field.name not in _OF_THE_DATA]
        if type(model) is not type(other.config):
            names = _OF_EVERY_FAMILY
        model = {name: getattr(model, name) for name in names if getattr(model, name) != getattr(own.config, name)}
        model = _whole_patches(model, other.config)
    if isinstance(spec, InputSpec):
        names = [field.name for field in dataclasses.fields(spec) if field.name != "size"]
        spec = {name: getattr(spec, name) for name in names if getattr(spec, name) != getattr(own.input_spec, name)}
    return {"model": model, "input_spec": spec}


def _whole_patches(changes, config):
    """Rounds the image size of some changes down to whole patches of a config."""
    sides, patch = changes.get("image_size"), config.patch_size
    if sides is None or patch is None or config.drop_remainder:
        return changes
    whole = tuple(max(side // p, 1) * p for side, p in zip(sides, changes.get("patch_size", patch), strict=True))
    if whole != sides:
        warnings.warn(f"the image size is {whole} instead of {sides}, in whole patches of the weights", stacklevel=6)
    return {**changes, "image_size": whole}


def _check_architecture(recipe, theirs):
    """Raises a `ValueError` of one line that names the fields of a recipe's model in which the weights differ."""
    ours, advice = recipe.model, "or set model=None to take the model of the weights"
    if type(ours) is not type(theirs):
        raise ValueError(
            f"the weights must be of the family of the model; choose others, {advice}. "
            f"Received: weights={recipe.weights!r} of a {type(theirs).__name__} for a {type(ours).__name__}"
        )
    names = [name for name in _ARCHITECTURE if name in vars(ours) and getattr(ours, name) != getattr(theirs, name)]
    if (getattr(ours, "layer_scale_init", None) is None) != (getattr(theirs, "layer_scale_init", None) is None):
        names.append("layer_scale_init")
    if names:
        fields = ", ".join(f"model.{name}={getattr(theirs, name)!r} (is {getattr(ours, name)!r})" for name in names)
        raise ValueError(
            f"the model must be that of the weights. Set {fields}; {advice}. Received: weights={recipe.weights!r}"
        )
