"""The config of a file: what its arrays tell, what is told beside them, and what neither does."""

import dataclasses
import pathlib
import warnings

from keras_vit.models import SIZES, HybridConfig, ViTConfig
from keras_vit.validation import as_pair
from keras_vit.weights.files.training_files import stated_config

# What arrays tell for certain; where a file's own description says otherwise, it is not of these arrays.
_CERTAIN = ("hidden_dim", "embed_dim", "num_layers", "depths", "mlp_dim", "num_channels", "patch_size", "num_classes")

# What the name of a model stands for, and arrays tell for certain.
_NAMED = ("hidden_dim", "embed_dim", "num_layers", "depths", "mlp_dim", "patch_size", "version", "num_registers")


def published_heads(hidden_dim, num_layers, mlp_dim):
    """The number of heads of the published size with these numbers, or `None`."""
    sizes = {(width, depth, mlp): heads for width, depth, heads, mlp in SIZES.values()}
    return sizes.get((hidden_dim, num_layers, mlp_dim))


def complete_vit(fields):
    """The config of inferred fields, a hybrid or not, with the heads of the published size where nothing tells them.

    Raises:
        ValueError: if the image size or the number of heads is unknown.
    """
    if "image_size" not in fields:
        raise ValueError(
            "image_size cannot be told from a file without a table of positions; pass image_size=. "
            f"Received: hidden_dim={fields['hidden_dim']}, patch_size={fields['patch_size']}"
        )
    if "num_heads" not in fields:
        heads = published_heads(fields["hidden_dim"], fields["num_layers"], fields["mlp_dim"])
        if heads is None:
            raise ValueError(
                "the number of attention heads cannot be told from this file; pass num_heads=. "
                f"Received: hidden_dim={fields['hidden_dim']}"
            )
        fields = {**fields, "num_heads": heads}
    return (HybridConfig if "stem_depths" in fields else ViTConfig)(**fields)


def infer_config(checkpoint, layout, description, wanted=None, defaults=None):
    """The config of the model that a checkpoint was written from.

    Args:
        checkpoint: `Checkpoint`, with single blocks.
        layout: its layout.
        description: `Description` of the file; the config in it is the answer, if the arrays agree.
        wanted: dict of fields that a user asks for. They decide what neither arrays nor description tell.
        defaults: dict of fields that decide it before `wanted` does.

    Returns:
        A config.

    Raises:
        ValueError: if a key is missing without which nothing can be told, if what no file tells is unknown, or if
            the description contradicts the arrays.
    """
    told, others = description.stated, {**(wanted or {}), **(defaults or {})}
    inferred = {
        **_infer(checkpoint, layout, {**(defaults or {}), **(wanted or {}), **told}),
        **layout.infer_values(checkpoint),
    }
    if differing := _differing_from_name(layout, description, inferred, wanted or {}):
        if defaults is None:
            _raise_of_name(checkpoint, description, differing)
        # The caller names the model, and the file does not contradict that by a name that is not its own.
        description = dataclasses.replace(description, fields={}, architecture={})
        return infer_config(checkpoint, layout, description, wanted, defaults)
    if description.config is not None:
        _check_agreement(checkpoint, description.config, inferred)
        return description.config
    _warn_of_square_table(checkpoint, inferred, {**(defaults or {}), **(wanted or {}), **told})
    known = {field.name for field in dataclasses.fields(layout.config_class)}
    others, told = ({name: v for name, v in group.items() if name in known} for group in (others, told))
    return layout.make_config({**others, **layout.merge(inferred, told)})


def _warn_of_square_table(checkpoint, inferred, hints):
    """Warns where a table without an entry of the class token may as well be one of images that are not square.

    25 entries are a grid of 5 x 5, or one of 6 x 4 and the class token. DeiT-III (with its LayerScale) and models with
    registers are of the first kind; so is FlexiViT, but most others are of the second.
    """
    usual = inferred.get("layer_scale_init") is not None or inferred.get("num_registers")
    if usual or not inferred.get("class_token") or inferred.get("position_on_prefix", True):
        return
    size = inferred["image_size"]
    confirmed = hints.get("image_size") is not None and as_pair(hints["image_size"], "image_size") == tuple(size)
    if confirmed or hints.get("position_on_prefix") is False:
        return
    warnings.warn(
        f"{pathlib.Path(checkpoint.path).name}: the position table is taken for that of images of "
        f"{size[0]} x {size[1]} pixels, without a position of the class token; if the images were not square, pass "
        f"image_size=(height, width), else image_size={size[0]} says that it is so",
        stacklevel=2,
    )


def _infer(checkpoint, layout, hints):
    try:
        return layout.infer(checkpoint.shapes, hints)
    except KeyError as error:
        raise ValueError(
            f"a checkpoint of layout {layout.name!r} must have the key {error}. Received: {str(checkpoint.path)!r}"
        ) from error
    except (IndexError, TypeError) as error:
        raise ValueError(
            f"the arrays of a checkpoint must have the axes of its layout. Received: {str(checkpoint.path)!r}, read "
            f"as layout {layout.name!r} ({error})"
        ) from error


def _differing_from_name(layout, description, inferred, wanted):
    """Sizes of the arrays that are not those of the model's name in the file: dict from field to both of them.

    A field that the caller passes as it is in the arrays is left out: it confirms them.
    """
    named = stated_config(description.architecture)
    if named is None:
        return {}
    if not issubclass(type(named), layout.config_class):
        return {"family": (layout.config_class.__name__, type(named).__name__)}
    names = [name for name in _NAMED if name in inferred and hasattr(named, name)]
    sizes = {name: (inferred[name], getattr(named, name)) for name in names}
    return {
        name: (found, expected)
        for name, (found, expected) in sizes.items()
        if found != expected and not _confirms(wanted.get(name), found)
    }


def _confirms(value, found):
    """Returns whether what a caller passes for a field is what the arrays have; one number stands for a pair."""
    return found in (tuple(value) if isinstance(value, list) else value, (value, value))


def _raise_of_name(checkpoint, description, differing):
    text = ", ".join(f"{name}={found!r} for {expected!r}" for name, (found, expected) in differing.items())
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
