"""Models into checkpoints of any source."""

import pathlib
import warnings

import numpy as np

from keras_vit.metadata import composition, metadata
from keras_vit.weights.config import embedded
from keras_vit.weights.files.checkpoint import write_checkpoint
from keras_vit.weights.layouts.base import expand, weights_by_path
from keras_vit.weights.layouts.detect import layout_to_write


def _check_arrays_tell(tensors, layout, config, path):
    """Raises a `ValueError` where arrays alone would be read as a model of another pooling or grid of positions."""
    if not hasattr(config, "pooling"):
        return
    told = layout.infer({key: array.shape for key, array in tensors.items()}, vars(config))
    for name in ("pooling", "image_size"):
        ours = getattr(config, name)
        if told.get(name, ours) != ours:
            raise ValueError(
                f"an '.npz' file of layout {layout.name!r} must tell the {name} by its arrays; '.safetensors' has a "
                f"place for it. Received: {str(path)!r} with {name}={ours!r}, which would be read as {told[name]!r}"
            )


def to_tensors(model, layout):
    """A dict from key to array of a model's weights in a layout object.

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
    """The model of keras_vit inside a model; warns of what is around it."""
    inner = composition(model).inner
    if inner is model:
        return model
    ours = {id(variable) for variable in inner.weights}
    paths = sorted(variable.path for variable in model.weights if id(variable) not in ours)
    shown = ", ".join(paths[:6]) + (f" and {len(paths) - 6} more" if len(paths) > 6 else "")
    left_out = f"; left out: {shown}. model.save('model.keras') keeps all of it" if paths else ""
    warnings.warn(f"{model.name}: written is the model inside, {inner.name!r}{left_out}", stacklevel=3)
    return inner


def save_weights(model, path, layout="timm"):
    """Writes a model's weights with the keys of a source.

    A `.safetensors` file also holds, in its metadata, what arrays do not tell: the model's config, preprocessing and
    labels, which `from_checkpoint` reads and other libraries pass over. An `.npz` file does not, as its readers take
    whatever is in it for an array; so a model whose pooling or grid of positions its arrays do not tell is not written
    as `.npz`.
    What a model makes of its logits (`classifier_activation`) is in no layout: other libraries' models give logits.

    Args:
        model: a model of keras_vit, or one that calls such a model: the inner model is written, and a warning names the
            layers around it, whose weights no layout has.
        path: where; `.safetensors` or `.npz`.
        layout: one of `keras_vit.weights.LAYOUTS`. What a source keeps in its files and the model has not is made
            anew: the buffers of Swin Transformers, and DINOv2's `mask_token`, which only its training uses, as zeros.

    Raises:
        ValueError: if the layout cannot hold the model, with the reason; if an `.npz` file would be read as another
            one; on an unknown layout or suffix.
    """
    model = _inner(model)
    config = metadata(model).config
    writer = layout_to_write(layout, config)
    tensors = to_tensors(model, writer)
    if pathlib.Path(path).suffix == ".npz":
        _check_arrays_tell(tensors, writer, config, path)
    write_checkpoint(path, tensors, embedded.write(model))
