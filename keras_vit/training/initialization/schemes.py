"""First weights as the sources of published recipes draw them."""

import math

import numpy as np

from keras_vit.config.recipe import INITIALIZATIONS
from keras_vit.metadata import metadata
from keras_vit.models import ViTConfig
from keras_vit.training.initialization.local import initialize_locally
from keras_vit.validation import check_choice

_TABLES = ("class_token", "distillation_token", "position_embedding", "register_tokens")
# Of the random part and the identity in queries times keys, and in values times projection: section 4 of the paper.
_QUERY_KEY, _VALUE_PROJECTION = (0.7, 0.7), (0.4, -0.4)


def initialize(model, scheme, seed=0):
    """Draws the first weights of a model anew.

    Args:
        model: of this library.
        scheme: `layers` leaves what the layers drew: Glorot's uniform numbers, tokens and positions of deviation 0.02.
            `big_vision` draws positions of deviation `1 / sqrt(hidden_dim)` instead and begins with tokens of zero.
            `truncated_normal` is timm's and DeiT's: kernels, tokens and positions of deviation 0.02 (cut at 2, that is
            never), and PyTorch's uniform numbers for the projection of the patches. `mimetic` gives the attention of a
            Vision Transformer the structure that trained ones have: queries and keys whose product is near the
            identity, values and projections whose product is near the negative identity. `local` lets every head look
            at a neighbour of each patch, see `initialize_locally`.
        seed: int.

    Raises:
        ValueError: on an unknown scheme; if the model has no such attention.

    Sources: timm `models/vision_transformer.py`, `init_weights_vit_timm`; Trockman and Kolter, "Mimetic Initialization
        of Self-Attention Layers" (arXiv:2305.09828).
    """
    check_choice(scheme, INITIALIZATIONS, "scheme")
    random = np.random.default_rng(seed)
    if scheme == "big_vision":
        _big_vision(model, random)
    elif scheme == "truncated_normal":
        _truncated_normal(model, random)
    elif scheme in ("mimetic", "local"):
        config = metadata(model).config
        if not isinstance(config, ViTConfig):
            raise ValueError(f"{scheme} initialization is for Vision Transformers. Received: {type(config).__name__}")
        variables = {variable.path: variable for variable in model.weights}
        {"mimetic": _mimetic, "local": initialize_locally}[scheme](variables, config, random)


def _big_vision(model, random):
    for variable in model.weights:
        if variable.trainable and variable.name in _TABLES:
            deviation = variable.shape[-1] ** -0.5 if variable.name == "position_embedding" else 0.0
            variable.assign(deviation * random.normal(size=variable.shape))


def _truncated_normal(model, random):
    fan_in = next(v.shape[0] for v in model.weights if v.path == "patch_encoder/projection/kernel")
    for variable in model.weights:
        if variable.path.startswith("patch_encoder/projection/"):
            variable.assign(random.uniform(-1, 1, size=variable.shape) * fan_in**-0.5)
        elif variable.trainable and (variable.name == "kernel" or variable.name in _TABLES):
            variable.assign(0.02 * random.normal(size=variable.shape))


def _mimetic(variables, config, random):
    for block in range(config.num_layers):
        attention = f"encoder_block_{block}/attention"
        qkv, projection = _attention_kernels(config.hidden_dim, config.num_heads, random)
        variables[f"{attention}/qkv/kernel"].assign(qkv)
        variables[f"{attention}/projection/kernel"].assign(projection)


def _attention_kernels(width, num_heads, random):
    """`(width, 3 * width)` of queries, keys and values, and `(width, width)` of the projection."""
    size = width // num_heads
    pairs = [_factors(_near_identity(width, *_QUERY_KEY, random), size) for _ in range(num_heads)]
    queries, keys = (np.concatenate(halves, axis=1) for halves in zip(*pairs, strict=True))
    values, projection = _factors(_near_identity(width, *_VALUE_PROJECTION, random), width)
    return np.concatenate([queries, keys, values], axis=1), projection.T


def _near_identity(width, noise, identity, random):
    return noise * random.normal(size=(width, width)) / math.sqrt(width) + identity * np.eye(width)


def _factors(matrix, rank):
    """`a, b` with `a @ b.T` the best approximation of a matrix of that rank, evenly divided between both."""
    left, values, right = np.linalg.svd(matrix)
    root = np.sqrt(values[:rank])
    return left[:, :rank] * root, right[:rank].T * root
