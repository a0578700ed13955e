"""Writes models as checkpoints of any layout."""

import pathlib
import warnings

import numpy as np

from keras_vit.metadata import composition, metadata
from keras_vit.weights.config import safetensors_metadata
from keras_vit.weights.files.checkpoint import write_checkpoint
from keras_vit.weights.layouts.base import expand, weights_by_path
from keras_vit.weights.layouts.detect import layout_to_write


def _check_inferable(tensors, layout, config, path):
    """Raises a `ValueError` if the arrays alone would be read as a model with another pooling or image size."""
    if not config.fields_from_arrays:
        return
    inferred = layout.infer({key: array.shape for key, array in tensors.items()}, vars(config))
    for name in config.fields_from_arrays:
        ours = getattr(config, name)
        if inferred.get(name, ours) != ours:
            raise ValueError(
                f"an '.npz' file of layout {layout.name!r} must determine the {name} by its arrays; write "
                f"'.safetensors', which states it. Received: {str(path)!r} with {name}={ours!r}, which would be read "
                f"as {inferred[name]!r}"
            )


def to_tensors(model, layout):
    """Converts a model's weights to a dict from key to array of a layout.

    Raises:
        ValueError: if the layout cannot hold the model, with the reason.
    """
    config = metadata(model).config
    variables = weights_by_path(model)
    rules = expand(layout.table(config), config, variables)
    lost = sorted(set(variables) - {name for item in rules for name in item.ours})
    reason = layout.refuses(config) or (lost and f"it has no key for {', '.join(lost[:3])}")
    if reason:
        raise ValueError(f"layout {layout.name!r} cannot hold this model. Received: {model.name!r}; {reason}")
    tensors = {}
    for item in rules:
        arrays = [np.asarray(variables[name]) for name in item.ours]
        tensors.update(zip(item.theirs, item.save(arrays, config), strict=True))
    return layout.pack(tensors | layout.constants(config))


def _inner(model):
    """Returns the model of keras_vit inside a model, with a warning about the layers around it."""
    inner = composition(model).inner
    if inner is model:
        return model
    ours = {id(variable) for variable in inner.weights}
    paths = sorted(variable.path for variable in model.weights if id(variable) not in ours)
    shown = ", ".join(paths[:6]) + (f" and {len(paths) - 6} more" if len(paths) > 6 else "")
    left_out = f"; left out: {shown}. model.save('model.keras') keeps all of it" if paths else ""
    warnings.warn(f"{model.name}: only the inner model {inner.name!r} is written{left_out}", stacklevel=3)
    return inner


def save_weights(model, path, layout="timm"):
    """Writes a model's weights as a checkpoint of another library.

    The metadata of a `.safetensors` file also hold the model's config, preprocessing and labels, which
    `from_checkpoint` reads and other libraries ignore. An `.npz` file has no metadata, so a model whose pooling or
    image size cannot be inferred from its arrays is not written as `.npz`.
    No layout holds `classifier_activation`: other libraries' models return logits.

    Args:
        model: a model of keras_vit, or one that calls such a model: the inner model is written, and a warning names the
            layers around it, which no layout can hold.
        path: of the file, `.safetensors` or `.npz`.
        layout: one of `keras_vit.weights.LAYOUTS`. Arrays of a layout that the model does not have are computed:
            the buffers of Swin Transformers, and DINOv2's `mask_token`, which only its training uses, as zeros.

    Raises:
        ValueError: if the layout cannot hold the model, with the reason; if an `.npz` file would be read as another
            model; on an unknown layout or suffix.
    """
    model = _inner(model)
    config = metadata(model).config
    writer = layout_to_write(layout, config)
    tensors = to_tensors(model, writer)
    if pathlib.Path(path).suffix == ".npz":
        _check_inferable(tensors, writer, config, path)
    write_checkpoint(path, tensors, safetensors_metadata.write(model))
