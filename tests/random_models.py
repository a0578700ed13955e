"""Random weights in small models, and what tests of checkpoints ask of them."""

import functools

import numpy as np

from keras_vit.models import SwinConfig, build_model
from keras_vit.weights.layout import weights_by_path

# The constants of a Swin Transformer's graph, which are made anew.
BUFFERS = r"\.(relative_position_index|attn_mask|relative_coords_table)$"


@functools.lru_cache(maxsize=64)
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


def hints_for(config, layout):
    """What a file in this layout cannot tell."""
    if isinstance(config, SwinConfig):
        names = ["image_size", "window_size", "window_rule", "pretrained_window_sizes"]
        return {name: getattr(config, name) for name in names if getattr(config, name) is not None}
    hints = {} if layout in ("google", "big_vision") else {"num_heads": config.num_heads}
    if config.grid_size[0] != config.grid_size[1] or config.position_embedding != "learned":
        hints["image_size"] = config.image_size
    return hints
