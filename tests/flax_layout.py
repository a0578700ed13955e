"""Google's and big_vision's keys of a ViT in our variables, for the goldens. Strict: every key is used."""

import re

import numpy as np

_BLOCK = r"^Transformer/encoderblock_(\d+)/"
_RULES = [
    (r"^embedding/", "patch_encoder/projection/"),
    (r"^cls$", "patch_encoder/class_token"),
    (r"^(Transformer/posembed_input/)?pos_embedding$", "patch_encoder/position_embedding"),
    (_BLOCK + "LayerNorm_0/", r"encoder_block_\1/attention_norm/"),
    (_BLOCK + "LayerNorm_[12]/", r"encoder_block_\1/mlp_norm/"),
    (_BLOCK + "MultiHeadDotProductAttention_[01]/out/", r"encoder_block_\1/attention/projection/"),
    (_BLOCK + "MultiHeadDotProductAttention_[01]/", r"encoder_block_\1/attention/"),
    (_BLOCK + "MlpBlock_[03]/Dense_0/", r"encoder_block_\1/mlp/dense_1/"),
    (_BLOCK + "MlpBlock_[03]/Dense_1/", r"encoder_block_\1/mlp/dense_2/"),
    (r"^Transformer/encoder_norm/", "encoder_norm/"),
    (r"^MAPHead_0/probe$", "representation/probe"),
    (r"^MAPHead_0/LayerNorm_0/", "representation/norm/"),
    (r"^MAPHead_0/MlpBlock_0/Dense_0/", "representation/mlp/dense_1/"),
    (r"^MAPHead_0/MlpBlock_0/Dense_1/", "representation/mlp/dense_2/"),
    (r"^MAPHead_0/MultiHeadDotProductAttention_0/out/", "representation/projection/"),
    (r"^MAPHead_0/MultiHeadDotProductAttention_0/", "representation/"),
    (r"^(pre_logits|head)/", r"\1/"),
]


def _path(key):
    key = key.removeprefix("params/")
    matches = [re.sub(pattern, ours, key) for pattern, ours in _RULES if re.search(pattern, key)]
    path = matches[0]
    return path[: -len("scale")] + "gamma" if path.endswith("norm/scale") else re.sub("norm/bias$", "norm/beta", path)


def _value(path, value):
    if path.endswith("projection/kernel"):  # (ph, pw, c, hidden_dim) of patches, (heads, head_dim, hidden_dim) of out
        return value.reshape(-1, value.shape[-1])
    if re.search("/(query|key|value)/kernel$", path):
        return value.reshape(len(value), -1)
    return value.reshape(-1) if re.search("/(query|key|value)/bias$", path) else value


def _fuse(values, parts, fused):
    """Joins the separate projections of one attention along the last axis."""
    for path in [p for p in values if re.search(f"/{parts[0]}/(kernel|bias)$", p)]:
        arrays = [values.pop(path.replace(f"/{parts[0]}/", f"/{part}/")) for part in parts]
        values[path.replace(f"/{parts[0]}/", f"/{fused}/")] = np.concatenate(arrays, axis=-1)


def from_flax(checkpoint):
    """`{variable path: array}` of a flat Flax checkpoint."""
    values = {_path(key): _value(_path(key), value) for key, value in checkpoint.items()}
    assert len(values) == len(checkpoint)
    pooling = {path: values.pop(path) for path in list(values) if path.startswith("representation/")}
    _fuse(values, ("query", "key", "value"), "qkv")
    _fuse(pooling, ("key", "value"), "key_value")
    return values | pooling
