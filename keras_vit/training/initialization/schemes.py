"""Weight initialization schemes of published recipes."""

import math

import numpy as np

from keras_vit.config.recipe import INITIALIZATIONS
from keras_vit.metadata import metadata
from keras_vit.training.initialization.local import initialize_local_attention
from keras_vit.validation import check_choice

_TABLES = ("class_token", "distillation_token", "position_embedding", "register_tokens")
# Factors of the random part and of the identity in query times key, and in value times projection (section 4).
_QUERY_KEY, _VALUE_PROJECTION = (0.7, 0.7), (0.4, -0.4)


def initialize(model, scheme, seed=0):
    """Initializes the weights of a model by a scheme.

    Args:
        model: a model of this library.
        scheme: one of

            - `layers`: keeps the values of the layers, Glorot uniform kernels, and tokens and position embeddings with
              a standard deviation of 0.02;
            - `big_vision`: position embeddings with a standard deviation of `1 / sqrt(hidden_dim)`, tokens of zero;
            - `truncated_normal`, of timm and DeiT: kernels, tokens and position embeddings with a standard deviation of
              0.02 (truncated at 2, which has no effect), and PyTorch's uniform values for the patch projection;
            - `mimetic`: attention with the structure of trained models; query times key is close to the identity,
              value times projection close to the negative identity;
            - `local`: every head attends to a neighbor of each patch, see `initialize_local_attention`.
        seed: int.

    Raises:
        ValueError: on an unknown scheme, or if the model is not a Vision Transformer and the scheme needs one.

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
        if not config.has_global_attention:
            raise ValueError(f"{scheme} initialization is for Vision Transformers. Received: {type(config).__name__}")
        variables = {variable.path: variable for variable in model.weights}
        {"mimetic": _mimetic, "local": initialize_local_attention}[scheme](variables, config, random)


def _big_vision(model, random):
    for variable in model.weights:
        if variable.trainable and variable.name in _TABLES:
            stddev = variable.shape[-1] ** -0.5 if variable.name == "position_embedding" else 0.0
            variable.assign(stddev * random.normal(size=variable.shape))


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
    """Draws the kernels of queries, keys and values `(width, 3 * width)` and of the projection `(width, width)`."""
    size = width // num_heads
    pairs = [_factors(_near_identity(width, *_QUERY_KEY, random), size) for _ in range(num_heads)]
    queries, keys = (np.concatenate(halves, axis=1) for halves in zip(*pairs, strict=True))
    values, projection = _factors(_near_identity(width, *_VALUE_PROJECTION, random), width)
    return np.concatenate([queries, keys, values], axis=1), projection.T


def _near_identity(width, noise, identity, random):
    return noise * random.normal(size=(width, width)) / math.sqrt(width) + identity * np.eye(width)


def _factors(matrix, rank):
    """Factors a matrix into `a, b`: `a @ b.T` is its best approximation of that rank, with balanced norms."""
    left, values, right = np.linalg.svd(matrix)
    root = np.sqrt(values[:rank])
    return left[:, :rank] * root, right[:rank].T * root
