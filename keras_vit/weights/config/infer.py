"""Infers the config of a checkpoint from its arrays, from what is stated beside them, and from defaults."""

import dataclasses
import pathlib
import warnings

from keras_vit.models import SIZES, HybridConfig, ViTConfig
from keras_vit.validation import as_pair
from keras_vit.weights.files.training_files import stated_config

# Fields that the arrays determine; a description that contradicts them belongs to other arrays.
_CERTAIN = ("hidden_dim", "embed_dim", "num_layers", "depths", "mlp_dim", "num_channels", "patch_size", "num_classes")

# Fields that both the name of a model and the arrays determine.
_NAMED = ("hidden_dim", "embed_dim", "num_layers", "depths", "mlp_dim", "patch_size", "version", "num_registers")


def published_heads(hidden_dim, num_layers, mlp_dim):
    """Returns the number of heads of the published size with these numbers, or `None`."""
    sizes = {(width, depth, mlp): heads for width, depth, heads, mlp in SIZES.values()}
    return sizes.get((hidden_dim, num_layers, mlp_dim))


def complete_vit(fields):
    """Builds the config of inferred fields, a hybrid or not; unknown heads are those of the published size.

    Raises:
        ValueError: if the image size or the number of heads is unknown.
    """
    if "image_size" not in fields:
        raise ValueError(
            "image_size cannot be inferred from a file without a position table; pass image_size=. "
            f"Received: hidden_dim={fields['hidden_dim']}, patch_size={fields['patch_size']}"
        )
    if "num_heads" not in fields:
        heads = published_heads(fields["hidden_dim"], fields["num_layers"], fields["mlp_dim"])
        if heads is None:
            raise ValueError(
                "the number of attention heads cannot be inferred from this file; pass num_heads=. "
                f"Received: hidden_dim={fields['hidden_dim']}"
            )
        fields = {**fields, "num_heads": heads}
    return (HybridConfig if "stem_depths" in fields else ViTConfig)(**fields)


def infer_config(checkpoint, layout, description, requested=None, defaults=None):
    """Infers the config of the model that a checkpoint was written from.

    Args:
        checkpoint: `Checkpoint`, with single blocks.
        layout: its layout.
        description: `Description` of the file; a config in it is the answer, if the arrays agree.
        requested: dict of fields that the user passed, for what neither arrays nor description state.
        defaults: dict of fields that win over `requested` there.

    Returns:
        A config.

    Raises:
        ValueError: if a necessary key is missing, if a field that no file states is unknown, or if
            the description contradicts the arrays.
    """
    stated, fallback = description.stated, {**(requested or {}), **(defaults or {})}
    inferred = {
        **_infer(checkpoint, layout, {**(defaults or {}), **(requested or {}), **stated}),
        **layout.infer_values(checkpoint),
    }
    if differing := _differing_from_name(layout, description, inferred, requested or {}):
        if defaults is None:
            _raise_of_name(checkpoint, description, differing)
        # The caller names the model, and the file does not contradict that by a name that is not its own.
        description = dataclasses.replace(description, fields={}, architecture={})
        return infer_config(checkpoint, layout, description, requested, defaults)
    if description.config is not None:
        _check_agreement(checkpoint, description.config, inferred)
        return description.config
    _warn_of_square_table(checkpoint, inferred, {**(defaults or {}), **(requested or {}), **stated})
    known = {field.name for field in dataclasses.fields(layout.config_class)}
    fallback, stated = ({name: v for name, v in group.items() if name in known} for group in (fallback, stated))
    return layout.make_config({**fallback, **layout.merge(inferred, stated)})


def _warn_of_square_table(checkpoint, inferred, known_fields):
    """Warns about a position table without a class token that may as well belong to images that are not square.

    25 entries are a grid of 5 x 5, or one of 6 x 4 and the class token. DeiT-III (with its LayerScale) and models with
    registers are of the first kind; so is FlexiViT, but most others are of the second.
    """
    usual = inferred.get("layer_scale_init") is not None or inferred.get("num_registers")
    if usual or not inferred.get("class_token") or inferred.get("position_on_prefix", True):
        return
    size = inferred["image_size"]
    confirmed = known_fields.get("image_size") is not None and as_pair(
        known_fields["image_size"], "image_size"
    ) == tuple(size)
    if confirmed or known_fields.get("position_on_prefix") is False:
        return
    warnings.warn(
        f"{pathlib.Path(checkpoint.path).name}: the position table is read as that of images of "
        f"{size[0]} x {size[1]} pixels, without a position of the class token; if the images were not square, pass "
        f"image_size=(height, width), else image_size={size[0]} to confirm it",
        stacklevel=2,
    )


def _infer(checkpoint, layout, known_fields):
    try:
        return layout.infer(checkpoint.shapes, known_fields)
    except KeyError as error:
        raise ValueError(
            f"a checkpoint of layout {layout.name!r} must have the key {error}. Received: {str(checkpoint.path)!r}"
        ) from error
    except (IndexError, TypeError) as error:
        raise ValueError(
            f"the arrays of a checkpoint must have the axes of its layout. Received: {str(checkpoint.path)!r}, read "
            f"as layout {layout.name!r} ({error})"
        ) from error


def _differing_from_name(layout, description, inferred, requested):
    """Finds the sizes of the arrays that differ from the model name in the file: dict from field to both values.

    A field that the caller passes with the value of the arrays is left out.
    """
    named = stated_config(description.architecture)
    if named is None:
        return {}
    if not issubclass(type(named), layout.config_class):
        return {"family": (layout.config_class.__name__, type(named).__name__)}
    names = [name for name in _NAMED if name in inferred]
    sizes = {name: (inferred[name], getattr(named, name)) for name in names}
    return {
        name: (actual, expected)
        for name, (actual, expected) in sizes.items()
        if actual != expected and not _confirms(requested.get(name), actual)
    }


def _confirms(value, actual):
    """Returns whether the passed value of a field is that of the arrays; one number stands for a pair."""
    return actual in (tuple(value) if isinstance(value, list) else value, (value, value))


def _raise_of_name(checkpoint, description, differing):
    text = ", ".join(f"{name}={actual!r} for {expected!r}" for name, (actual, expected) in differing.items())
    raise ValueError(
        "the name of the model that a training program wrote into a file must be that of its arrays; pass config=, or "
        f"the differing fields as they are in the arrays. Received: {str(checkpoint.path)!r} of "
        f"{description.architecture['architecture']!r} with {text}"
    )


def _check_agreement(checkpoint, config, inferred):
    for name in _CERTAIN:
        if name in inferred and inferred[name] != getattr(config, name, None):
            raise ValueError(
                "the config that keras_vit wrote into a checkpoint must be that of its arrays. Received: "
                f"{str(checkpoint.path)!r} with {name}={getattr(config, name, None)!r} for arrays of {inferred[name]!r}"
            )
