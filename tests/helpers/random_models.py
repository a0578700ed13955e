"""Random weights in small models, and what tests of checkpoints ask of them."""

import functools

import numpy as np

from keras_vit.models import SwinConfig, build_model
from keras_vit.weights import load_weights
from keras_vit.weights.config.infer import infer_config
from keras_vit.weights.describe import describe
from keras_vit.weights.files.checkpoint import open_checkpoint
from keras_vit.weights.layouts.base import weights_by_path
from keras_vit.weights.layouts.detect import detect_layout

# The constants of a Swin Transformer's graph and DINOv2's mask token, which are made anew.
BUFFERS = r"\.(relative_position_index|attn_mask|relative_coords_table)$|^mask_token$"


@functools.lru_cache(maxsize=128)
def model_and_weights(config):
    """A model and the random weights that belong in it, by path."""
    model, generator = build_model(config), np.random.default_rng(0)
    shapes = {path: variable.shape for path, variable in weights_by_path(model).items()}
    return model, {path: generator.normal(size=shape).astype("float32") for path, shape in shapes.items()}


def fill(model, weights):
    for path, variable in weights_by_path(model).items():
        variable.assign(weights[path])


def forget(model):
    for variable in weights_by_path(model).values():
        variable.assign(np.full(variable.shape, 7, "float32"))


def assert_holds(model, weights):
    variables = weights_by_path(model)
    assert set(variables) == set(weights)
    for path, value in weights.items():
        assert np.asarray(variables[path]).tobytes() == value.tobytes(), path


def error_of(function, *arguments, **keywords):
    """What a `ValueError` says, or `None` if there is none."""
    try:
        function(*arguments, **keywords)
    except ValueError as error:
        return str(error)
    return None


def read_config(path, **wanted):
    """The config that `from_checkpoint` finds; it builds no model."""
    checkpoint = open_checkpoint(path)
    layout = detect_layout(checkpoint)
    found = infer_config(layout.unpack(checkpoint), layout, describe(checkpoint), wanted)
    return found.adapt(**wanted)


def read(path, **wanted):
    """What `from_checkpoint` does, but with one model for all files of a config."""
    return load_weights(model_and_weights(read_config(path, **wanted))[0], path)


def known_fields_of(config, layout):
    """What the arrays of a file in this layout cannot tell, but for the pooling."""
    if isinstance(config, SwinConfig):
        names = ["image_size", "window_size", "window_rule", "pretrained_window_sizes"]
        return {name: getattr(config, name) for name in names if getattr(config, name) is not None}
    fields = {} if layout in ("google", "big_vision") else {"num_heads": config.num_heads}
    if not config.head_bias:
        fields["num_classes"] = config.num_classes  # CLIP's projection is in its files anyway
    stride = getattr(config, "stem_stride", 1)
    whole = tuple(grid * side * stride for grid, side in zip(config.grid_size, config.patch_size, strict=True))
    square = config.grid_size[0] == config.grid_size[1]
    if not square or config.position_embedding != "learned" or config.image_size != whole:
        fields["image_size"] = config.image_size
    return fields
